// Commands for later: the dialog that schedules one, and the page with all that wait for their time.

import { commands } from "./commands.js";
import { el, link, setAttribute, setText } from "./dom.js";
import { live } from "./live.js";
import { href } from "./router.js";
import { Table } from "./table.js";
import { ACTIONS, moment } from "./messages.js";

const IN = [["15m", "in 15 minutes"], ["1h", "in an hour"], ["8h", "in 8 hours"], ["24h", "in a day"], ["at", "at a time…"]];

// `2026-01-31T22:00` in the time of this place.
const local = (date) => new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);

export class ScheduleDialog {
  // `instead`: withdraws the schedule that this one replaces.
  constructor(kind, id, instead = null) {
    this.kind = kind;
    this.id = id;
    this.instead = instead;
    this.action = el("select", { "aria-label": "What to do" }, ...["cancel", "pause", "resume"].map((action) =>
      el("option", { value: action }, ACTIONS[action].label)));
    this.when = el("select", { "aria-label": "When", onchange: () => this.update() },
      ...IN.map(([value, text]) => el("option", { value }, text)));
    this.at = el("input", { type: "datetime-local", "aria-label": "At" });
    this.reason = el("input", { type: "text", maxlength: "500", "aria-label": "Reason, optional", placeholder: "Reason, for the audit trail", autocomplete: "off" });
    this.words = el("p", { class: "bad", role: "alert" });
    this.node = el("dialog", { class: "ask", "aria-label": "A command for later" },
      el("form", { onsubmit: (event) => { event.preventDefault(); this.start(); } },
        el("h2", {}, instead ? "Another time" : "Later"), el("div", { class: "later" }, this.action, this.when, this.at), this.reason, this.words,
        el("div", { class: "sign-in-do" }, el("button", { type: "submit", class: "main" }, "Schedule it"),
          el("button", { type: "button", onclick: () => this.node.close() }, "Leave it"))));
    this.update();
  }

  open({ action = "cancel", at = null, reason = "" } = {}) {
    this.action.value = action;
    this.when.value = at ? "at" : "15m";
    this.at.value = local(at ?? new Date(Date.now() + 3_600_000));
    this.reason.value = reason;
    setText(this.words, "");
    this.update();
    this.node.showModal();
  }

  update() {
    setAttribute(this.at, "hidden", this.when.value !== "at");
  }

  async start() {
    const at = new Date(this.at.value);
    const time = this.when.value === "at" ? { at } : { in: this.when.value };
    if (time.at && !(at > new Date())) return void setText(this.words, "Choose a time that is still to come.");
    this.node.close();
    const made = await commands.start(this.kind, this.id, this.action.value, { ...time, reason: this.reason.value.trim() });
    // First the new one: between the two there is rather one too many than none.
    if (made && this.instead) await this.instead();
    return undefined;
  }
}

export class SchedulesPage {
  constructor() {
    this.title = "Schedules";
    this.table = new Table({
      columns: ["When", "What", "On", "Who", "Why", ""],
      empty: "Nothing is scheduled. A job's or campaign's page has “Later…” for that.",
      read: async () => (await live.ask("/api/v1/schedules")).schedules,
      row: (schedule) => this.row(schedule),
    });
    this.node = el("div", {}, this.table.node);
    this.ends = [
      commands.onChange(({ report }) => report && this.table.soon()),
      live.watch({ covered: () => this.table.load(), lost: () => this.table.stale(), message: ({ type }) => /_(scheduled|succeeded|failed)$/.test(type) && this.table.soon() }),
    ];
    this.every = setInterval(() => this.table.load(), 10_000);
  }

  close() {
    clearInterval(this.every);
    this.ends.forEach((end) => end());
    this.table.close();
  }

  row(schedule) {
    const kind = schedule.job_id ? "job" : "campaign";
    const id = schedule.job_id ?? schedule.campaign_id;
    const withdraw = async () => {
      await live.wh.withdraw(schedule.schedule_id);
      this.table.load();
    };
    return [moment(schedule.run_at), ACTIONS[schedule.action].label, link(href(`${kind}s`, id), id), schedule.user_id, schedule.reason ?? "",
      el("span", { class: "acts" },
        this.table.button("Withdraw", withdraw, { "aria-label": `Withdraw the ${schedule.action} of ${id}` }),
        this.table.button("Change…", () => {
          const dialog = new ScheduleDialog(kind, id, withdraw);
          this.node.append(dialog.node);
          dialog.node.addEventListener("close", () => dialog.node.remove());
          dialog.open({ action: schedule.action, at: new Date(schedule.run_at), reason: schedule.reason ?? "" });
        }, { "aria-label": `Change the ${schedule.action} of ${id}` }))];
  }
}

