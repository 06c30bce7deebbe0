// The first page: how many there are of what, what the last hour brought, who works, what waits, and what needs somebody.

import { bars } from "./chart.js";
import { el, link, setAttribute, setText } from "./dom.js";
import { live, path } from "./live.js";
import { named } from "./names.js";
import { href } from "./router.js";
import { waiting } from "./waiting.js";
import { actionWords, age, count, duration, moment, standing, unread } from "./messages.js";

const EVERY = 10_000;
const BARS = 12;
const HOUR = 3_600_000;
const MINUTES = 60;
const FEW = 5;
const STATES = [["running", "Running"], ["pending", "Pending"], ["paused", "Paused"], ["failed", "Failed"], ["completed", "Completed"], ["cancelled", "Cancelled"]];

export class OverviewPage {
  constructor() {
    this.title = "Overview";
    this.tiles = el("ul", { class: "tiles", role: "list" });
    this.hour = el("div", { class: "hour" });
    this.attention = el("ul", { class: "notices", role: "list" });
    this.waits = el("ul", { class: "notices", role: "list" });
    this.workers = el("ul", { class: "notices", role: "list" });
    this.pending = [];
    // Of each part, why it could not be read: what stands there is from before then.
    this.faults = new Map();
    const fault = (part) => {
      this.faults.set(part, el("p", { class: "bad", role: "alert", hidden: true }));
      return this.faults.get(part);
    };
    const card = (title, part, node) => el("section", { class: "card" }, el("h3", {}, title), fault(part), node);
    this.node = el("div", { class: "overview" }, el("section", {}, el("h3", { class: "unseen" }, "Jobs by status"), fault("totals"), this.tiles),
      el("div", { class: "cards" }, card("Needs attention", "attention", this.attention), card("The last hour", "hour", this.hour),
        card("What waits", "waits", this.waits), card("Workers", "workers", this.workers)));
    this.ends = [live.watch({
      covered: () => this.load(),
      looked: () => this.load(),
      waiting: () => this.showWaits(),
      connection: () => this.update(),
      message: ({ type }) => /_status$|^workers_online$/.test(type) && this.soon(),
    })];
    this.every = setInterval(() => !document.hidden && this.load(), EVERY);
    this.load();
  }

  close() {
    this.closed = true;
    clearInterval(this.every);
    clearTimeout(this.timer);
    this.ends.forEach((end) => end());
  }

  soon() {
    this.timer ??= setTimeout(() => {
      this.timer = null;
      this.load();
    }, 1_500);
  }

  update() {
    setAttribute(this.node, "data-stale", !live.isOpen);
  }

  async load() {
    if (!live.wh || this.loading) return;
    this.loading = true;
    const list = (fields) => live.ask(path("/api/v1/jobs", fields)).then((page) => page.jobs);
    // One after the other: a gateway gives one user so much memory for requests at once.
    const ends = [
      await this.part("totals", async () => this.showTotals((await live.ask(path("/api/v1/jobs", { totals: true, limit: 1 }))).totals)),
      await this.part("attention", async () => this.showAttention(...await Promise.all([
        list({ status: "failed", sort: "updated", updated_after: new Date(Date.now() - 24 * HOUR).toISOString(), limit: FEW }),
        // Who may read no campaigns hears of none.
        live.ask(path("/api/v1/campaigns", { sort: "updated", limit: 50 })).then((page) => page.campaigns, orNone),
        live.ask(path("/api/v1/queue/failed", { limit: FEW })).then((page) => page.failed),
        list({ status: "running,paused", limit: 200 }),
      ]))),
      await this.part("waits", async () => {
        this.pending = await list({ status: "pending", sort: "created", order: "asc", limit: FEW });
        this.showWaits();
      }),
      await this.part("workers", async () => this.showWorkers((await live.ask("/api/v1/workers")).workers)),
      await this.part("hour", async () => this.showHour(await live.ask(path("/api/v1/throughput", { minutes: MINUTES })))),
    ];
    this.loading = false;
    this.update();
    if (!ends.some(Boolean) && !this.closed && live.isOpen) this.soon();
  }

  // Reads one part; whether it could be read. Where it could not, what stood there before must not look as if it were true now.
  async part(name, read) {
    let fault = "";
    try {
      if (!this.closed) await read();
    } catch (error) {
      // Too much at once: it is read again in a moment.
      if (error.code === "rate_limit_exceeded") {
        this.soon();
        return true;
      }
      // While there is no connection the header says so, and the whole page is shown as old.
      if (live.isOpen) fault = `This cannot be read: ${unread(error)}`;
    }
    const node = this.faults.get(name);
    setText(node, fault);
    setAttribute(node, "hidden", fault === "");
    if (node.nextElementSibling) setAttribute(node.nextElementSibling, "data-stale", fault !== "");
    return fault === "";
  }

