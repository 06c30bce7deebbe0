// A table that is read from the gateway: loading, empty, unreadable and stale say so; buttons wait for a connection.

import { byId, disable, el, setAttribute, setText } from "./dom.js";
import { live } from "./live.js";
import { count, unread, why } from "./messages.js";

// The head of a table. On a phone each row is a card of its own, with the name of each column beside its cell: then the roles
// have to be said, because what is not laid out as a table is none for a screen reader.
export function tableOf(columns, body) {
  setAttribute(body, "role", "rowgroup");
  const head = columns.map((text) => (text === "" ? el("td", { role: "cell" }) : el("th", { scope: "col", role: "columnheader" }, text)));
  return el("table", { role: "table" }, el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...head)), body);
}

export function rowOf(columns, cells, properties = {}) {
  const drawn = cells.map((cell, at) => {
    const node = cell instanceof HTMLTableCellElement ? cell : el("td", {}, cell);
    setAttribute(node, "role", "cell");
    setAttribute(node, "data-label", columns[at]);
    // A card has no room for what says nothing.
    setAttribute(node, "data-empty", cell === "");
    return node;
  });
  return el("tr", { role: "row", ...properties }, ...drawn);
}

export class Table {
  // `read(after)` gives rows (or { rows, next }); `row(value)` the cells of one; `newer(value)`, where the newest stand first,
  // what has come since that one, as `read` does.
  constructor({ columns, empty, read, row, label, newer }) {
    this.read = read;
    this.newer = newer;
    this.newest = null;
    this.row = row;
    this.words = empty;
    this.next = null;
    this.columns = columns;
    this.body = el("tbody");
    this.wrap = el("div", { class: "table-wrap", hidden: true, tabindex: "0", role: "region", "aria-label": label ?? "Table" },
      tableOf(columns, this.body));
    this.empty = el("p", { class: "empty" }, "Loading…");
    this.error = el("p", { class: "bad", role: "alert" });
    // Why the last press of a button did nothing: stays until the next one, however often the table is read meanwhile.
    this.refused = el("p", { class: "bad", role: "alert" });
    this.more = el("button", { type: "button", class: "plain", hidden: true, onclick: () => this.load(this.next) }, "Show more");
    this.fresh = el("button", { type: "button", class: "plain fresh", hidden: true, onclick: () => this.restart() });
    this.node = el("div", { class: "table" }, this.refused, this.error, this.fresh, this.wrap, this.empty, this.more);
    this.generation = 0;
    // Buttons beside the table that wait for a connection as well.
    this.outside = [];
    this.unwatch = live.watch({ connection: () => this.update(), looked: () => this.load() });
    // While nothing is live nothing is read, and perhaps nothing happens that would say so.
    this.update();
  }

  close() {
    this.generation += 1;
    clearTimeout(this.timer);
    this.unwatch();
  }

  soon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.load(), 500);
  }

  async load(after = null) {
    // What was opened by "Show more" stays.
    if (after === null && this.pages > 1) return;
    this.generation += 1;
    const { generation } = this;
    try {
      const read = await this.read(after);
      if (generation !== this.generation) return;
      const { rows, next } = Array.isArray(read) ? { rows: read, next: null } : read;
      if (after === null) {
        this.newest = rows[0] ?? null;
        setAttribute(this.fresh, "hidden", true);
      }
      const focus = this.focus();
      const drawn = rows.map((value) => this.draw(value));
      if (after === null) this.body.replaceChildren(...drawn);
      else this.body.append(...drawn);
      this.pages = after === null ? 1 : this.pages + 1;
      this.next = next;
      setText(this.error, "");
      setText(this.empty, this.words);
      this.update();
      if (focus) this.giveFocus(focus);
    } catch (error) {
      if (generation !== this.generation) return;
      const shown = this.body.children.length > 0;
      setText(shown ? this.error : this.empty, `This cannot be read${shown ? " any more" : ""}: ${unread(error)}`);
      this.update();
    }
  }

  // Where the focus is among the rows: those are about to be drawn anew.
  focus() {
    const row = document.activeElement?.closest?.("tr");
    if (!this.body.contains(row)) return null;
    return { key: row.dataset.key, at: [...this.body.children].indexOf(row), label: document.activeElement.textContent };
  }

  // The same button of the same row; of the row that has taken its place where that one is gone; at last the heading.
  giveFocus({ key, at, label }) {
    const rows = [...this.body.children];
    const row = rows.find((one) => one.dataset.key === key) ?? rows[Math.min(at, rows.length - 1)];
    const buttons = [...(row?.querySelectorAll("button, a") ?? [])];
    (buttons.find((one) => one.textContent === label && !one.disabled) ?? buttons.find((one) => !one.disabled) ?? byId("page-heading")).focus({ preventScroll: true });
  }

  draw(value) {
    return rowOf(this.columns, this.row(value), { "data-key": value.id ?? value.schedule_id ?? value.command_id });
  }

  restart() {
    this.pages = 1;
    this.load();
  }

  // What has come meanwhile is shown at once, or waits behind a button while somebody reads: rows never move under a hand.
  async look() {
    const isRead = this.pages > 1 || this.wrap.matches(":hover") || this.wrap.contains(document.activeElement);
    if (!isRead || !this.newest) {
      await this.load();
      return;
    }
    const { newest } = this;
    try {
      const { rows, next } = await this.newer(newest);
      if (newest !== this.newest) return;
      setText(this.fresh, `Show ${count(rows.length)}${next === null ? "" : "+"} newer`);
      setAttribute(this.fresh, "hidden", rows.length === 0);
    } catch { /* the next look finds out */ }
  }

  stale() {
    this.update();
  }

  update() {
    setAttribute(this.wrap, "hidden", this.body.children.length === 0);
    setAttribute(this.empty, "hidden", this.body.children.length > 0);
    if (!live.isOpen) setText(this.empty, live.notRead);
    setAttribute(this.more, "hidden", this.next === null);
    setAttribute(this.wrap, "data-stale", !live.isOpen);
    for (const button of [...this.body.querySelectorAll("button"), this.more, this.fresh, ...this.outside]) {
      disable(button, !live.isOpen || button.dataset.busy === "true");
      if (!live.isOpen) setAttribute(button, "title", live.waits);
      else setAttribute(button, "title", null);
    }
  }

  // A button in a row. What it does may fail: then the table says why.
  button(text, act, properties = {}) {
    const node = el("button", { type: "button", ...properties, onclick: async () => {
      node.dataset.busy = "true";
      setText(this.refused, "");
      this.update();
      try {
        await act();
      } catch (error) {
        setText(this.refused, `${text}: ${why(error)}`);
        // Somebody else may have been faster: what is there no more goes.
        this.soon();
      }
      node.dataset.busy = "false";
      this.update();
    } }, text);
    return node;
  }
}
