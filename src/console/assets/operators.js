// The pages "Failed commands", "Workers" and "Audit".

import { copyButton, el, setAttribute, setText } from "./dom.js";
import { live, part, path } from "./live.js";
import { named } from "./names.js";
import { keep } from "./router.js";
import { session } from "./session.js";
import { Table } from "./table.js";
import { actionWords, age, count, moment, unread } from "./messages.js";

const resource = (value) => (value.job_id ? named("job", value.job_id) : named("campaign", value.campaign_id));

export class FailedPage {
  constructor() {
    this.title = "Failed commands";
    this.table = new Table({
      label: "Failed commands",
      columns: ["When", "What", "On", "Who", "Error", ""],
      empty: "No command has failed. Those of the last week would stand here.",
      read: async (after) => {
        const { failed, next } = await live.ask(path("/api/v1/queue/failed", { limit: 100, after }));
        return { rows: failed, next };
      },
      row: (command) => this.row(command),
    });
    this.node = el("div", {}, el("p", { class: "faint" }, "Commands that no worker could carry out. What is requeued runs again, under the same name."), this.table.node);
    this.unwatch = live.watch({ covered: () => this.table.load(), message: ({ type }) => /_(failed|succeeded)$/.test(type) && this.table.soon() });
    // Nothing tells of what others drop.
    this.every = setInterval(() => !document.hidden && live.isOpen && this.table.load(), 5_000);
  }

  close() {
    clearInterval(this.every);
    this.unwatch();
    this.table.close();
  }

  row(command) {
    const base = `/api/v1/queue/failed/${part(command.command_id)}`;
    const id = command.job_id ?? command.campaign_id;
    const act = (address, method) => async () => {
      await live.ask(address, { method });
      await this.table.load();
    };
    return [moment(command.failed_at), actionWords(command.action), resource(command), command.user_id, command.error,
      el("span", { class: "acts" },
        this.table.button("Requeue", act(`${base}/requeue`, "POST"), { "aria-label": `Requeue the ${command.action} of ${id}` }),
        this.table.button("Drop", act(base, "DELETE"), { "aria-label": `Drop the ${command.action} of ${id}` }))];
  }
}

export class WorkersPage {
  constructor() {
    this.title = "Workers";
    this.table = new Table({
      label: "Workers",
      columns: ["Worker", "Host", "Version", "Kinds of job", "Load", "Since", "Last heartbeat"],
      empty: "No worker is alive: commands are accepted and wait until one is back.",
      read: async () => (await live.ask("/api/v1/workers")).workers,
      row: (worker) => this.row(worker),
    });
    this.node = el("div", {}, this.table.node);
    this.unwatch = live.watch({ covered: () => this.table.load(), connection: () => this.table.soon() });
    this.every = setInterval(() => !document.hidden && this.table.load(), 5_000);
  }

  close() {
    clearInterval(this.every);
    this.unwatch();
    this.table.close();
  }

  row(worker) {
    const { slots } = worker;
    const load = typeof worker.running === "number" ? `${count(worker.running)}${slots ? ` of ${count(slots)}` : ""}${worker.paused > 0 ? `, ${count(worker.paused)} paused` : ""}` : "";
    const sessions = (worker.sessions ?? []).map((one) => el("div", { class: "faint" },
      `${one.name}${one.client ? ` (${one.client})` : ""}${one.host ? ` on ${one.host}` : ""}: ${count(one.jobs)} jobs`));
    return [el("td", {}, el("strong", {}, worker.name ?? worker.id), worker.name ? el("div", { class: "faint" }, worker.id) : "", ...sessions),
      worker.host ?? "", worker.version ?? "", (worker.job_types ?? []).join(", "), load, worker.started_at ? age(worker.started_at) : "",
      worker.last_heartbeat ? age(worker.last_heartbeat) : ""];
  }
}

const AUDIT_FIELDS = [["resource", "Job or campaign id"], ["user", "User"]];
const EVENTS = ["accepted", "denied", "rate_limited", "scheduled", "withdrawn", "succeeded", "failed", "expired"];
const SINCE = [["1h", "Last hour"], ["24h", "Last day"], ["7d", "Last week"], ["all", "All"]];

function verifiedWords({ intact, rows, after, last, breaks, checked_at: at }) {
  const which = rows === 1 ? "the one entry" : after > 0 ? `the newest ${count(rows)} entries` : `all ${count(rows)} entries`;
  if (intact && rows === 0) return ["good", `Nothing stands in it yet. Checked ${moment(at)}.`];
  if (intact) return ["good", `Intact: ${which} ${rows === 1 ? "is as it was" : "are as they were"} written, up to entry ${last.id}. Checked ${moment(at)}.`];
  const where = breaks.slice(0, 5).map(({ kind, first, last: to }) => `${kind.replaceAll("_", " ")} at ${first === to ? `entry ${first}` : `entries ${first} to ${to}`}`);
  return ["bad", `Broken: in ${which}, ${where.join("; ")}${breaks.length > 5 ? `; and ${count(breaks.length - 5)} more` : ""}. Checked ${moment(at)}.`];
}

