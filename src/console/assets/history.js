// What was done to a job or campaign: who, why, and how long it took from the request until it was applied.

import { el, setAttribute, setText } from "./dom.js";
import { rowOf, tableOf } from "./table.js";
import { live, path } from "./live.js";
import { session } from "./session.js";
import { actionWords, age, duration, moment, unread } from "./messages.js";

const COLUMNS = ["When", "What", "Who", "Why", "Outcome", "Took"];
// Entries, the newest.
const MOST = 500;
const END = new Set(["succeeded", "failed", "expired", "withdrawn"]);
const AGAIN = [300, 700, 1_000, 2_000, 4_000];
const EVERY = 15_000;

export class History {
  constructor(kind, id) {
    this.kind = kind;
    this.id = id;
    this.empty = el("p", { class: "empty" }, "Loading the commands…");
    this.body = el("tbody");
    this.table = el("div", { class: "table-wrap", hidden: true, tabindex: "0", role: "region", "aria-label": "Commands" }, tableOf(COLUMNS, this.body));
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
      const { entries } = await live.ask(path("/api/v1/audit", { resource: this.id, order: "newest", limit: MOST }));
      // A job and a campaign may have the same id.
      if (!this.closed) this.show(entries.filter((entry) => entry.resource_kind === this.kind));
    } catch (error) {
      setText(this.empty, `The commands cannot be read: ${unread(error)}`);
    }
    return undefined;
  }

  show(entries) {
    const ends = new Map();
    const begun = new Map();
    // A command that was scheduled is accepted when its time comes: that is one command, begun when it was asked for.
    for (const entry of entries) {
      const command = entry.command_id ?? entry.id;
      if (END.has(entry.event)) ends.set(command, entry);
      else {
        if (begun.has(command) && !ends.has(command)) ends.set(command, begun.get(command));
        begun.set(command, entry);
      }
    }
    setAttribute(this.table, "hidden", begun.size === 0);
    setAttribute(this.empty, "hidden", begun.size > 0);
    setText(this.empty, "Nobody has sent it a command yet.");
    this.body.replaceChildren(...[...begun.values()].map((entry) => {
      const end = ends.get(entry.command_id ?? entry.id);
      const time = el("time", { datetime: entry.at, title: age(entry.at) }, moment(entry.at));
      return rowOf(COLUMNS, [time, actionWords(entry.action), entry.user_id, entry.reason ?? "", outcome(entry, end), took(end)],
        { "data-tone": tone(entry, end) });
    }));
  }
}

function tone(entry, end) {
  const { event } = end ?? entry;
  return ["denied", "rate_limited", "failed", "expired"].includes(event) ? "bad" : event === "succeeded" ? "good" : null;
}

function outcome(entry, end) {
  const last = end ?? entry;
  const more = last.outcome ? `: ${last.outcome}` : "";
  switch (last.event) {
    case "denied":
      return entry === last ? "Not permitted" : "Not permitted any more when its time came";
    case "rate_limited":
      return "Over the budget";
    case "succeeded":
      return `Done${more}`;
    case "failed":
      return `Failed${more}`;
    case "expired":
      return "Expired: no worker took it in time";
    case "withdrawn":
      return "Withdrawn";
    case "scheduled":
      return `Scheduled${entry.run_at ? ` for ${moment(new Date(entry.run_at).toISOString())}` : ""}`;
    default:
      return "Waits";
  }
}

function took(end) {
  if (typeof end?.latency_ms !== "number") return "";
  return end.latency_ms < 1_000 ? `${end.latency_ms} ms` : duration(end.latency_ms);
}
