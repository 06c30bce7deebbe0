// The console: puts session, lists, sockets and commands together, and says how the connection is.

import * as activity from "./activity.js";
import { api } from "./api.js";
import { Commands } from "./commands.js";
import { byId, say, setAttribute, setText } from "./dom.js";
import { List } from "./lists.js";
import { Model } from "./model.js";
import { Pool } from "./pool.js";
import { Row } from "./row.js";
import { clean, session, describeToken } from "./session.js";
import { NO_WORKER, WORKER_BACK, closedBecause, duration, limited, nameOf } from "./messages.js";

const EXPIRES_SOON = 5 * 60_000;
const ME_EVERY = 60_000;

const filter = { status: "", text: "", members: false, campaign: null };
const model = new Model();

// ---- sockets ----------------------------------------------------------------------------------------

const pool = new Pool(model, {
  open(item) {
    item.probed = false;
    commands.onOpen(item);
    model.changed(item);
  },
  message(item, message) {
    const { type } = message;
    // In a snapshot, and in a message of its own when the last worker is gone or one is back.
    if (/^(workers_online|(job|campaign)_snapshot)$/.test(type)) workersAre(message.workers_online);
    if (commands.onMessage(item, message)) return;
    if (type === "error") report(item, "bad", message.message ?? message.error);
    else if (/^(job|campaign)_(snapshot|progress|status)$/.test(type)) {
      const { news, ended } = model.apply(item, message);
      if (ended) onEnded(item);
      if (news && type !== `${item.kind}_snapshot`) refresh(item);
    }
  },
  // A browser does not tell why a handshake was refused: the same question over HTTP does.
  down(item, code, opened) {
    if (!opened && !item.probed) {
      item.probed = true;
      refresh(item);
    }
  },
  terminal(item, code) {
    if (code === 4401) signInAgain("Your token has expired.");
    else {
      report(item, "bad", `No longer watched: ${closedBecause(code)}`);
      pool.block(item.kind);
      lists[item.kind].restart();
    }
  },
  state: () => describeConnection(),
});

// The row as the database has it: times, names and errors do not travel on sockets.
async function refresh(item) {
  if (item.refreshing) {
    item.refreshAgain = true;
    return;
  }
  item.refreshing = true;
  try {
    const { ended } = model.merge(item.kind, await api.show(item.kind, item.id), true);
    item.gone = false;
    if (ended) onEnded(item);
  } catch (error) {
    if (error.status === 401 && !error.stale) signInAgain(error.message);
    else if (error.status === 404) {
      item.gone = true;
      model.changed(item);
    }
  }
  item.refreshing = false;
  if (item.refreshAgain) {
    item.refreshAgain = false;
    refresh(item);
  }
}

function onEnded(item) {
  const { status, error_message: error } = item.row;
  // A cancel's result says so itself.
  if (status === "completed") report(item, "good", "Completed");
  if (status === "failed") report(item, "bad", error ? `Failed: ${error}` : "Failed");
}

// ---- commands ---------------------------------------------------------------------------------------

const commands = new Commands(model, pool, {
  report,
  settled: (item) => refresh(item),
  unauthorized: (error) => signInAgain(error.message),
  limit: () => describeLimit(),
});

function redraw() {
  for (const item of model.items.values()) model.changed(item);
}

function report(item, tone, text) {
  activity.report(item, tone, text, show);
  say(`${text}. ${nameOf(item)}`, tone === "bad");
}

let limitShown = 0;
function describeLimit() {
  const seconds = commands.secondsLimited();
  setText(byId("limit"), seconds > 0 ? limited(commands.limitMessage, seconds) : "");
  setAttribute(byId("limit"), "hidden", seconds === 0);
  if ((seconds > 0) !== (limitShown > 0)) redraw();
  limitShown = seconds;
}

// ---- lists ------------------------------------------------------------------------------------------

const rowOn = {
  command: (item, action, reason) => commands.start(item, action, reason),
  again: (request) => commands.again(request),
  toggle(item) {
    if (item.open) refresh(item);
    pool.soon(0);
  },
  showJobs(campaign) {
    filter.campaign = campaign.id;
    describeOnly();
    lists.job.restart();
    byId("jobs-heading").focus();
  },
  seconds: () => commands.secondsLimited(),
};

const listOn = {
  row: (item) => new Row(item, rowOn),
  seen: () => pool.soon(),
  ended: onEnded,
  loaded(kind) {
    pool.unblock(kind);
    pool.soon();
    describeConnection();
  },
  // True where asking again is no use.
  failed(kind, error) {
    describeConnection();
    if (error.status !== 401) return false;
    signInAgain(error.code === "unauthorized" ? error.message : "The gateway does not accept the token.");
    return true;
  },
  widen() {
    filter.campaign = null;
    byId("find").value = "";
    byId("status").value = "";
    readFilters();
    byId("find").focus();
  },
};

