// A list of jobs or campaigns: the gateway filters, searches and sorts; rows are read page by page as they come into view,
// and only those in view are drawn. Messages keep what is shown up to date.
//
// Rows never move under a hand: while the pointer or the keyboard is in the list, what a new reading would put elsewhere
// waits behind a button.

import { el, setAttribute, setText } from "./dom.js";
import { live, path } from "./live.js";
import { learn } from "./names.js";
import { Row } from "./row.js";
import { FINAL, count, pausedFor, ranFor, unread } from "./messages.js";

const PAGE = 100;
// Rows drawn beyond the view on either side.
const MARGIN = 6;
// After a change of what may belong into the list.
const REREAD = 1_500;
// With a long list open, messages alone keep it true; this finds what none told of.
const EVERY = 30_000;
const TOUCHED = 4_000;
const SHOWN = ["status", "is_active", "progress_percent", "items_total", "items_processed", "items_succeeded",
  "items_failed", "current_item", "contact_lost_at"];

export class VirtualList {
  // `query()`: the fields of the request; `on`: select(item, isSelected, event), changed(list)
  constructor(kind, query, on) {
    this.kind = kind;
    this.plural = `${kind}s`;
    this.query = query;
    this.on = on;
    this.items = new Map();
    this.order = [];
    this.rows = new Map();
    this.spare = [];
    this.next = null;
    this.state = "loading";
    this.error = null;
    this.generation = 0;
    this.height = 0;
    this.touched = 0;
    this.waiting = null;
    // How many rows of what waits are not in the list.
    this.unseen = 0;
    // Grows whenever something has changed that may concern each row.
    this.epoch = 0;
    this.node = el("ul", { class: "rows virtual", role: "list", "aria-label": kind === "job" ? "Jobs" : "Campaigns" });
    this.fresh = el("button", { type: "button", class: "plain fresh", hidden: true, onclick: () => this.settle() });
    this.empty = el("p", { class: "empty" }, `Loading the ${this.plural}…`);
    this.node.addEventListener("pointerdown", () => { this.touched = Date.now(); });
    this.node.addEventListener("keydown", (event) => this.walk(event));
    this.scrolled = () => this.drawSoon(false);
    addEventListener("scroll", this.scrolled, { passive: true });
    this.resized = () => { this.height = 0; this.drawSoon(); };
    addEventListener("resize", this.resized);
    this.every = setInterval(() => !document.hidden && this.reread(), EVERY);
    this.unwatch = live.watch({
      covered: () => this.restart(),
      lost: () => this.drawSoon(),
      message: (message) => this.message(message),
      looked: () => this.reread(),
      waiting: () => this.drawSoon(),
    });
  }

  close() {
    this.generation += 1;
    this.unwatch();
    clearInterval(this.every);
    clearTimeout(this.timer);
    removeEventListener("scroll", this.scrolled);
    removeEventListener("resize", this.resized);
  }

  // Other filters: from the beginning.
  async restart() {
    this.generation += 1;
    const { generation } = this;
    this.waiting = null;
    if (this.state !== "loaded") this.state = "loading";
    await this.read(generation, null);
  }

  async read(generation, after) {
    this.reading = true;
    try {
      const page = await live.ask(path(`/api/v1/${this.plural}`, { ...this.query(), limit: PAGE, after }));
      if (generation !== this.generation) return;
      const rows = page[this.plural];
      for (const row of rows) this.merge(row);
      const ids = rows.map((row) => row.id);
      const known = new Set(after ? this.order : []);
      this.order = [...known, ...ids.filter((id) => !known.has(id))];
      this.next = page.next ?? null;
      this.state = "loaded";
      this.error = null;
      this.forget();
    } catch (error) {
      if (generation !== this.generation) return;
      this.error = error;
      if (this.state !== "loaded") this.state = "failed";
    }
    this.reading = false;
    this.drawSoon();
    this.on.changed(this);
    // A page may be short, or empty, where the gateway had to look at many rows: what is visible is filled.
    if (this.state === "loaded" && this.next && this.order.length < MARGIN) this.more();
  }

