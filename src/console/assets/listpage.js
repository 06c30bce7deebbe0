// The pages "Jobs" and "Campaigns": filters that stand in the address, the list, and what is done with many at once.

import { BatchDialog } from "./batch.js";
import { commands } from "./commands.js";
import { disable, el, setAttribute, setText } from "./dom.js";
import { live } from "./live.js";
import { VirtualList } from "./list.js";
import { keep } from "./router.js";
import { count } from "./messages.js";

const TYPING = 300;
const MOST_IN_ADDRESS = 100;

const STATUSES = {
  job: [["", "All statuses"], ["running,paused,pending", "Not ended"], ["running", "Running"], ["paused", "Paused"],
    ["pending", "Pending"], ["completed", "Completed"], ["failed", "Failed"], ["cancelled", "Cancelled"]],
  campaign: [["", "All statuses"], ["active,paused", "Not ended"], ["active", "Active"], ["paused", "Paused"],
    ["completed", "Completed"], ["cancelled", "Cancelled"]],
};
const SORTS = {
  job: [["", "Not ended first"], ["created", "Newest first"], ["updated", "Last changed first"], ["duration", "Longest first"]],
  campaign: [["", "Not ended first"], ["created", "Newest first"], ["updated", "Last changed first"]],
};
const SINCE = [["", "Any time"], ["1h", "Last hour"], ["24h", "Last day"], ["7d", "Last week"]];
const HOURS = { "1h": 1, "24h": 24, "7d": 168 };
const FIELDS = { job: ["q", "status", "job_type", "campaign_id", "created_by", "since", "sort"], campaign: ["q", "status", "created_by", "since", "sort"] };

export class ListPage {
  constructor(kind, query) {
    this.kind = kind;
    this.page = `${kind}s`;
    this.fields = Object.fromEntries(FIELDS[kind].map((name) => [name, query.get(name) ?? ""]));
    this.selected = new Set((query.get("selected") ?? "").split(",").filter(Boolean));
    this.anchor = null;
    this.list = new VirtualList(kind, () => this.parameters(), {
      select: (item, isSelected, event) => this.select(item, isSelected, event),
      changed: () => this.update(),
    });
    this.batch = new BatchDialog(kind, () => this.selectNone(), (id) => this.list.items.get(id)?.row.status);
    this.node = el("div", { class: "list-page" }, this.toolbar(), this.bulk(), this.list.fresh, this.list.node, this.list.empty,
      this.batch.node);
    this.ends = [
      commands.onChange(({ key }) => key.startsWith(`${kind}:`) && this.list.drawSoon()),
      live.watch({ connection: () => this.update() }),
    ];
    this.list.restart();
    this.update();
  }

  get title() {
    return this.kind === "job" ? "Jobs" : "Campaigns";
  }

  close() {
    this.ends.forEach((end) => end());
    this.list.close();
    this.batch.close();
  }

  toolbar() {
    const select = (name, label, choices) => {
      const node = el("select", { onchange: () => this.set(name, node.value) },
        ...choices.map(([value, text]) => el("option", { value }, text)));
      node.value = this.fields[name];
      // A colleague's address may name what no choice has.
      if (node.selectedIndex < 0) {
        node.append(el("option", { value: this.fields[name] }, this.fields[name]));
        node.value = this.fields[name];
      }
      return el("label", {}, el("span", { class: "unseen" }, label), node);
    };
    const text = (name, label) => {
      const node = el("input", { type: "search", placeholder: label, autocomplete: "off", spellcheck: "false", value: this.fields[name],
        oninput: () => {
          clearTimeout(this.typing);
          this.typing = setTimeout(() => this.set(name, node.value.trim()), TYPING);
        } });
      return el("label", { class: name === "q" ? "grow" : "short" }, el("span", { class: "unseen" }, label), node);
    };
    const what = this.kind === "job" ? "Find by title, id, type, user or error  ( / )" : "Find by name, id or user  ( / )";
    const find = text("q", what);
    this.find = find.querySelector("input");
    const more = el("div", { class: "more-filters" }, select("status", "Status", STATUSES[this.kind]),
      ...(this.kind === "job" ? [text("job_type", "Type"), text("campaign_id", "Campaign id")] : []),
      text("created_by", "User"), select("since", "Changed", SINCE), select("sort", "Order", SORTS[this.kind]));
    // On a phone they would fill the screen: there they are behind a button.
    this.moreButton = el("button", { type: "button", class: "more-button", "aria-expanded": "false", onclick: () => {
      const opens = more.toggleAttribute("data-open");
      setAttribute(this.moreButton, "aria-expanded", String(opens));
    } });
    this.describeFilters();
    return el("div", { class: "filters", role: "search" }, find, this.moreButton, more);
  }

