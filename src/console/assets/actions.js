// Pause, resume and cancel of one job or campaign, in its row and on its page. A cancel asks first, and for a reason.

import { allowed, commands } from "./commands.js";
import { disable, el, isDisabled, setAttribute, setText } from "./dom.js";
import { live } from "./live.js";
import { session } from "./session.js";
import * as messages from "./messages.js";

// Two quick presses of Enter must not cancel anything.
const SURE_AFTER = 400;

export class Actions {
  // `changed()`: what the row says has to be drawn again.
  constructor(changed) {
    this.item = null;
    this.changed = changed;
    this.confirmedFrom = 0;
    this.buttons = {};
    this.node = el("div", { class: "acts", role: "group" });
    for (const action of ["pause", "resume", "cancel"]) {
      const button = el("button", { type: "button", class: `act ${action}`, onclick: () => this.press(action) });
      this.buttons[action] = button;
      this.node.append(button);
    }
    this.reason = el("input", { type: "text", maxlength: "500", placeholder: "Reason?",
      "aria-label": "Reason for cancelling, optional", autocomplete: "off", enterkeyhint: "done" });
    this.yes = el("button", { type: "submit", class: "danger" }, "Yes, cancel");
    this.confirm = el("form", { class: "confirm", hidden: true, onsubmit: (event) => this.confirmed(event),
      onkeydown: (event) => event.key === "Escape" && (event.stopPropagation(), this.setConfirming(false)) },
      this.reason, this.yes,
      el("button", { type: "button", onclick: () => this.setConfirming(false) }, "Keep"));
  }

  get isConfirming() {
    return !this.confirm.hidden;
  }

  // By a button or by its key; false where it cannot be done now.
  press(action) {
    if (isDisabled(this.buttons[action])) return false;
    if (action === "cancel") this.setConfirming(true);
    else commands.start(this.item.kind, this.item.id, action);
    return true;
  }

  setConfirming(asks) {
    if (this.isConfirming === asks) return;
    const hadFocus = this.confirm.contains(document.activeElement);
    this.confirm.hidden = !asks;
    this.node.hidden = asks;
    if (asks) {
      this.reason.value = "";
      this.confirmedFrom = performance.now() + SURE_AFTER;
      this.reason.focus();
    } else if (hadFocus) {
      // Also where it cannot be pressed again, while it is on its way: whoever works by keyboard stays where they were.
      this.buttons.cancel.disabled = false;
      this.buttons.cancel.focus();
    }
    this.changed();
  }

  confirmed(event) {
    event.preventDefault();
    if (performance.now() < this.confirmedFrom) return;
    const reason = this.reason.value.trim();
    this.setConfirming(false);
    commands.start(this.item.kind, this.item.id, "cancel", { reason });
  }

  // What a cancel would do.
  warning() {
    const { kind, row } = this.item;
    if (!live.isOpen) return live.waits;
    return kind === "job" && row.control === "row" && row.status !== "pending"
      ? "This ends its row for good: no worker hosts this job, and its program goes on."
      : "This ends it for good. It cannot be undone.";
  }

  update(name) {
    const { kind, id } = this.item;
    const may = allowed(this.item);
    const limited = commands.secondsLimited();
    const { requests } = commands.state(kind, id);
    setAttribute(this.node, "aria-label", `Control ${name}`);
    for (const [action, button] of Object.entries(this.buttons)) {
      const busy = requests.some((request) => request.action === action);
      const { label, doing } = messages.ACTIONS[action];
      setText(button, busy ? doing : label);
      setAttribute(button, "aria-label", busy ? null : `${label} ${name}`);
      setAttribute(button, "aria-busy", busy ? "true" : null);
      const held = session.may(kind, action);
      setAttribute(button, "data-lacking", !held);
      const why = !live.isOpen ? live.waits
        : limited > 0 ? messages.limited(commands.limitMessage, limited)
          : held ? null : `You seem to lack the permission ${kind}s.${action}`;
      setAttribute(button, "title", why);
      disable(button, !may[action] || limited > 0 || !live.isOpen);
    }
    setAttribute(this.yes, "title", live.isOpen ? null : live.waits);
    disable(this.yes, limited > 0 || !live.isOpen);
    if (this.isConfirming && !may.cancel) this.setConfirming(false);
  }
}
