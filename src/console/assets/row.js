// One job or campaign in a list: two lines of fixed height, so that news never moves what is beside it.

import { Actions } from "./actions.js";
import { commands } from "./commands.js";
import { el, setAttribute, setText } from "./dom.js";
import { live } from "./live.js";
import { href } from "./router.js";
import { session } from "./session.js";
import { waiting } from "./waiting.js";
import * as messages from "./messages.js";

export class Row {
  // `on`: select(item, isSelected, event)
  constructor(on) {
    this.title = el("span", { class: "title-text" });
    this.link = el("a", { class: "title" }, this.title);
    this.box = el("input", { type: "checkbox", class: "pick", onclick: (event) => on.select(this.item, this.box.checked, event) });
    this.meta = el("span", { class: "meta" });
    this.status = el("span", { class: "status" });
    this.when = el("span", { class: "when" });
    this.bar = el("div", { class: "bar" });
    this.progress = el("div", { class: "progress", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100" },
      this.bar);
    this.percent = el("span", { class: "percent", "aria-hidden": "true" });
    this.counts = el("span", { class: "counts" });
    this.noteText = el("span", { class: "note-text" });
    this.note = el("p", { class: "note" }, this.noteText);
    this.actions = new Actions(() => this.update());
    this.node = el("li", { class: "row" },
      el("div", { class: "line" }, this.box, this.link, this.meta, this.status, this.when,
        el("div", { class: "gauge" }, this.progress, this.percent), this.counts,
        this.actions.node, this.actions.confirm, this.note));
    this.node.row = this;
  }

  // Rows that leave the view are used for others. Draws nothing where it shows already what `item` is, and nothing else has changed
  // since (`epoch`): most rows stay as they are from one frame to the next.
  show(item, epoch) {
    if (this.item !== item) this.actions.setConfirming(false);
    else if (this.row === item.row && this.isSelected === item.selected && this.epoch === epoch) return;
    [this.row, this.isSelected, this.epoch] = [item.row, item.selected, epoch];
    this.item = item;
    this.actions.item = item;
    this.update();
  }

  moveTo(top) {
    if (this.top === top) return;
    this.top = top;
    this.node.style.transform = `translateY(${top}px)`;
  }

  update() {
    const { item } = this;
    const { kind, id, row } = item;
    const name = messages.nameOf(item);
    const title = row.title || row.name || id;
    setText(this.title, title);
    setAttribute(this.link, "title", title);
    setAttribute(this.link, "href", href(`${kind}s`, id));
    setAttribute(this.box, "aria-label", `Select ${name}`);
    this.box.checked = item.selected === true;
    const meta = kind === "job" ? `${id} · ${row.job_type ?? "job"}` : id;
    setText(this.meta, meta);
    setAttribute(this.meta, "title", row.created_by ? `${meta} · created by ${row.created_by}` : meta);

    setText(this.status, messages.outcomeWords(kind, row));
    setAttribute(this.node, "data-status", messages.standing(kind, row));
    setAttribute(this.node, "data-towards", row.desired && row.desired !== row.status ? row.desired : null);
    setAttribute(this.node, "data-live", live.isOpen);
    setText(this.when, whenWords(row));

    const percent = Math.min(100, Math.max(0, Math.round(row.progress_percent ?? 0)));
    const counts = messages.countsWords(row, kind);
    if (this.drawn !== percent) {
      this.bar.style.setProperty("--done", String(percent / 100));
      this.drawn = percent;
    }
    const bad = badPart(row);
    if (this.drawnBad !== bad) {
      this.bar.style.setProperty("--bad", String(bad));
      this.drawnBad = bad;
    }
    setAttribute(this.progress, "aria-valuenow", percent);
    setAttribute(this.progress, "aria-valuetext", counts ? `${percent} %, ${counts}` : `${percent} %`);
    setAttribute(this.progress, "aria-label", `Progress of ${name}`);
    setText(this.percent, `${percent} %`);
    const current = !messages.FINAL.has(row.status) && row.current_item ? row.current_item : "";
    setText(this.counts, [counts, current].filter(Boolean).join(" · "));
    setAttribute(this.counts, "title", this.counts.textContent || null);

    const heldFocus = this.actions.node.contains(document.activeElement);
    this.actions.update(name);
    // Its buttons have gone with its end.
    if (heldFocus && messages.FINAL.has(row.status)) this.link.focus({ preventScroll: true });
    const shown = this.actions.isConfirming ? { tone: "warn", text: this.actions.warning() } : noteOf(item);
    setText(this.noteText, shown?.text ?? "");
    setAttribute(this.note, "data-tone", shown?.tone);
    setAttribute(this.noteText, "title", shown?.text || null);
  }
}

// How much of what is done has failed, 0 to 1.
export function badPart({ items_failed: failed, items_processed: done }) {
  return failed > 0 && done > 0 ? Math.min(1, Math.round((failed / done) * 100) / 100) : 0;
}

function whenWords(row) {
  switch (row.status) {
    case "running": {
      const ran = messages.ranFor(row);
      return ran === null ? "" : `for ${messages.duration(ran).replace(/(min|h \d+ min) \d+ s$/, "$1")}`;
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

// What is said beside a job or campaign: what becomes of one's own command, what of another's waits, or what is worth saying
// otherwise.
export function noteOf(item) {
  const { note, requests } = commands.state(item.kind, item.id);
  const waits = requests.length === 0 && !messages.FINAL.has(item.row.status) && waiting.of(item.kind, item.id);
  return waits ? { tone: "warn", text: waits } : note ?? standingNote(item);
}

// What is worth saying about a row while nothing else is.
function standingNote({ gone, row }) {
  if (gone) return { tone: "bad", text: "It is no longer there" };
  if (row.status === "failed" && row.error_message) return { tone: "bad", text: row.error_message };
  if (row.contact_lost_at) return { tone: "warn", text: `Not heard of since ${messages.moment(row.contact_lost_at)}` };
  if (row.status === "pending" && row.waiting_for) return { tone: "warn", text: `Waits for ${row.waiting_for}` };
  if (row.status === "pending" && Date.parse(row.run_after ?? "") > Date.now()) {
    return { tone: "calm", text: `Tried again ${messages.moment(row.run_after)}` };
  }
  if (row.status === "cancelled" && row.cancelled_by) {
    return { tone: "calm", text: `Cancelled by ${row.cancelled_by === session.me?.user_id ? "you" : row.cancelled_by}` };
  }
  return null;
}
