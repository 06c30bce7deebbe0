// The console: puts together who is signed in, the connection, and the page that the address names.

import * as activity from "./activity.js";
import { commands } from "./commands.js";
import { byId, openDialog, say, setAttribute, setText } from "./dom.js";
import { describeConnection, describeLimit, describeWho } from "./header.js";
import { ListPage } from "./listpage.js";
import { live } from "./live.js";
import { forgetNames } from "./names.js";
import { AuditPage, FailedPage, WorkersPage } from "./operators.js";
import { oidc } from "./oidc.js";
import { OverviewPage } from "./overview.js";
import { ResourcePage } from "./resource.js";
import { go, href, route } from "./router.js";
import { SchedulesPage } from "./schedule.js";
import { session } from "./session.js";
import { SignIn } from "./sign-in.js";
import { waiting } from "./waiting.js";
import { closedBecause } from "./messages.js";

const ME_EVERY = 60_000;
const PAGES = {
  overview: () => new OverviewPage(),
  jobs: (id, query) => (id === null ? new ListPage("job", query) : new ResourcePage("job", id)),
  campaigns: (id, query) => (id === null ? new ListPage("campaign", query) : new ResourcePage("campaign", id)),
  schedules: () => new SchedulesPage(),
  failed: () => new FailedPage(),
  workers: () => new WorkersPage(),
  audit: (_, query) => new AuditPage(query),
};
// After "g".
const GO = { o: "overview", j: "jobs", c: "campaigns", s: "schedules", f: "failed", w: "workers", a: "audit" };

let page = null;
let shown = null;

// ---- pages ------------------------------------------------------------------------------------------

function show(force = false) {
  const { page: name, id, query } = route();
  const address = `${name}/${id}?${query}`;
  if (!live.wh || (address === shown && !force)) return;
  const isFirst = shown === null;
  shown = address;
  page?.close();
  page = PAGES[name](id, query);
  byId("content").replaceChildren(page.node);
  setAttribute(byId("page"), "data-page", name);
  setText(byId("page-heading"), page.title);
  // A job's page has its name as heading.
  setAttribute(byId("page-head"), "hidden", id !== null);
  describeTitle();
  for (const link of document.querySelectorAll("nav a")) {
    setAttribute(link, "aria-current", link.hash === href(name) ? "page" : null);
  }
  scrollTo(0, 0);
  if (!isFirst) (id === null ? byId("page-heading") : page.heading).focus({ preventScroll: true });
}

function describeTitle() {
  document.title = page ? `${page.title} · Wheelhouse` : "Wheelhouse";
}

// ---- session ----------------------------------------------------------------------------------------

const signIn = new SignIn({
  begin(me, isSame) {
    if (isSame) {
      session.me = me;
      describe();
      return;
    }
    session.me = me;
    forgetAll();
    begin();
  },
  changed() {
    byId("page").hidden = page === null;
    describe();
  },
});

function begin() {
  session.usable = true;
  byId("sign-in").hidden = true;
  byId("page").hidden = false;
  // Before the pages: what they show depends on it.
  live.start(({ reason }) => signIn.token(reason), (state) => {
    if (session.usable) {
      session.usable = false;
      signIn.ask(`You are no longer connected: ${closedBecause(state.code)}. Sign in again to go on.`);
    }
  });
  loadMe();
  show(true);
  describe();
}

async function loadMe() {
  const { wh } = live;
  try {
    const me = await live.ask("/api/v1/me");
    if (wh !== live.wh) return;
    session.me = me;
  } catch { /* the connection says how it is */ }
  describe();
}

function forgetAll() {
  live.stop();
  page?.close();
  page = null;
  shown = null;
  byId("content").replaceChildren();
  commands.clear();
  activity.clear();
  forgetNames();
  waiting.set([], false);
}

function describe() {
  describeConnection(!live.wh || (signIn.isOpen && !session.usable));
  describeWho();
  describeLimit();
}

byId("sign-out").addEventListener("click", () => {
  if (byId("sign-out").hasAttribute("data-renew") && session.usable) {
    signIn.ask("The token ends soon: sign in again, as the same user.", true);
    return;
  }
  session.end();
  forgetAll();
  session.usable = true;
  signIn.end();
});

// ---- what happened ----------------------------------------------------------------------------------

commands.onChange(({ report }) => {
  if (!report) return;
  const { kind, id, tone, text } = report;
  activity.report(kind, id, tone, text);
  say(`${text}. ${kind} ${id}`, tone === "bad");
  describeLimit();
});

live.watch({
  connection: describe,
  lost: describe,
  message({ type, job_id: job, campaign_id: campaign, status }) {
    if (!/^(job|campaign)_status$/.test(type) || !["completed", "failed"].includes(status)) return;
    activity.report(job ? "job" : "campaign", job ?? campaign, status === "failed" ? "bad" : "good", status === "failed" ? "Failed" : "Completed");
  },
});

// ---- keys -------------------------------------------------------------------------------------------

let awaitsPage = 0;
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.target.closest?.("input:not([type=checkbox]), textarea, select")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const begun = awaitsPage;
  awaitsPage = 0;
  let done = true;
  if (event.key === "?") openDialog(byId("help"));
  else if (Date.now() - begun < 1_500 && GO[event.key]) go(href(GO[event.key]));
  else if (event.key === "g") awaitsPage = Date.now();
  else done = Boolean(page?.key?.(event));
  if (done) event.preventDefault();
});
byId("skip").addEventListener("click", () => (page?.heading ?? byId("page-heading")).focus());
byId("help-open").addEventListener("click", () => openDialog(byId("help")));

// ---- beginning --------------------------------------------------------------------------------------

addEventListener("hashchange", () => {
  // A link with a token opened in a tab that shows the console already changes only the fragment.
  if (/[#?&]token=/.test(location.hash)) {
    const before = session.usable ? session.token : null;
    if (session.begin() && session.token !== before) {
      session.me = null;
      forgetAll();
      begin();
    }
    signIn.offer();
  }
  show();
});
setInterval(() => {
  commands.tick((kind, id) => page?.list?.items.get(id)?.row.status ?? (page?.id === id && page.kind === kind ? page.item.row.status : "running"));
  describe();
  describeTitle();
}, 1_000);
setInterval(() => {
  if (session.usable && live.isOpen && !document.hidden) loadMe();
}, ME_EVERY);
// Ages and running times, which stand still on a page that is not live.
setInterval(() => live.isOpen && page?.list?.drawSoon(), 15_000);

// An answer that this tab did not ask for changes nothing for somebody who is signed in.
const answer = oidc.takeAnswer();
if (answer?.begun ? await signIn.arrive(answer) : session.begin()) {
  begin();
  signIn.offer();
} else if (answer) {
  if (!answer.begun) await signIn.arrive(answer);
} else signIn.ask("The console needs to know who you are and which jobs are yours.");