  describeFilters() {
    const set = Object.entries(this.fields).filter(([name, value]) => name !== "q" && value !== "").length;
    setText(this.moreButton, set > 0 ? `Filters (${set})` : "Filters");
  }

  bulk() {
    this.all = el("input", { type: "checkbox", "aria-label": "Select all that are loaded", onclick: () => this.selectLoaded(this.all.checked) });
    this.tally = el("span", { class: "count", role: "status" });
    const button = (action, label) => el("button", { type: "button", "data-action": action,
      onclick: () => this.batch.open(action, { ids: [...this.selected] }) }, label);
    this.bulkButtons = [button("pause", "Pause…"), button("resume", "Resume…"), button("cancel", "Cancel…"),
      ...(this.kind === "job" ? [button("rerun", "Run again…")] : [])];
    this.none = el("button", { type: "button", class: "plain", onclick: () => this.selectNone() }, "Select none");
    this.matching = el("button", { type: "button", class: "plain", onclick: () => this.openMatching() }, "All that match…");
    return el("div", { class: "bulk" }, el("label", { class: "check" }, this.all), this.tally, ...this.bulkButtons, this.none, this.matching);
  }

  set(name, value) {
    if (this.fields[name] === value) return;
    this.fields[name] = value;
    this.describeFilters();
    this.keep();
    this.list.state = "loading";
    this.list.order = [];
    this.list.restart();
    this.update();
  }

  keep() {
    const selected = [...this.selected].slice(0, MOST_IN_ADDRESS).join(",");
    keep(this.page, null, { ...this.fields, selected });
  }

  // What the list asks the gateway for.
  parameters() {
    const { since, ...fields } = this.fields;
    const hours = HOURS[since];
    return hours ? { ...fields, updated_after: new Date(Date.now() - hours * 3_600_000).toISOString() } : fields;
  }

  // ---- many at once ----------------------------------------------------------------------------------

  select(item, isSelected, event) {
    const ids = this.list.order;
    const [from, to] = [ids.indexOf(this.anchor), ids.indexOf(item.id)];
    // With Shift all between this one and the last.
    const range = event.shiftKey && from >= 0 ? ids.slice(Math.min(from, to), Math.max(from, to) + 1) : [item.id];
    for (const id of range) isSelected ? this.selected.add(id) : this.selected.delete(id);
    this.anchor = item.id;
    this.update();
    this.keep();
  }

  selectLoaded(isSelected) {
    for (const id of this.list.order) isSelected ? this.selected.add(id) : this.selected.delete(id);
    this.update();
    this.keep();
  }

  selectNone() {
    this.selected.clear();
    this.update();
    this.keep();
  }

  openMatching() {
    this.batch.open(null, { fields: this.parameters() });
  }

  update() {
    for (const item of this.list.items.values()) item.selected = this.selected.has(item.id);
    const { order, next, state } = this.list;
    const many = this.selected.size;
    const loaded = state === "loaded" ? `${count(order.length)}${next === null ? "" : "+"} ${order.length === 1 ? this.kind : this.page}` : "";
    setText(this.tally, many > 0 ? `${count(many)} selected` : loaded);
    this.all.checked = order.length > 0 && order.every((id) => this.selected.has(id));
    this.all.indeterminate = many > 0 && !this.all.checked;
    for (const button of this.bulkButtons) {
      setAttribute(button, "hidden", many === 0);
      disable(button, !live.isOpen);
      setAttribute(button, "title", live.isOpen ? null : live.waits);
    }
    setAttribute(this.none, "hidden", many === 0);
    disable(this.matching, !live.isOpen || order.length === 0);
    setAttribute(this.matching, "title", live.isOpen ? null : live.waits);
    this.list.drawSoon();
  }

  // ---- keys --------------------------------------------------------------------------------------------

  key(event) {
    const row = this.list.focused;
    switch (event.key) {
      case "/":
        this.find.focus();
        return true;
      case "j":
      case "k": {
        const at = row ? this.list.order.indexOf(row.item.id) + (event.key === "j" ? 1 : -1) : 0;
        return this.list.focus(at);
      }
      case "x":
        if (!row) return false;
        this.select(row.item, !this.selected.has(row.item.id), event);
        return true;
      case "p":
        return Boolean(row?.actions.press("pause"));
      case "r":
        return Boolean(row?.actions.press("resume"));
      case "c":
        return Boolean(row?.actions.press("cancel"));
      default:
        return false;
    }
  }
}