  more() {
    if (this.reading || this.next === null || !live.isOpen) return;
    this.read(this.generation, this.next);
  }

  // The first page anew: rows keep their place while a hand is in the list.
  async reread() {
    if (this.reading || !live.isOpen || this.state !== "loaded") return;
    const { generation } = this;
    this.reading = true;
    try {
      const page = await live.ask(path(`/api/v1/${this.plural}`, { ...this.query(), limit: PAGE }));
      if (generation !== this.generation) return;
      for (const row of page[this.plural]) this.merge(row);
      const ids = page[this.plural].map((row) => row.id);
      const first = new Set(ids);
      const rest = this.order.slice(ids.length > 0 ? Math.min(this.order.length, PAGE) : 0).filter((id) => !first.has(id));
      const whole = this.order.length <= PAGE;
      if (whole) this.next = page.next ?? null;
      this.waiting = whole ? ids : [...ids, ...rest];
      // Counted once, and not for each frame: a list may have thousands of rows.
      const shown = new Set(this.order);
      this.unseen = ids.filter((id) => !shown.has(id)).length;
      if (this.isCalm()) this.settle();
      else this.drawSoon();
    } catch { /* the next one finds out */ } finally {
      this.reading = false;
    }
  }

  settle() {
    if (!this.waiting) return;
    this.order = this.waiting;
    this.waiting = null;
    this.forget();
    this.drawSoon();
    this.on.changed(this);
  }

  isCalm() {
    return !this.node.matches(":hover") && !this.node.contains(document.activeElement)
      && Date.now() - this.touched > TOUCHED;
  }

  merge(row) {
    row.readAt = Date.now();
    learn(this.kind, row);
    const item = this.items.get(row.id);
    if (!item) {
      this.items.set(row.id, { kind: this.kind, id: row.id, row, seq: row.seq ?? -1, selected: false });
      return;
    }
    // Nothing leaves an end: such a row was read before it.
    if (FINAL.has(item.row.status) && !FINAL.has(row.status)) return;
    const desired = FINAL.has(row.status) || row.status !== item.row.status ? undefined : item.row.desired;
    item.row = { ...row, desired };
  }

  forget() {
    const keep = new Set(this.order);
    for (const [id, item] of this.items) if (!keep.has(id) && !item.selected) this.items.delete(id);
  }

  message(message) {
    const id = message[`${this.kind}_id`];
    if (id === undefined || !/_(status|progress)$/.test(message.type) || !message.type.startsWith(this.kind)) return;
    const item = this.items.get(id);
    const isStatus = message.type.endsWith("_status");
    // One that is not shown may be new, or fit only now; how it stands among the others is for the gateway to say.
    if (isStatus) this.rereadSoon();
    if (!item) return;
    if (typeof message.seq === "number") {
      if (message.seq <= item.seq) return;
      item.seq = message.seq;
    }
    if (FINAL.has(item.row.status) && message.status !== item.row.status) return;
    const next = { ...item.row };
    for (const field of SHOWN) if (field in message) next[field] = message[field];
    if (isStatus) next.desired = message.desired;
    if (next.status !== item.row.status) {
      // Until it is read again: up to now it ran, or stood paused.
      const now = Date.now();
      const [ran, paused] = [ranFor(item.row, now), pausedFor(item.row, now)];
      Object.assign(next, { running_seconds: ran === null ? 0 : ran / 1_000, paused_seconds: paused / 1_000, readAt: now });
    }
    item.row = next;
    this.drawSoon(false);
  }

  rereadSoon() {
    this.timer ??= setTimeout(() => {
      this.timer = null;
      this.reread();
    }, REREAD);
  }

