// What is to come for one job or campaign: commands that are scheduled, each of which can be withdrawn.

import { disable, el, setAttribute, setText } from "./dom.js";
import { live } from "./live.js";
import { ACTIONS, inWords, moment, why } from "./messages.js";

// Nothing tells of what others schedule and withdraw.
const EVERY = 5_000;

export class Upcoming {
  constructor(kind, id) {
    this.kind = kind;
    this.id = id;
    this.node = el("ul", { class: "notices upcoming", role: "list", "aria-label": "Scheduled", hidden: true });
    this.unwatch = live.watch({ connection: () => this.update() });
    this.every = setInterval(() => !document.hidden && this.load(), EVERY);
  }

  close() {
    clearInterval(this.every);
    this.unwatch();
    this.closed = true;
  }

  async load() {
    if (!live.isOpen) return;
    try {
      const all = await live.wh.schedules();
      if (!this.closed) this.show(all.filter((one) => one[`${this.kind}_id`] === this.id));
    } catch { /* read again in a moment */ }
  }

  show(schedules) {
    const told = schedules.map(({ schedule_id: id }) => id).join();
    if (told !== this.told) {
      this.told = told;
      const hadFocus = this.node.contains(document.activeElement);
      this.lines = schedules.map((schedule) => ({ schedule, words: el("span") }));
      this.node.replaceChildren(...this.lines.map(({ schedule, words }) => el("li", { "data-tone": "warn" }, words, " ", this.button(schedule))));
      setAttribute(this.node, "hidden", schedules.length === 0);
      if (hadFocus) (this.node.querySelector("button") ?? document.querySelector(".resource-name"))?.focus({ preventScroll: true });
    }
    this.update();
  }

  button(schedule) {
    return el("button", { type: "button", "aria-label": `Withdraw the scheduled ${schedule.action}`, onclick: async ({ currentTarget: button }) => {
      try {
        await live.wh.withdraw(schedule.schedule_id);
      } catch (error) {
        setText(button.parentNode.appendChild(el("span", { class: "bad", role: "alert" })), ` Not withdrawn: ${why(error)}`);
      }
      await this.load();
    } }, "Withdraw");
  }

  update() {
    for (const { schedule, words } of this.lines ?? []) {
      const { action, run_at: at, user_id: user, reason } = schedule;
      setText(words, `${ACTIONS[action].label} is scheduled for ${moment(at)} (${inWords(at)}) by ${user}${reason ? `: ${reason}` : ""}`);
    }
    for (const button of this.node.querySelectorAll("button")) {
      setAttribute(button, "title", live.isOpen ? null : live.waits);
      disable(button, !live.isOpen);
    }
  }
}
