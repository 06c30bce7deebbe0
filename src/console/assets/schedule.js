// Commands for later: the dialog that schedules one, and the page with all that wait for their time.

import { commands } from "./commands.js";
import { disable, el, isDisabled, openDialog, setAttribute, setText } from "./dom.js";
import { live } from "./live.js";
import { named } from "./names.js";
import { Table } from "./table.js";
import { ACTIONS, inWords, moment, why } from "./messages.js";

const IN = [["15m", "in 15 minutes"], ["1h", "in an hour"], ["8h", "in 8 hours"], ["24h", "in a day"], ["at", "at a time…"]];

// `2026-01-31T22:00` in the time of this place.
const local = (date) => new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);

export class ScheduleDialog {
  // `instead`: the schedule that this one replaces.
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
    this.offline = el("p", { class: "warn", hidden: true });
    this.run = el("button", { type: "submit", class: "main" }, "Schedule it");
    this.node = el("dialog", { class: "ask", "aria-label": "A command for later" },
      el("form", { onsubmit: (event) => { event.preventDefault(); this.start(); } },
        el("h2", {}, instead ? "Another time" : "Later"), el("div", { class: "later" }, this.action, this.when, this.at), this.reason,
        this.offline, this.words,
        el("div", { class: "sign-in-do" }, this.run, el("button", { type: "button", onclick: () => this.node.close() }, "Leave it"))));
    this.unwatch = live.watch({ connection: () => this.update() });
    this.update();
  }

  close() {
    this.unwatch();
  }

  open({ action = "cancel", at = null, reason = "" } = {}) {
    this.action.value = action;
    this.when.value = at ? "at" : "15m";
    this.at.value = local(at ?? new Date(Date.now() + 3_600_000));
    this.reason.value = reason;
    setText(this.words, "");
    this.update();
    openDialog(this.node);
  }

  update() {
    setAttribute(this.at, "hidden", this.when.value !== "at");
    setAttribute(this.offline, "hidden", live.isOpen);
    setText(this.offline, live.isOpen ? "" : live.waits);
    disable(this.run, !live.isOpen || this.isAsking === true);
  }

  async start() {
    if (isDisabled(this.run)) return;
    const at = new Date(this.at.value);
    const time = this.when.value === "at" ? { at } : { in: this.when.value };
    if (time.at && !(at > new Date())) return void setText(this.words, "Choose a time that is still to come.");
    setText(this.words, "");
    this.isAsking = true;
    this.update();
    // What was refused stays open, with the reason: nobody should have to type it all again.
    const refused = await this.schedule({ ...time, reason: this.reason.value.trim() }).catch((error) => why(error));
    this.isAsking = false;
    this.update();
    if (refused) setText(this.words, refused);
    else this.node.close();
  }

  // Null, or why it was not done, or only by half.
  async schedule(options) {
    const { kind, id, instead } = this;
    if (instead && !(await isScheduled(instead))) return GONE;
    const made = await commands.start(kind, id, this.action.value, options);
    if (!made) return commands.state(kind, id).note?.text ?? "It was not scheduled.";
    if (!instead) return null;
    try {
      // First the new one: between the two there is rather one too many than none.
      await live.wh.withdraw(instead);
      return null;
    } catch (error) {
      const former = error.code === "not_found" ? "the former one has been withdrawn meanwhile, or its time has come" : `the former one is there, too: ${why(error)}`;
      return `The new one is scheduled; ${former}.`;
    }
  }
}

const GONE = "Nothing was scheduled: the former one has been withdrawn meanwhile, or its time has come. Leave this, and look what is there.";

async function isScheduled(schedule) {
  return (await live.wh.schedules()).some(({ schedule_id: id }) => id === schedule);
}

export class SchedulesPage {
  constructor() {
    this.title = "Schedules";
    this.table = new Table({
      label: "Schedules",
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
    // Nothing tells of what others schedule and withdraw.
    this.every = setInterval(() => !document.hidden && live.isOpen && this.table.load(), 5_000);
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
      await this.table.load();
    };
    return [when(schedule.run_at), ACTIONS[schedule.action].label, named(kind, id), schedule.user_id, schedule.reason ?? "",
      el("span", { class: "acts" },
        this.table.button("Withdraw", withdraw, { "aria-label": `Withdraw the ${schedule.action} of ${id}` }),
        this.table.button("Change…", () => {
          const dialog = new ScheduleDialog(kind, id, schedule.schedule_id);
          this.node.append(dialog.node);
          dialog.node.addEventListener("close", () => {
            dialog.close();
            dialog.node.remove();
            this.table.load();
          });
          dialog.open({ action: schedule.action, at: new Date(schedule.run_at), reason: schedule.reason ?? "" });
        }, { "aria-label": `Change the ${schedule.action} of ${id}` }))];
  }
}

// "31 Jan 2027, 22:00:00" and, below, "in 3 h".
function when(iso) {
  return el("div", {}, moment(iso), el("div", { class: "faint" }, inWords(iso)));
}