export class AuditPage {
  constructor(query) {
    this.title = "Audit";
    this.fields = { resource: query.get("resource") ?? "", user: query.get("user") ?? "", action: query.get("action") ?? "",
      event: query.get("event") ?? "", since: query.get("since") ?? "24h" };
    this.table = new Table({
      label: "Audit trail",
      columns: ["When", "Event", "What", "On", "Who", "Why", "Outcome", "Entry"],
      empty: session.holds("audit.read") ? "Nothing fits." : "This takes the permission audit.read.",
      read: async (after) => {
        const { entries, next } = await live.ask(path("/api/v1/audit", { ...this.asked, order: "newest", limit: 100, after }));
        return { rows: entries, next };
      },
      newer: async ({ id }) => {
        const { entries, next } = await live.ask(path("/api/v1/audit", { ...this.asked, order: "oldest", limit: 100, after: id }));
        return { rows: entries, next };
      },
      row: (entry) => this.row(entry),
    });
    const verify = "wheelhouse audit verify";
    this.chain = el("p", { class: "verified", role: "status" }, "Checking the chain…");
    this.node = el("div", {}, this.toolbar(),
      el("div", { class: "section-head" }, this.chain, this.table.button("Check again", () => this.verify(), { class: "plain" })),
      el("p", { class: "faint" }, "The newest first; a file of them has the oldest first."), this.table.node,
      el("p", { class: "faint" }, "Each entry carries the hash of the one before it. The whole chain is checked, in words, where the database is: ",
        el("code", {}, verify), copyButton("the command", () => verify)));
    this.table.outside = [...this.node.querySelectorAll(".filters button, .section-head button")];
    this.unwatch = live.watch({ covered: () => { this.table.load(); this.verify(); } });
    // A worker carries entries into the trail now and then.
    this.every = setInterval(() => !document.hidden && live.isOpen && this.table.look(), 5_000);
  }

  // What the gateway is asked for.
  get asked() {
    return { ...this.fields, since: this.fields.since === "all" ? "" : this.fields.since };
  }

  close() {
    clearInterval(this.every);
    this.unwatch();
    this.table.close();
  }

  toolbar() {
    const select = (name, label, choices) => {
      const node = el("select", { onchange: () => this.set(name, node.value) }, ...choices.map(([value, text]) => el("option", { value }, text)));
      node.value = this.fields[name];
      return el("label", {}, el("span", { class: "unseen" }, label), node);
    };
    const text = ([name, label]) => {
      const node = el("input", { type: "search", placeholder: label, autocomplete: "off", spellcheck: "false", value: this.fields[name],
        onchange: () => this.set(name, node.value.trim()) });
      return el("label", { class: name === "resource" ? "id" : "short" }, el("span", { class: "unseen" }, label), node);
    };
    const words = (values) => values.map((value) => [value, value[0].toUpperCase() + value.slice(1).replace("_", " ")]);
    return el("div", { class: "filters", role: "search" }, ...AUDIT_FIELDS.map(text),
      select("action", "Action", [["", "All actions"], ...words(["cancel", "pause", "resume"])]),
      select("event", "Event", [["", "All events"], ...words(EVENTS)]), select("since", "Since", SINCE),
      this.table.button("Export as CSV", () => this.save("csv")), this.table.button("as JSON lines", () => this.save("jsonl")));
  }

  // Whether anybody has touched the newest part of the trail.
  async verify() {
    let [tone, text] = ["bad", "Whether the chain is whole takes the permission audit.read."];
    if (session.holds("audit.read")) {
      try {
        [tone, text] = verifiedWords(await live.ask("/api/v1/audit/verify"));
      } catch (error) {
        text = `The chain could not be checked: ${unread(error)}`;
      }
    }
    setText(this.chain, text);
    setAttribute(this.chain, "data-tone", tone);
  }

  set(name, value) {
    this.fields[name] = value;
    keep("audit", null, this.fields);
    this.table.restart();
  }

  row(entry) {
    const kind = entry.resource_kind;
    const outcome = [entry.outcome, typeof entry.latency_ms === "number" && `${count(entry.latency_ms)} ms`].filter(Boolean).join(", ");
    return [moment(entry.at), entry.event.replace("_", " "), `${actionWords(entry.action)} ${kind}`,
      named(kind, entry.resource_id), entry.user_id, entry.reason ?? "", outcome,
      el("td", { class: "faint", title: entry.hash ?? "" }, String(entry.id))];
  }

  // Page after page into one file, which the browser then keeps.
  async save(format) {
    const parts = [];
    let after = null;
    do {
      const answer = await fetch(path("/api/v1/audit", { ...this.asked, format, limit: 1_000, after }), {
        headers: { Authorization: `Bearer ${session.token}` }, cache: "no-store", credentials: "omit",
      });
      if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).message ?? `HTTP ${answer.status}`);
      parts.push(await answer.text());
      after = answer.headers.get("x-next");
    } while (after);
    const address = URL.createObjectURL(new Blob(parts));
    el("a", { href: address, download: `audit.${format}` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  }
}
