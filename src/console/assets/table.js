// A table that is read from the gateway: loading, empty, unreadable and stale say so; buttons wait for a connection.

import { el, setAttribute, setText } from "./dom.js";
import { live } from "./live.js";
import { NO_CONNECTION, count } from "./messages.js";

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
    this.body = el("tbody");
    this.wrap = el("div", { class: "table-wrap", hidden: true, tabindex: "0", role: "region", "aria-label": label ?? "Table" }, el("table", {},
      el("thead", {}, el("tr", {}, ...columns.map((text) => (text === "" ? el("td") : el("th", { scope: "col" }, text))))), this.body));
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
    this.unwatch = live.watch({ connection: () => this.update() });
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
      const focused = document.activeElement?.closest("tr")?.dataset.key;
      const drawn = rows.map((value) => this.draw(value));
      if (after === null) this.body.replaceChildren(...drawn);
      else this.body.append(...drawn);
      this.pages = after === null ? 1 : this.pages + 1;
      this.next = next;
      setText(this.error, "");
      setText(this.empty, this.words);
      if (focused) this.body.querySelector(`tr[data-key="${CSS.escape(focused)}"] button`)?.focus();
    } catch (error) {
      if (generation !== this.generation) return;
      const text = `This cannot be read: ${error.message}`;
      setText(this.body.children.length > 0 ? this.error : this.empty, text);
    }
    this.update();
  }

  draw(value) {
    const cells = this.row(value).map((cell) => (cell instanceof HTMLTableCellElement ? cell : el("td", {}, cell)));
    const node = el("tr", { "data-key": value.id ?? value.schedule_id ?? value.command_id }, ...cells);
    return node;
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
    setAttribute(this.more, "hidden", this.next === null);
    setAttribute(this.wrap, "data-stale", !live.isOpen);
    for (const button of [...this.body.querySelectorAll("button"), this.more, this.fresh, ...this.outside]) {
      setAttribute(button, "disabled", !live.isOpen || button.dataset.busy === "true");
      if (!live.isOpen) setAttribute(button, "title", NO_CONNECTION);
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
        setText(this.refused, `${text}: ${error.message}`);
      }
      node.dataset.busy = "false";
      this.update();
    } }, text);
    return node;
  }
}
