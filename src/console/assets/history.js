// What was done to a job or campaign: who, why, and how long it took from the request until it was applied.

import { el, setAttribute, setText } from "./dom.js";
import { live, path } from "./live.js";
import { session } from "./session.js";
import { actionWords, clock, duration, moment } from "./messages.js";

const PAGE = 500;
const MOST_PAGES = 20;
const AGAIN = [300, 700, 1_000, 2_000, 4_000];
const EVERY = 15_000;

export class History {
  constructor(id) {
    this.id = id;
    this.empty = el("p", { class: "empty" }, "Loading the commands…");
    this.body = el("tbody");
    this.table = el("div", { class: "table-wrap", hidden: true, tabindex: "0", role: "region", "aria-label": "Commands" }, el("table", {},
      el("thead", {}, el("tr", {}, ...["When", "What", "Who", "Why", "Outcome", "Took"].map((text) => el("th", { scope: "col" }, text)))), this.body));
    this.node = el("section", {}, el("h3", {}, "Commands"), this.table, this.empty);
  }

  close() {
    clearTimeout(this.timer);
    this.closed = true;
  }

  // A worker carries entries into the trail now and then: what has just been done is there some seconds later.
  soon(again = AGAIN) {
    clearTimeout(this.timer);
    const [wait = EVERY, ...rest] = again;
    this.timer = setTimeout(async () => {
      await this.load();
      if (!this.closed) this.soon(rest);
    }, wait);
  }

  async load() {
    if (!session.holds("audit.read")) return setText(this.empty, "Who did what stands in the audit trail: you seem to lack the permission audit.read.");
    try {
      // The trail begins with the oldest; of very many the newest are shown.
      let entries = [];
      for (let after = null, pages = 0; pages < MOST_PAGES && (after !== null || pages === 0); pages += 1) {
        const page = await live.ask(path("/api/v1/audit", { resource: this.id, limit: PAGE, after }));
        entries = [...entries, ...page.entries].slice(-PAGE);
        after = page.next ?? null;
      }
      if (!this.closed) this.show(entries);
    } catch (error) {
      setText(this.empty, `The commands cannot be read: ${error.message}`);
    }
    return undefined;
  }

  show(entries) {
    const ends = new Map();
    const begun = [];
    for (const entry of entries) {
      if (["succeeded", "failed", "expired", "withdrawn"].includes(entry.event)) ends.set(entry.command_id, entry);
      else begun.push(entry);
    }
    setAttribute(this.table, "hidden", begun.length === 0);
    setAttribute(this.empty, "hidden", begun.length > 0);
    setText(this.empty, "Nobody has sent it a command yet.");
    this.body.replaceChildren(...begun.reverse().map((entry) => {
      const end = ends.get(entry.command_id);
      return el("tr", { "data-tone": tone(entry, end) },
        el("td", {}, el("time", { datetime: entry.at, title: moment(entry.at) }, clock(new Date(entry.at)))),
        el("td", {}, actionWords(entry.action)), el("td", {}, entry.user_id), el("td", {}, entry.reason ?? ""),
        el("td", {}, outcome(entry, end)), el("td", {}, took(end)));
    }));
  }
}

function tone(entry, end) {
  if (entry.event === "denied" || entry.event === "rate_limited" || end?.event === "failed" || end?.event === "expired") return "bad";
  return end?.event === "succeeded" ? "good" : null;
}

function outcome(entry, end) {
  if (entry.event === "denied") return "Not permitted";
  if (entry.event === "rate_limited") return "Over the budget";
  if (end?.event === "succeeded") return `Done${end.outcome ? `: ${end.outcome}` : ""}`;
  if (end?.event === "failed") return end.outcome ? `Failed: ${end.outcome}` : "Failed";
  if (end?.event === "expired") return "Expired: no worker took it in time";
  if (end?.event === "withdrawn") return "Withdrawn";
  return entry.event === "scheduled" ? `Scheduled${entry.run_at ? ` for ${moment(new Date(entry.run_at).toISOString())}` : ""}` : "Waits";
}

function took(end) {
  if (typeof end?.latency_ms !== "number") return "";
  return end.latency_ms < 1_000 ? `${end.latency_ms} ms` : duration(end.latency_ms);
}
