// The page of one job or campaign: how it stands, its progress over time, what failed, who did what to it.

import { Actions } from "./actions.js";
import { Facts } from "./facts.js";
import { History } from "./history.js";
import { Output } from "./output.js";
import { FailedItems } from "./work.js";
import { BatchDialog } from "./batch.js";
import { commands, keyOf } from "./commands.js";
import { curve } from "./chart.js";
import { disable, el, link, newId, setAttribute, setText } from "./dom.js";
import { live, part } from "./live.js";
import { go, href } from "./router.js";
import { ScheduleDialog } from "./schedule.js";
import { session } from "./session.js";
import { badPart, noteOf } from "./row.js";
import { Upcoming } from "./upcoming.js";
import * as messages from "./messages.js";

const MOST_POINTS = 600;
// The rate is that of the last minutes, not of a night in which it stood.
const RATE_OVER = 120_000;
const COUNTED_EVERY = 5_000;

export class ResourcePage {
  constructor(kind, id) {
    this.kind = kind;
    this.id = id;
    this.item = { kind, id, row: { status: "pending" } };
    this.points = [];
    this.handle = live.handle(kind, id);
    this.heading = el("h2", { class: "resource-name", tabindex: "-1" }, id);
    this.status = el("span", { class: "status" });
    this.bar = el("div", { class: "bar" });
    this.progress = el("div", { class: "progress", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100", "aria-label": "Progress" }, this.bar);
    this.percent = el("span", { class: "percent" });
    this.counts = el("p", { class: "pace" });
    this.note = el("p", { class: "said-last", role: "status" });
    this.chart = el("figure", { class: "over-time" });
    this.actions = new Actions(() => this.update());
    this.actions.item = this.item;
    this.later = el("button", { type: "button", onclick: () => this.dialog.open() }, "Later…");
    this.again = el("button", { type: "button", class: "again", hidden: true, onclick: () => this.runAgain() });
    this.dialog = new ScheduleDialog(kind, id);
    this.batch = new BatchDialog("job", () => {});
    this.facts = new Facts(kind, id);
    this.history = new History(kind, id);
    this.upcoming = new Upcoming(kind, id);
    this.extra = kind === "job" ? [new Output(id), new FailedItems(id)] : [];
    this.head = el("div", { class: "row resource" },
      el("div", { class: "resource-head" }, this.heading, this.status),
      el("div", { class: "resource-do" }, this.actions.node, this.actions.confirm, this.later, this.again), this.note,
      this.upcoming.node, el("div", { class: "gauge" }, this.progress, this.percent), this.counts, this.chart);
    this.missing = el("p", { class: "empty", hidden: true });
    const jobs = kind === "campaign" ? [link(href("jobs", null, { campaign_id: id }), "Show its jobs", { class: "jobs-of" })] : [];
    this.node = el("div", { class: "resource-page" }, link(href(`${kind}s`), `All ${kind}s`, { class: "back" }), this.missing, this.head,
      ...jobs, ...this.extra.map(({ node }) => node), this.facts.node, this.history.node, this.dialog.node, this.batch.node);
    this.ends = [
      this.handle.subscribe((state) => this.take(state)),
      commands.onChange(({ key, report }) => {
        if (key !== keyOf(kind, id)) return;
        if (report) {
          this.history.soon();
          this.upcoming.load();
        }
        this.update();
      }),
      live.watch({ connection: () => this.update(), covered: () => this.reload(), looked: () => this.reload(), waiting: () => this.update(),
        message: (message) => this.message(message) }),
    ];
    // Times go on without a message, as long as what is shown is live.
    this.every = setInterval(() => !document.hidden && live.isOpen && this.tick(), 1_000);
    this.take(this.handle.get());
  }

  get title() {
    return messages.nameOf(this.item);
  }

  close() {
    this.closed = true;
    clearTimeout(this.redraw);
    clearInterval(this.every);
    this.dialog.close();
    this.batch.close();
    this.upcoming.close();
    this.ends.forEach((end) => end());
    this.history.close();
    this.extra.forEach((one) => one.close());
  }

  reload() {
    this.history.soon();
    this.upcoming.load();
    for (const one of this.extra) one.load();
  }

  message(message) {
    if (message[`${this.kind}_id`] !== this.id) return;
    for (const one of this.extra) one.message(message);
    if (/_(succeeded|failed)$/.test(message.type)) this.upcoming.load();
    if (message.type === `${this.kind}_status`) this.refresh();
  }

  tick() {
    this.update();
    // How many of a campaign's jobs are in which status does not travel with its progress.
    const readAt = Math.max(this.readAt ?? 0, this.whole?.readAt ?? 0, this.askedAt ?? 0);
    if (this.kind !== "campaign" || !this.data || messages.FINAL.has(this.data.status) || Date.now() - readAt < COUNTED_EVERY) return;
    this.askedAt = Date.now();
    this.refresh();
  }

  // Times, results, names and where it runs do not travel with changes of state.
  async refresh() {
    try {
      this.whole = await this.handle.load();
      this.whole.readAt = Date.now();
      this.update();
    } catch { /* the client reads it again after each connection */ }
  }

  take({ data, status, error }) {
    this.standing = status;
    setAttribute(this.missing, "hidden", data !== undefined && status !== "missing");
    setAttribute(this.head, "hidden", data === undefined);
    setAttribute(this.facts.node, "hidden", data === undefined);
    setText(this.missing, status === "missing" ? `There is no ${this.kind} ${this.id} in your tenant, or you may not read it.`
      : error ? `It cannot be read: ${messages.unread(error)}` : `Loading the ${this.kind}…`);
    if (!data) return;
    if (this.data !== data) this.point(data);
    // What messages add to is the row as it was read: that moment stays.
    if (["running_seconds", "paused_seconds"].some((name) => data[name] !== this.data?.[name]) || !this.readAt) this.readAt = Date.now();
    this.data = data;
    this.update();
  }

  point(row) {
    const [at, percent, done] = [Date.now(), row.progress_percent ?? 0, row.items_processed ?? 0];
    if (this.points.length === 0 && row.started_at) {
      const begun = Date.parse(row.started_at);
      if (begun < at) this.points.push([begun, 0, 0]);
    }
    this.points.push([at, percent, done]);
    // Every other one of the older half: the shape stays, the number does not grow.
    if (this.points.length > MOST_POINTS) this.points = this.points.filter((_, i) => i > MOST_POINTS / 2 || i % 2 === 0);
  }

  // "1,200 a minute, 4 min left", from what was seen of the last two minutes.
  pace(row) {
    const counts = messages.countsWords(row, this.kind);
    if (row.status !== "running" && row.status !== "active") return counts;
    const now = Date.now();
    const [, last] = [this.points[0], this.points.at(-1)];
    const first = this.points.find(([at]) => now - at <= RATE_OVER && at < now - 4_000) ?? this.points[0];
    if (!first || !last || last[0] - first[0] < 4_000 || last[2] <= first[2]) return counts;
    const perSecond = (last[2] - first[2]) / ((last[0] - first[0]) / 1_000);
    const rate = perSecond >= 1 ? `${messages.count(Math.round(perSecond))} a second` : `${messages.count(Math.round(perSecond * 60))} a minute`;
    const left = typeof row.items_total === "number" ? ` · about ${messages.duration(((row.items_total - row.items_processed) / perSecond) * 1_000)} left` : "";
    return `${counts} · ${rate}${left}`;
  }

  update() {
    if (!this.data) return;
    const row = { ...this.whole, ...this.data, readAt: this.readAt };
    // What was read whole may be older than what the socket has said since.
    for (const name of ["started_at", "completed_at", "cancelled_at", "cancelled_by", "error_message", "result", "worker", "reruns"]) {
      if (this.whole?.[name] !== undefined && this.whole[name] !== null) row[name] = this.whole[name];
    }
    if (this.whole?.readAt > this.readAt) {
      for (const name of ["running_seconds", "paused_seconds", "jobs_by_status", "updated_at", "readAt"]) row[name] = this.whole[name];
    }
    this.item.row = row;
    const { kind, id } = this;
    const name = messages.nameOf(this.item);
    setText(this.heading, row.title || row.name || id);
    setText(this.status, messages.outcomeWords(kind, row));
    setAttribute(this.head, "data-status", messages.standing(kind, row));
    setAttribute(this.head, "data-towards", row.desired && row.desired !== row.status ? row.desired : null);
    const isLive = live.isOpen && this.standing === "live";
    setAttribute(this.head, "data-stale", !isLive);
    const percent = Math.min(100, Math.max(0, Math.round(row.progress_percent ?? 0)));
    this.bar.style.setProperty("--done", String(percent / 100));
    this.bar.style.setProperty("--bad", String(badPart(row)));
    setAttribute(this.progress, "aria-valuenow", percent);
    setText(this.percent, `${percent} %`);
    setText(this.counts, [this.pace(row), messages.FINAL.has(row.status) ? "" : row.current_item].filter(Boolean).join(" · "));
    this.drawChart(row, percent);
    this.actions.update(name);
    const over = messages.FINAL.has(row.status);
    const heldFocus = over && this.actions.node.contains(document.activeElement);
    setAttribute(this.actions.node, "hidden", over || this.actions.isConfirming);
    if (heldFocus) this.heading.focus({ preventScroll: true });
    setAttribute(this.later, "hidden", over || this.actions.isConfirming);
    setAttribute(this.later, "title", live.isOpen ? null : live.waits);
    disable(this.later, !live.isOpen);
    this.describeAgain(row);
    const shown = this.actions.isConfirming ? { tone: "warn", text: this.actions.warning() } : noteOf(this.item);
    setText(this.note, shown?.text ?? "");
    setAttribute(this.note, "data-tone", shown?.tone);
    this.facts.update(row);
  }

  drawChart(row, percent) {
    const now = performance.now();
    if (this.drawnAt && now - this.drawnAt < 900) {
      this.redraw ??= setTimeout(() => { this.redraw = null; this.update(); }, 1_000);
      return;
    }
    this.drawnAt = now;
    if (this.points.length < 3) return void this.chart.replaceChildren();
    const span = messages.duration(this.points.at(-1)[0] - this.points[0][0]);
    const words = `Progress over the last ${span}: from ${this.points[0][1]} % to ${percent} %`;
    this.chart.replaceChildren(curve(this.points, words), el("figcaption", {}, words));
  }

  // A job that has ended; of a campaign all of its jobs that failed.
  describeAgain(row) {
    const failed = row.jobs_by_status?.failed ?? 0;
    const isOffered = this.kind === "job" ? messages.FINAL.has(row.status) : failed > 0;
    const why = !live.isOpen ? live.waits : session.holds("jobs.create") ? null : "You seem to lack the permission jobs.create";
    setText(this.again, this.kind === "job" ? "Run again" : "Run the failed ones again…");
    setAttribute(this.again, "hidden", !isOffered);
    setAttribute(this.again, "title", why);
    setAttribute(this.again, "data-lacking", !session.holds("jobs.create"));
    disable(this.again, !live.isOpen || this.isAsking === true);
  }

  async runAgain() {
    const { id, kind } = this;
    if (kind === "campaign") return this.batch.open("rerun", { fields: { campaign_id: id, status: "failed" } });
    this.isAsking = true;
    this.update();
    // The same name until there is an answer: a second press makes no second job.
    this.requestId ??= newId();
    try {
      const made = await live.ask(`/api/v1/jobs/${part(id)}/rerun`, { method: "POST", body: { request_id: this.requestId } });
      this.requestId = null;
      commands.note(kind, id, "good", `Runs again as job ${made.id}`);
      if (!this.closed) go(href("jobs", made.id));
    } catch (error) {
      if (error.code !== "network") this.requestId = null;
      commands.note(kind, id, "bad", messages.refused(error, "rerun", kind));
    }
    this.isAsking = false;
    this.update();
  }

  key(event) {
    const action = { p: "pause", r: "resume", c: "cancel" }[event.key];
    return action ? this.actions.press(action) : false;
  }
}
