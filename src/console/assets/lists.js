// One list (jobs or campaigns): asks the gateway for it every few seconds, filters and orders it, draws it.
//
// Rows never move under a hand: while the pointer or the keyboard is in a list, what is new waits behind a
// button ("3 new jobs"), and what no longer fits the filter stays.

import { api } from "./api.js";
import { byId, el, setAttribute, setText } from "./dom.js";
import { isFinal, keyOf } from "./model.js";
import { count, FINAL } from "./messages.js";

const PAGE = 100;
const EVERY = 5_000;
const HIDDEN_EVERY = 60_000;
// Statuses asked for by themselves, at every third turn: a running job stays in sight however many newer ones
// there are.
const TURNS = 3;
const UNFINISHED = ["running", "paused", "pending"];
// What stopped fitting the filter stays this long, so that its end is seen.
const STAYS = 15_000;
const MOST_KEPT = 3_000;
// Rows that a first look should show, where there are that many, and what it may cost to find them.
const FILL = 20;
const FILL_LOOKS = 3;
const FILL_PAGE = 500;
const TOUCHED = 4_000;

const ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

export class List {
  // `on`: row(item) -> Row, failed(error), loaded(), ended(item)
  constructor(kind, model, filter, on) {
    this.kind = kind;
    this.plural = `${kind}s`;
    this.model = model;
    this.filter = filter;
    this.on = on;
    this.rows = new Map();
    this.order = [];
    this.cursors = new Map();
    this.turn = 0;
    this.timer = null;
    this.failures = 0;
    this.state = "loading";
    this.error = null;
    this.generation = 0;
    this.touched = 0;
    this.looking = null;
    this.node = byId(this.plural);
    this.fresh = byId(`${this.plural}-fresh`);
    this.empty = byId(`${this.plural}-empty`);
    this.older = byId(`${this.plural}-older`);
    this.tally = byId(`${this.plural}-count`);
    this.fresh.addEventListener("click", () => {
      this.arrange(true);
      byId(`${this.plural}-heading`).focus();
    });
    this.older.addEventListener("click", () => this.loadOlder());
    this.node.addEventListener("pointerdown", () => { this.touched = Date.now(); });
    this.node.addEventListener("keydown", (event) => this.walk(event));
    this.eye = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) target.item.visible = isIntersecting;
      this.on.seen();
    }, { rootMargin: "150px 0px" });
  }

  // Starts over: another filter, another user.
  restart() {
    this.generation += 1;
    this.cursors.clear();
    this.turn = 0;
    this.failures = 0;
    this.state = "loading";
    this.arrange(true);
    this.poll();
  }

  stop() {
    this.generation += 1;
    clearTimeout(this.timer);
  }

  clear() {
    this.stop();
    for (const row of this.rows.values()) this.eye.unobserve(row.node);
    this.rows.clear();
    this.order = [];
    this.node.replaceChildren();
    setText(this.tally, "");
    setAttribute(this.fresh, "hidden", true);
    setAttribute(this.older, "hidden", true);
  }

  // The questions that together make the list, the first at every turn.
  queries() {
    const { status, campaign } = this.filter;
    if (this.kind === "campaign") return [{ limit: PAGE }];
    const common = campaign ? { limit: PAGE, campaign_id: campaign } : { limit: PAGE };
    const each = UNFINISHED.map((one) => ({ ...common, status: one }));
    if (status === "") return campaign ? [common, ...each.slice(0, 2)] : [common, ...each];
    return status === "unfinished" ? each : [{ ...common, status }];
  }

  async poll() {
    clearTimeout(this.timer);
    const { generation } = this;
    const queries = this.queries();
    const first = this.state === "loading";
    const all = first || this.turn % TURNS === 0 || this.filter.status === "unfinished";
    this.turn += 1;
    try {
      const pages = await Promise.all((all ? queries : queries.slice(0, 1)).map(async (query) => {
        const page = await api.list(this.kind, query);
        return [query, page];
      }));
      if (generation !== this.generation) return;
      for (const [query, page] of pages) this.take(query, page);
      this.failures = 0;
      this.error = null;
      this.state = "loaded";
      this.on.loaded(this.kind);
      if (first) await this.fill(generation);
      if (generation !== this.generation) return;
    } catch (error) {
      if (generation !== this.generation || error.stale) return;
      this.failures += 1;
      this.error = error;
      if (this.state === "loading") this.state = "failed";
      if (this.on.failed(this.kind, error)) return;
    }
    this.arrange(first);
    const base = this.failures > 0
      ? Math.max((this.error.retryAfter ?? 0) * 1_000, Math.min(30_000, 2_500 * 2 ** (this.failures - 1)))
      : document.hidden ? HIDDEN_EVERY : EVERY;
    this.nextAt = Date.now() + base;
    this.timer = setTimeout(() => this.poll(), base * (0.9 + Math.random() / 5));
  }

  take(query, page) {
    const key = JSON.stringify(query);
    // After "older" was pressed the first page's cursor is not the last one any more.
    if (!this.cursors.has(key)) this.cursors.set(key, { query, next: page.next ?? null });
    for (const row of page[this.plural] ?? []) {
      const { item, ended } = this.model.merge(this.kind, row);
      item.gone = false;
      if (ended) this.on.ended(item);
    }
    this.prune();
  }

  // The newest may all be jobs of campaigns, which are not shown: a few more looks, so that the page is not
  // empty where there is something to see.
  async fill(generation) {
    for (let look = 0; look < FILL_LOOKS; look += 1) {
      const visible = [...this.model.items.values()].filter((item) => item.kind === this.kind && this.fits(item)).length;
      const cursor = [...this.cursors.values()][0];
      if (visible >= FILL || !cursor || cursor.next === null) return;
      this.arrange(true);
      await this.continue(cursor, { limit: FILL_PAGE }, generation);
      if (generation !== this.generation) return;
    }
  }

  async continue(cursor, more, generation) {
    const page = await api.list(this.kind, { ...cursor.query, ...more, after: cursor.next });
    if (generation !== this.generation) return;
    cursor.next = page.next ?? null;
    for (const row of page[this.plural] ?? []) this.model.merge(this.kind, row);
  }

  async loadOlder() {
    const { generation } = this;
    this.older.disabled = true;
    try {
      for (const cursor of this.cursors.values()) {
        if (cursor.next === null) continue;
        await this.continue(cursor, {}, generation);
        if (generation !== this.generation) return;
      }
    } catch (error) {
      if (generation === this.generation) this.on.failed(this.kind, error);
    } finally {
      this.older.disabled = false;
    }
    this.arrange(true);
  }

  // Looks on the server for what may be an id and is not loaded.
  async lookUp(text) {
    if (!ID.test(text) || this.looking === text || this.model.items.has(keyOf(this.kind, text))) return;
    this.looking = text;
    try {
      this.model.merge(this.kind, await api.show(this.kind, text), true);
      this.arrange(true);
    } catch { /* it is no id, or not one of this tenant's */ } finally {
      if (this.looking === text) this.looking = null;
    }
  }

  // A console left open for weeks must not grow without end.
  prune() {
    if (this.model.items.size <= MOST_KEPT) return;
    const old = [...this.model.items.values()].filter((item) => item.kind === this.kind && isFinal(item)
      && !item.open && !item.visible && !item.requests.length).sort(newestFirst);
    const kept = MOST_KEPT / 2;
    for (const item of old.slice(kept)) {
      this.model.items.delete(item.key);
      const row = this.rows.get(item.key);
      if (row) this.eye.unobserve(row.node);
      this.rows.delete(item.key);
    }
  }

  fits(item) {
    const { row } = item;
    const { status, campaign, members, text } = this.filter;
    if (item.open || item.requests.length > 0) return true;
    const now = row.status === "active" ? "running" : row.status;
    if (status === "unfinished" ? FINAL.has(now) : status !== "" && now !== status) return false;
    if (this.kind === "job") {
      if (campaign && row.campaign_id !== campaign) return false;
      // Hundreds of them would hide the rest; a search finds them all the same.
      if (!campaign && !members && text === "" && row.campaign_id) return false;
    }
    if (text === "") return true;
    return [item.id, row.title, row.name, row.job_type, row.created_by, row.campaign_id, row.current_item, row.error_message]
      .some((field) => typeof field === "string" && field.toLowerCase().includes(text));
  }

  isCalm() {
    return !this.node.matches(":hover") && !this.node.contains(document.activeElement)
      && Date.now() - this.touched > TOUCHED;
  }

  // Puts the rows that fit in order, newest first. `at_once`: the operator asked for it.
  arrange(atOnce = false) {
    const now = Date.now();
    const shown = new Set(this.order);
    const calm = atOnce || this.isCalm();
    const target = [];
    let hiddenMembers = 0;
    for (const item of this.model.items.values()) {
      if (item.kind !== this.kind) continue;
      if (this.fits(item)) {
        item.leftAt = null;
        target.push(item);
      } else if (!atOnce && shown.has(item.key)) {
        item.leftAt ??= now;
        if (!calm || now - item.leftAt < STAYS) target.push(item);
      } else if (this.kind === "job" && item.row.campaign_id && !this.filter.members && this.filter.text === "") {
        hiddenMembers += 1;
      }
    }
    target.sort(newestFirst);
    let order = target.map((item) => item.key);
    let waiting = 0;
    if (!calm) {
      // What is new at the end moves nothing.
      let last = order.length - 1;
      while (last >= 0 && !shown.has(order[last])) last -= 1;
      order = order.filter((key, at) => shown.has(key) || at > last || shown.size === 0);
      waiting = target.length - order.length;
    }
    this.draw(order);
    this.describe(waiting, hiddenMembers);
  }

  draw(order) {
    const keep = new Set(order);
    for (const key of this.order) {
      if (keep.has(key)) continue;
      const row = this.rows.get(key);
      if (!row) continue;
      this.eye.unobserve(row.node);
      row.item.visible = false;
      row.node.remove();
    }
    let at = this.node.firstElementChild;
    for (const key of order) {
      let row = this.rows.get(key);
      if (!row) {
        row = this.on.row(this.model.items.get(key));
        this.rows.set(key, row);
      }
      if (row.node === at) {
        at = at.nextElementSibling;
        continue;
      }
      if (!row.node.isConnected) this.eye.observe(row.node);
      this.node.insertBefore(row.node, at);
    }
    while (at) {
      const next = at.nextElementSibling;
      at.remove();
      at = next;
    }
    this.order = order;
  }

  describe(waiting, hiddenMembers) {
    const noun = (n) => (n === 1 ? this.kind : this.plural);
    setAttribute(this.fresh, "hidden", waiting === 0);
    if (waiting > 0) setText(this.fresh, `Show ${count(waiting)} new ${noun(waiting)}`);
    const more = [...this.cursors.values()].some((cursor) => cursor.next !== null);
    setAttribute(this.older, "hidden", !more || this.state !== "loaded");
    const hidden = hiddenMembers > 0 ? `, ${count(hiddenMembers)} of campaigns not shown` : "";
    setText(this.tally, this.state === "loaded" ? `${count(this.order.length)} shown${hidden}` : "");
    setAttribute(this.empty, "hidden", this.order.length > 0 && this.state !== "failed");
    setAttribute(this.empty, "data-tone", this.state === "failed" ? "bad" : null);
    if (this.empty.hidden) return;
    // Made anew only where it says something else: a button must not vanish between press and release.
    const words = this.emptyWords(more, hiddenMembers);
    const said = words.map((part) => part.textContent ?? part).join("");
    if (this.empty.textContent !== said) this.empty.replaceChildren(...words);
  }

  emptyWords(more, hiddenMembers) {
    if (this.state === "loading") return [`Loading the ${this.plural}…`];
    if (this.state === "failed") return [`The ${this.plural} cannot be loaded: ${this.error.message}`];
    const { status, text, campaign } = this.filter;
    if (status !== "" || text !== "" || campaign) {
      return [`No ${this.kind} fits.${more ? ` There are older ones that have not been loaded. ` : " "}`,
        el("button", { type: "button", class: "plain", onclick: () => this.on.widen() }, "Clear the filters")];
    }
    if (hiddenMembers > 0) return ["All the newest jobs belong to campaigns: tick “Jobs of campaigns” to see them."];
    return this.kind === "job"
      ? ["No jobs yet. This runs a program as one: ", el("code", {}, "wheelhouse run --tenant TENANT -- PROGRAM")]
      : ["No campaigns yet."];
  }

  // Arrow keys go from title to title.
  walk(event) {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    const row = event.target.closest(".title") && event.target.closest(".row");
    const next = event.key === "ArrowDown" ? row?.nextElementSibling : row?.previousElementSibling;
    if (!next) return;
    event.preventDefault();
    next.querySelector(".title").focus();
  }
}

function newestFirst(a, b) {
  const [x, y] = [a.row.created_at ?? "", b.row.created_at ?? ""];
  if (x !== y) return x < y ? 1 : -1;
  return a.id < b.id ? 1 : -1;
}
