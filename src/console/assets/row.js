// One job or campaign in a list: two lines of fixed height, so that news never moves what is beside it.

import { allowed } from "./commands.js";
import { Detail } from "./detail.js";
import { el, setAttribute, setText } from "./dom.js";
import { isFinal } from "./model.js";
import { session } from "./session.js";
import * as messages from "./messages.js";

// Two quick presses of Enter must not cancel anything.
const SURE_AFTER = 400;

export class Row {
  // `on`: command(item, action, reason), again(request), toggle(item), showJobs(campaign), seconds()
  constructor(item, on) {
    this.item = item;
    this.on = on;
    this.detail = null;
    this.confirmedFrom = 0;
    const id = `row-${item.key}`;

    this.title = el("span", { class: "title-text" });
    this.toggle = el("button", { type: "button", class: "title", id, "aria-expanded": "false",
      onclick: () => this.setOpen(!item.open) }, el("span", { class: "mark", "aria-hidden": "true" }), this.title);
    this.meta = el("span", { class: "meta" });
    this.status = el("span", { class: "status" });
    this.when = el("span", { class: "when" });
    this.bar = el("div", { class: "bar" });
    this.progress = el("div", { class: "progress", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100" },
      this.bar);
    this.percent = el("span", { class: "percent", "aria-hidden": "true" });
    this.counts = el("span", { class: "counts" });
    this.noteText = el("span", { class: "note-text" });
    this.ask = el("button", { type: "button", class: "plain ask", hidden: true,
      onclick: () => item.note?.unknown && on.again(item.note.unknown) }, "Ask again");
    this.note = el("p", { class: "note" }, this.noteText, this.ask);

    this.buttons = {};
    this.acts = el("div", { class: "acts", role: "group" });
    for (const action of ["pause", "resume", "cancel"]) {
      const button = el("button", { type: "button", class: `act ${action}`,
        onclick: () => (action === "cancel" ? this.setConfirming(true) : on.command(item, action)) });
      this.buttons[action] = button;
      this.acts.append(button);
    }
    this.reason = el("input", { type: "text", maxlength: "500", placeholder: "Reason?",
      "aria-label": "Reason for cancelling, optional", autocomplete: "off", enterkeyhint: "done" });
    this.confirm = el("form", { class: "confirm", hidden: true, onsubmit: (event) => this.confirmed(event),
      onkeydown: (event) => event.key === "Escape" && (event.stopPropagation(), this.setConfirming(false)) },
      this.reason, el("button", { type: "submit", class: "danger" }, "Yes, cancel"),
      el("button", { type: "button", onclick: () => this.setConfirming(false) }, "Keep"));

    this.box = el("div", { class: "detail", id: `detail-${item.key}`, hidden: true });
    this.toggle.setAttribute("aria-controls", this.box.id);
    this.node = el("li", { class: "row" },
      el("div", { class: "line" }, this.toggle, this.meta, this.status, this.when,
        el("div", { class: "gauge" }, this.progress, this.percent), this.counts, this.acts, this.confirm, this.note),
      this.box);
    this.node.item = item;
    this.update();
  }

  setOpen(open) {
    const { item } = this;
    if (item.open === open) return;
    item.open = open;
    item.pinned += open ? 1 : -1;
    if (open && !this.detail) {
      this.detail = new Detail(item, this.on.showJobs);
      this.box.append(this.detail.node);
    }
    this.update();
    this.on.toggle(item);
  }

  setConfirming(asks) {
    if (this.confirm.hidden !== asks) return;
    this.confirm.hidden = !asks;
    this.acts.hidden = asks;
    this.item.pinned += asks ? 1 : -1;
    if (asks) {
      this.reason.value = "";
      this.confirmedFrom = performance.now() + SURE_AFTER;
      this.reason.focus();
    } else {
      // To the button it came from, or, where that is off by now, to the row.
      (this.buttons.cancel.disabled ? this.toggle : this.buttons.cancel).focus();
    }
    this.update();
  }

  get confirming() {
    return !this.confirm.hidden;
  }

  confirmed(event) {
    event.preventDefault();
    if (performance.now() < this.confirmedFrom) return;
    const reason = this.reason.value.trim();
    this.on.command(this.item, "cancel", reason);
    this.setConfirming(false);
    this.toggle.focus();
  }

  update() {
    const { item } = this;
    const { row, desired, note } = item;
    const name = messages.nameOf(item);
    const title = row.title || row.name || item.id;
    setText(this.title, title);
    setAttribute(this.toggle, "title", title);
    setAttribute(this.toggle, "aria-expanded", String(item.open));
    const meta = item.kind === "job" ? `${item.id} · ${row.job_type ?? "job"}` : item.id;
    setText(this.meta, meta);
    setAttribute(this.meta, "title", row.created_by ? `${meta} · created by ${row.created_by}` : meta);

    setText(this.status, messages.statusWords(row.status, desired));
    setAttribute(this.node, "data-status", row.status);
    setAttribute(this.node, "data-towards", desired && desired !== row.status ? desired : null);
    setAttribute(this.node, "data-live", item.live);
    setText(this.when, whenWords(row));

    const percent = Math.min(100, Math.max(0, Math.round(row.progress_percent ?? 0)));
    const counts = messages.countsWords(row, item.kind);
    if (this.drawn !== percent) {
      this.bar.style.setProperty("--done", String(percent / 100));
      this.drawn = percent;
    }
    setAttribute(this.progress, "aria-valuenow", percent);
    setAttribute(this.progress, "aria-valuetext", counts ? `${percent} %, ${counts}` : `${percent} %`);
    setAttribute(this.progress, "aria-label", `Progress of ${name}`);
    setText(this.percent, `${percent} %`);
    const current = !isFinal(item) && row.current_item ? row.current_item : "";
    setText(this.counts, [counts, current].filter(Boolean).join(" · "));
    setAttribute(this.counts, "title", this.counts.textContent || null);

    this.updateActions(name);
    const shown = this.confirming
      ? { tone: "warn", text: ends(item) }
      : note ?? standing(item);
    setText(this.noteText, shown?.text ?? "");
    setAttribute(this.note, "data-tone", shown?.tone);
    setAttribute(this.noteText, "title", shown?.text || null);
    setAttribute(this.ask, "hidden", !shown?.unknown);

    setAttribute(this.box, "hidden", !item.open);
    if (item.open) this.detail?.update();
  }

  updateActions(name) {
    const { item } = this;
    const may = allowed(item);
    const limited = this.on.seconds() > 0 || !session.usable;
    setAttribute(this.acts, "aria-label", `Control ${name}`);
    for (const [action, button] of Object.entries(this.buttons)) {
      const busy = item.requests.some((request) => request.action === action);
      const { label, doing } = messages.ACTIONS[action];
      setText(button, busy ? doing : label);
      setAttribute(button, "aria-label", busy ? null : `${label} ${name}`);
      setAttribute(button, "aria-busy", busy ? "true" : null);
      const held = session.may(item.kind, action);
      setAttribute(button, "data-lacking", !held);
      setAttribute(button, "title", held ? null : `You seem to lack the permission ${item.kind}s.${action}`);
      const off = !may[action] || limited;
      if (off && document.activeElement === button && !limited) this.toggle.focus();
      setAttribute(button, "disabled", off);
    }
    if (this.confirming && !may.cancel) this.setConfirming(false);
  }
}

function whenWords(row) {
  switch (row.status) {
    case "running": {
      const begun = Date.parse(row.started_at ?? "");
      return Number.isNaN(begun) ? "" : `for ${messages.duration(Date.now() - begun).replace(/ \d+ s$/, "")}`;
    }
    case "completed":
    case "failed":
      return messages.age(row.completed_at ?? row.updated_at);
    case "cancelled":
      return messages.age(row.cancelled_at ?? row.updated_at);
    default:
      return messages.age(row.created_at);
  }
}

// What a cancel would do.
function ends({ kind, row }) {
  return kind === "job" && row.control === "row" && row.status !== "pending"
    ? "This ends its row for good: no worker hosts this job, and its program goes on."
    : "This ends it for good. It cannot be undone.";
}

// What is worth saying about a row while nothing else is.
function standing(item) {
  const { row } = item;
  if (item.gone) return { tone: "bad", text: "It is no longer there" };
  if (row.status === "failed" && row.error_message) return { tone: "bad", text: row.error_message };
  if (row.status === "cancelled" && row.cancelled_by) {
    return { tone: "calm", text: `Cancelled by ${row.cancelled_by === session.me?.user_id ? "you" : row.cancelled_by}` };
  }
  return null;
}
