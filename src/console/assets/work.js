// What a job's work left behind: the items that failed.

import { el, setAttribute, setText } from "./dom.js";
import { live, part, path } from "./live.js";
import { rowOf, tableOf } from "./table.js";
import { count, moment } from "./messages.js";

const PAGE = 100;
const COLUMNS = ["Item", "Error", "Run", "When"];

export class FailedItems {
  constructor(id) {
    this.id = id;
    this.next = null;
    this.body = el("tbody");
    this.table = el("div", { class: "table-wrap", tabindex: "0", role: "region", "aria-label": "Failed items" }, tableOf(COLUMNS, this.body));
    this.more = el("button", { type: "button", class: "plain", hidden: true, onclick: () => this.load(this.next) }, "Show more");
    this.tally = el("span", { class: "count" });
    this.node = el("section", { hidden: true }, el("h3", {}, "Failed items ", this.tally), this.table, this.more);
  }

  close() {
    clearTimeout(this.timer);
  }

  message(message) {
    const failed = message.items_failed;
    if (typeof failed !== "number" || failed === this.known) return;
    this.known = failed;
    this.timer ??= setTimeout(() => {
      this.timer = null;
      this.load();
    }, 2_000);
  }

  async load(after = null) {
    try {
      const page = await live.ask(path(`/api/v1/jobs/${part(this.id)}/failed_items`, { limit: PAGE, after }));
      const rows = page.failed_items.map(({ item, error, run, at }) =>
        rowOf(COLUMNS, [item, error, String(run), moment(at)]));
      if (after === null) this.body.replaceChildren(...rows);
      else this.body.append(...rows);
      this.next = page.next ?? null;
      setAttribute(this.more, "hidden", this.next === null);
      setAttribute(this.node, "hidden", this.body.children.length === 0);
      setText(this.tally, `${count(this.body.children.length)}${this.next === null ? "" : "+"}`);
    } catch { /* read again with the next failed item, or connection */ }
  }
}