  // `all`: more has changed than rows of jobs and the place that is in view, so that each row is to be drawn anew.
  drawSoon(all = true) {
    if (all) this.epoch += 1;
    if (this.drawing) return;
    this.drawing = true;
    requestAnimationFrame(() => {
      this.drawing = false;
      this.draw();
    });
  }

  // Where in the list the view begins and ends.
  range() {
    const { top } = this.node.getBoundingClientRect();
    const first = Math.floor(-top / this.height) - MARGIN;
    const last = Math.ceil((innerHeight - top) / this.height) + MARGIN;
    return [Math.max(0, first), Math.min(this.order.length, last)];
  }

  draw() {
    if (!this.node.isConnected) return;
    this.describe();
    if (this.height === 0 && this.order.length > 0) {
      const probe = new Row(this.on);
      probe.show(this.items.get(this.order[0]), this.epoch);
      this.node.append(probe.node);
      this.height = probe.node.offsetHeight || 1;
      probe.node.remove();
    }
    this.node.style.height = `${this.order.length * this.height}px`;
    const [from, to] = this.range();
    const wanted = new Map();
    for (let at = from; at < to; at += 1) wanted.set(this.order[at], at);
    const focused = document.activeElement?.closest?.(".row")?.row;
    for (const [id, row] of this.rows) {
      // What has the focus, or asks something, stays.
      if (wanted.has(id) || ((row === focused || row.actions.isConfirming) && this.order.includes(id))) continue;
      row.node.remove();
      this.rows.delete(id);
      this.spare.push(row);
    }
    for (const [id, at] of wanted) this.place(id, at);
    if (focused && this.rows.get(focused.item.id) === focused) this.place(focused.item.id, this.order.indexOf(focused.item.id));
    if (to + 2 * MARGIN >= this.order.length) this.more();
  }

  place(id, at) {
    let row = this.rows.get(id);
    const item = this.items.get(id);
    if (!row) {
      row = this.spare.pop() ?? new Row(this.on);
      this.rows.set(id, row);
    }
    row.show(item, this.epoch);
    setAttribute(row.node, "aria-setsize", this.next === null ? this.order.length : -1);
    setAttribute(row.node, "aria-posinset", at + 1);
    row.moveTo(at * this.height);
    if (row.node.parentNode !== this.node) {
      // In the order of the list, which is that of the tab key.
      const after = [...this.node.children].find((other) => Number(other.getAttribute("aria-posinset")) > at + 1);
      this.node.insertBefore(row.node, after ?? null);
    }
  }

  describe() {
    setAttribute(this.fresh, "hidden", this.waiting === null || this.unseen === 0);
    setText(this.fresh, `Show ${count(this.unseen)} new ${this.unseen === 1 ? this.kind : this.plural}`);
    setAttribute(this.empty, "hidden", this.order.length > 0);
    setAttribute(this.empty, "data-tone", this.state === "failed" ? "bad" : null);
    setText(this.empty, this.state !== "loaded" && !live.isOpen ? live.notRead : this.state === "loading" ? `Loading the ${this.plural}…`
      : this.state === "failed" ? `The ${this.plural} cannot be loaded: ${unread(this.error)}`
        : `No ${this.kind} fits.`);
    setAttribute(this.node, "data-stale", !live.isOpen);
    setAttribute(this.node, "hidden", this.order.length === 0);
  }

  // Arrow keys go from title to title, beyond the view as well.
  walk(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const row = event.target.closest(".title") && event.target.closest(".row")?.row;
    if (step && row && this.focus(this.order.indexOf(row.item.id) + step)) event.preventDefault();
  }

  focus(at) {
    const id = this.order[at];
    if (id === undefined) return false;
    this.place(id, at);
    const row = this.rows.get(id);
    row.link.focus({ preventScroll: true });
    const { top, bottom } = row.node.getBoundingClientRect();
    if (top < 120 || bottom > innerHeight - 20) row.node.scrollIntoView({ block: "center" });
    return true;
  }

  get focused() {
    return document.activeElement?.closest?.(".row")?.row ?? null;
  }
}