const lists = {
  campaign: new List("campaign", model, filter, listOn),
  job: new List("job", model, filter, listOn),
};
const eachList = (what) => Object.values(lists).forEach(what);

let arranging = null;
model.onChange((items) => {
  for (const item of items) lists[item.kind].rows.get(item.key)?.update();
  // Filters look at what may just have changed; four times a second is plenty for them.
  arranging ??= setTimeout(() => {
    arranging = null;
    eachList((list) => list.arrange());
  }, 250);
});

function show(item) {
  if (!model.items.has(item.key)) return;
  item.leftAt = null;
  let row = lists[item.kind].rows.get(item.key);
  if (!row?.node.isConnected) {
    listOn.widen();
    row = lists[item.kind].rows.get(item.key);
  }
  row?.setOpen(true);
  lists[item.kind].arrange(true);
  lists[item.kind].rows.get(item.key)?.node.scrollIntoView({ block: "center" });
  lists[item.kind].rows.get(item.key)?.toggle.focus({ preventScroll: true });
}

let finding = null;
function readFilters() {
  const before = filter.status;
  filter.status = byId("status").value;
  filter.text = byId("find").value.trim().toLowerCase();
  filter.members = byId("members").checked;
  describeOnly();
  if (filter.status !== before) eachList((list) => list.restart());
  else eachList((list) => list.arrange(true));
  clearTimeout(finding);
  const wanted = byId("find").value.trim();
  if (wanted !== "") finding = setTimeout(() => eachList((list) => list.lookUp(wanted)), 500);
}

function describeOnly() {
  const only = byId("only");
  setAttribute(only, "hidden", filter.campaign === null);
  if (filter.campaign === null) return;
  const campaign = model.get("campaign", filter.campaign);
  const back = document.createElement("button");
  back.type = "button";
  back.className = "plain";
  back.textContent = "Show all jobs";
  back.addEventListener("click", () => {
    filter.campaign = null;
    describeOnly();
    lists.job.restart();
  });
  only.replaceChildren(`Only jobs of ${campaign ? nameOf(campaign) : `campaign ${filter.campaign}`}. `, back);
}

// ---- workers ----------------------------------------------------------------------------------------

let noWorker = false;
let noWorkerShown = false;

function workersAre(online) {
  if (typeof online !== "number") return;
  noWorker = online === 0;
  describeWorkers();
}

// Known only while a socket is open; the next one that opens says how it is by then.
function describeWorkers() {
  const { open } = pool.counts();
  if (open === 0) noWorker = false;
  if (noWorker === noWorkerShown) return;
  noWorkerShown = noWorker;
  setText(byId("workers"), noWorker ? NO_WORKER : "");
  setAttribute(byId("workers"), "hidden", !noWorker);
  if (noWorker || open > 0) say(noWorker ? NO_WORKER : WORKER_BACK, noWorker);
}

// ---- connection -------------------------------------------------------------------------------------

let said = "";
function describeConnection() {
  describeWorkers();
  const [state, text] = connection();
  const node = byId("connection");
  setAttribute(node, "data-state", state);
  setText(node, text);
  if (state !== said && said !== "" && (state === "offline" || (state === "live" && said === "offline"))) {
    say(state === "live" ? "Connected again" : text, state !== "live");
  }
  if (state === "live" || state === "offline") said = state;
}

function connection() {
  if (!session.token || !session.usable) return ["out", "Signed out"];
  const all = Object.values(lists);
  if (all.every((list) => list.state === "loading")) return ["starting", "Connecting…"];
  const failing = all.find((list) => list.failures > 0 && list.error?.status !== 403);
  if (failing) {
    const seconds = Math.max(0, Math.ceil(((failing.nextAt ?? 0) - Date.now()) / 1_000));
    const what = failing.error.status === 0 ? "No connection" : failing.error.status === 503
      ? "Redis or the database is away" : `Refused (${failing.error.code})`;
    return ["offline", seconds > 0 ? `${what}: trying again in ${seconds} s` : `${what}: trying again…`];
  }
  const { wanted, open, failed } = pool.counts();
  if (open === wanted) return ["live", "Live"];
  if (failed > 0) return ["waiting", `Reconnecting: ${open} of ${wanted} live`];
  return ["starting", `Connecting: ${open} of ${wanted} live`];
}

// ---- session ----------------------------------------------------------------------------------------

async function loadMe() {
  const before = session.me;
  try {
    const me = await api.me();
    if (before && (before.user_id !== me.user_id || before.tenant_id !== me.tenant_id)) forgetAll();
    session.me = me;
    redraw();
  } catch (error) {
    if (error.status === 401 && !error.stale) signInAgain(error.message);
  }
  describeWho();
}

