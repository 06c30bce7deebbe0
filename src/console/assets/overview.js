// The first page: how many there are of what, what the last hour brought, who works, what waits, and what needs somebody.

import { bars } from "./chart.js";
import { el, link, setAttribute } from "./dom.js";
import { live, path } from "./live.js";
import { href } from "./router.js";
import { age, count, moment, standing } from "./messages.js";

const EVERY = 10_000;
const MOST = 1_000;
const BARS = 12;
const HOUR = 3_600_000;
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
    const card = (title, node, more) => el("section", { class: "card" }, el("h3", {}, title, more ?? ""), node);
    this.node = el("div", { class: "overview" }, el("section", {}, el("h3", { class: "unseen" }, "Jobs by status"), this.tiles),
      el("div", { class: "cards" }, card("Needs attention", this.attention), card("The last hour", this.hour), card("What waits", this.waits),
        card("Workers", this.workers)));
    this.ends = [live.watch({
      covered: () => this.load(),
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
    const since = new Date(Date.now() - HOUR).toISOString();
    const list = (fields) => live.ask(path("/api/v1/jobs", fields)).then((page) => page.jobs);
    const parts = [
      live.ask(path("/api/v1/jobs", { totals: true, limit: 1 })).then((page) => this.showTotals(page.totals)),
      Promise.all(["completed", "failed"].map((status) => list({ status, sort: "updated", updated_after: since, limit: MOST })))
        .then(([completed, failed]) => this.showHour(completed, failed)),
      list({ status: "pending", sort: "created", order: "asc", limit: FEW }).then((jobs) => this.showWaits(jobs)),
      live.ask("/api/v1/workers").then(({ workers }) => this.showWorkers(workers)),
      Promise.all([
        list({ status: "failed", sort: "updated", updated_after: new Date(Date.now() - 24 * HOUR).toISOString(), limit: FEW }),
        live.ask(path("/api/v1/campaigns", { sort: "updated", limit: 50 })).then((page) => page.campaigns).catch(() => []),
        live.ask(path("/api/v1/queue/failed", { limit: FEW })).then((page) => page.failed),
        list({ status: "running,paused", limit: 200 }),
      ]).then((found) => this.showAttention(...found)),
    ];
    const ended = await Promise.allSettled(parts);
    this.loading = false;
    this.update();
    if (ended.every(({ status }) => status === "rejected") && !this.closed && live.isOpen) this.soon();
  }

  showTotals(totals) {
    if (!totals) return;
    this.tiles.replaceChildren(...STATES.map(([status, label]) => el("li", { class: "row tile", "data-status": status },
      link(href("jobs", null, { status }), el("span", {}, el("strong", {}, count(totals[status] ?? 0)), el("span", { class: "status" }, label))))));
  }

  showHour(completed, failed) {
    const now = Date.now();
    const spread = (jobs) => {
      const values = new Array(BARS).fill(0);
      for (const job of jobs) {
        const ago = now - Date.parse(job.completed_at ?? job.updated_at ?? "");
        if (ago >= 0 && ago < HOUR) values[BARS - 1 - Math.floor(ago / (HOUR / BARS))] += 1;
      }
      return values;
    };
    const one = (jobs, word, tone) => {
      const most = jobs.length >= MOST ? "at least " : "";
      const words = `${most}${count(jobs.length)} ${word} in the last hour`;
      return el("figure", {}, bars(spread(jobs), tone, `${words}, by five minutes`), el("figcaption", {}, words));
    };
    this.hour.replaceChildren(one(completed, "completed", "completed"), one(failed, "failed", "failed"));
  }

  showWaits(jobs) {
    this.fill(this.waits, jobs.map((job) => notice(job.waiting_for ? "warn" : "calm", link(href("jobs", job.id), job.title ?? job.id),
      job.waiting_for ? `waits for ${job.waiting_for}, since ${age(job.created_at)}`
        : Date.parse(job.run_after ?? "") > Date.now() ? `is tried again ${moment(job.run_after)}` : `waits for a worker, made ${age(job.created_at)}`)), "Nothing waits.");
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
      notices.push(notice("warn", link(href("jobs", job.id), job.title ?? job.id), `stands paused, ${age(job.updated_at)}`));
    }
    for (const command of commands) {
      notices.push(notice("bad", link(href("failed"), `${command.action} of ${command.job_id ?? command.campaign_id}`), `failed, ${age(command.failed_at)}: ${command.error}`));
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

function notice(tone, what, text) {
  return el("li", { "data-tone": tone }, what, " ", text);
}