  showTotals(totals) {
    if (!totals) return;
    this.totals = totals;
    this.tiles.replaceChildren(...STATES.map(([status, label]) => el("li", { class: "row tile", "data-status": status },
      link(href("jobs", null, { status }), el("span", {}, el("strong", {}, count(totals[status] ?? 0)), el("span", { class: "status" }, label))))));
  }

  showHour({ completed, failed }) {
    const each = MINUTES / BARS;
    const one = (ended, word, tone) => {
      const sum = (counts) => counts.reduce((all, n) => all + n, 0);
      const values = Array.from({ length: BARS }, (_, bar) => sum(ended.slice(bar * each, (bar + 1) * each)));
      const words = `${count(sum(ended))} ${word} in the last hour`;
      return el("figure", {}, bars(values, tone, `${words}, by five minutes`),
        el("div", { class: "axis", "aria-hidden": "true" }, el("span", {}, "an hour ago"), el("span", {}, `up to ${count(Math.max(...values))} in five minutes`), el("span", {}, "now")),
        el("figcaption", {}, words));
    };
    this.hour.replaceChildren(one(completed, "completed", "completed"), one(failed, "failed", "failed"));
  }

  // Commands that no worker has taken up, then jobs that none has begun; of both those that have waited longest.
  showWaits() {
    const commands = waiting.list;
    const notices = commands.slice(0, FEW).map((command) => notice("warn",
      command.job_id ? named("job", command.job_id) : named("campaign", command.campaign_id), waiting.words(command)));
    const unshown = commands.length - notices.length;
    if (unshown > 0) notices.push(notice("warn", `and ${count(unshown)}${waiting.more ? " or more" : ""} other commands`, ""));
    notices.push(...this.pending.map((job) => notice(job.waiting_for ? "warn" : "calm", link(href("jobs", job.id), job.title ?? job.id),
      job.waiting_for ? `waits for ${job.waiting_for}, made ${age(job.created_at)}`
        : Date.parse(job.run_after ?? "") > Date.now() ? `is tried again ${moment(job.run_after)}` : `waits for a worker, made ${age(job.created_at)}`)));
    const more = (this.totals?.pending ?? 0) - this.pending.length;
    if (this.pending.length >= FEW && more > 0) {
      notices.push(el("li", {}, link(href("jobs", null, { status: "pending" }), `and ${count(more)} more ${more === 1 ? "job" : "jobs"}`)));
    }
    this.fill(this.waits, notices, "Nothing waits.");
  }

  showWorkers(workers) {
    this.fill(this.workers, workers.slice(0, 8).map((worker) => notice("calm", link(href("workers"), worker.name ?? worker.id),
      typeof worker.running === "number" ? `runs ${count(worker.running)}${worker.slots ? ` of ${count(worker.slots)}` : ""}${worker.host ? ` on ${worker.host}` : ""}` : "is alive")),
      "No worker is alive: commands are accepted and wait.", "bad");
    if (workers.length > 8) this.workers.append(el("li", {}, link(href("workers"), `and ${count(workers.length - 8)} more`)));
  }

  showAttention(failed, campaigns, commands, open) {
    const notices = [];
    for (const job of open.filter((one) => one.contact_lost_at)) {
      notices.push(notice("bad", link(href("jobs", job.id), job.title ?? job.id), `has not been heard of since ${moment(job.contact_lost_at)}`));
    }
    for (const job of failed) notices.push(notice("bad", link(href("jobs", job.id), job.title ?? job.id), `failed ${age(job.completed_at ?? job.updated_at)}: ${job.error_message ?? "no reason was given"}`));
    for (const campaign of campaigns.filter((one) => standing("campaign", one) === "partly" || (one.jobs_by_status?.failed > 0 && one.status !== "cancelled")).slice(0, FEW)) {
      notices.push(notice("warn", link(href("campaigns", campaign.id), campaign.name ?? campaign.id), `${count(campaign.jobs_by_status.failed)} of its ${count(campaign.items_total)} jobs failed`));
    }
    for (const job of open.filter((one) => one.status === "paused").slice(0, FEW)) {
      notices.push(notice("warn", link(href("jobs", job.id), job.title ?? job.id), `has stood paused for ${duration((job.paused_seconds ?? 0) * 1_000)}`));
    }
    for (const command of commands) {
      const what = command.job_id ? named("job", command.job_id) : named("campaign", command.campaign_id);
      notices.push(notice("bad", el("span", {}, link(href("failed"), actionWords(command.action)), " of ", what), `failed, ${age(command.failed_at)}: ${command.error}`));
    }
    this.fill(this.attention, notices, "Nothing needs anybody.", "good");
  }

  fill(list, notices, empty, tone = "calm") {
    if (this.closed) return;
    // A link that somebody is on must not vanish.
    if (list.contains(document.activeElement)) return;
    list.replaceChildren(...(notices.length > 0 ? notices : [el("li", { "data-tone": tone }, empty)]));
  }
}

function orNone(error) {
  if (["permission_denied", "forbidden"].includes(error.code)) return [];
  throw error;
}

function notice(tone, what, text) {
  return el("li", { "data-tone": tone }, what, " ", text);
}