function describeWho() {
  const { me } = session;
  const left = session.expiresIn();
  let text = me ? `${me.user_id} in ${me.tenant_id}` : "";
  if (me && left < EXPIRES_SOON) text += left > 0 ? `, token ends in ${duration(left)}` : ", token has expired";
  setText(byId("who"), text);
  const renew = Boolean(me) && left < EXPIRES_SOON;
  setText(byId("sign-out"), renew ? "New token" : "Sign out");
  setAttribute(byId("sign-out"), "data-renew", renew);
  setAttribute(byId("sign-out"), "hidden", !session.token);
}

function forgetAll() {
  commands.clear();
  pool.stop();
  eachList((list) => list.clear());
  model.clear();
  activity.clear();
  filter.campaign = null;
  describeOnly();
}

function begin() {
  session.usable = true;
  byId("sign-in").hidden = true;
  byId("page").hidden = false;
  loadMe();
  pool.start();
  eachList((list) => list.restart());
  describeWho();
  describeConnection();
}

function signInAnew() {
  session.me = null;
  forgetAll();
  begin();
}

// A link brought a token while somebody is signed in.
function askToReplace() {
  const dialog = byId("replace");
  if (!session.offered || dialog.open) return;
  setText(byId("replace-now"), describeToken(session.token));
  setText(byId("replace-by"), describeToken(session.offered));
  dialog.returnValue = "";
  dialog.showModal();
}

byId("replace").addEventListener("close", () => {
  const token = session.offered;
  session.offered = null;
  if (byId("replace").returnValue !== "replace" || !token) return;
  session.set(token);
  signInAnew();
});

// What is on the page stays: an operator in the middle of something must not lose sight of it.
function signInAgain(why) {
  if (!session.usable) return;
  session.usable = false;
  redraw();
  pool.stop();
  eachList((list) => list.stop());
  askForToken(`${why} Paste a new token to go on.`);
}

function askForToken(why, optional = false) {
  setText(byId("sign-in-why"), why);
  setText(byId("sign-in-error"), "");
  byId("sign-in").hidden = false;
  byId("sign-in-cancel").hidden = !optional;
  byId("page").hidden = model.items.size === 0;
  describeConnection();
  describeWho();
  byId("token").focus();
}

byId("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  const before = session.token;
  const token = clean(byId("token").value);
  const fail = (text) => {
    session.set(before);
    setText(byId("sign-in-error"), text);
    byId("token").focus();
  };
  if (token.split(".").length !== 3) return fail("This is not a token: it has three parts with two dots between.");
  session.set(token);
  let me;
  try {
    me = await api.me();
  } catch (error) {
    return fail(error.status === 401 ? error.message : `The token could not be checked: ${error.message}. Try again.`);
  }
  byId("token").value = "";
  const same = session.me && session.me.user_id === me.user_id && session.me.tenant_id === me.tenant_id;
  if (same && session.usable) {
    // Sockets that are open go on, without a break.
    pool.sendAll({ type: "refresh_token", token });
    session.me = me;
    byId("sign-in").hidden = true;
    describeWho();
    return undefined;
  }
  if (!same) forgetAll();
  session.me = me;
  begin();
  return undefined;
});

byId("sign-in-cancel").addEventListener("click", () => {
  byId("sign-in").hidden = true;
  byId("token").value = "";
});

byId("sign-out").addEventListener("click", () => {
  if (byId("sign-out").hasAttribute("data-renew") && session.usable) {
    askForToken("The token ends soon. Paste a new one of the same user: nothing is interrupted.", true);
    return;
  }
  session.end();
  forgetAll();
  session.usable = true;
  askForToken("You are signed out.");
});

// ---- beginning --------------------------------------------------------------------------------------

for (const id of ["status", "members"]) byId(id).addEventListener("change", readFilters);
byId("find").addEventListener("input", readFilters);
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    byId("find").focus();
  } else if (event.key === "Escape" && event.target === byId("find") && byId("find").value !== "") {
    byId("find").value = "";
    readFilters();
  }
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && session.token && session.usable) eachList((list) => list.poll());
});
// A link with a token opened in a tab that shows the console already changes only the fragment.
addEventListener("hashchange", () => {
  if (!/(^#|&)token=/.test(location.hash)) return;
  const before = session.usable ? session.token : null;
  if (session.begin() && session.token !== before) signInAnew();
  askToReplace();
});
setInterval(() => {
  commands.tick();
  describeConnection();
}, 1_000);
// Ages and running times.
setInterval(() => {
  for (const item of model.items.values()) if (item.visible) model.changed(item);
  describeWho();
}, 15_000);
setInterval(() => {
  if (session.token && session.usable && !document.hidden) loadMe();
}, ME_EVERY);

if (session.begin()) {
  begin();
  askToReplace();
} else askForToken("The console needs a token to know who you are and which jobs are yours.");
