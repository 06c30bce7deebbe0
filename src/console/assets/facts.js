// What is known of a job or campaign, in words, with its parameters, its result, and the same view for a shell.

import { copyButton, el, link, setAttribute, setText } from "./dom.js";
import { pretty } from "./json.js";
import { href } from "./router.js";
import { FINAL, age, controlWords, count, duration, moment, pausedFor, ranFor } from "./messages.js";

const isEmpty = (value) => value === null || value === undefined
  || (typeof value === "object" && Object.keys(value).length === 0);

function timeWords(iso) {
  const text = moment(iso);
  return text && `${text} (${age(iso)})`;
}

const seconds = (value) => (typeof value === "number" ? duration(value * 1_000) : "");

function ranWords(row) {
  const ran = ranFor(row);
  return ran === null ? "" : duration(ran);
}

function pausedWords(row) {
  const paused = pausedFor(row);
  return paused >= 1_000 ? duration(paused) : "";
}

const BY_STATUS = [["running", "running"], ["paused", "paused"], ["pending", "pending"], ["completed", "completed"], ["failed", "failed"], ["cancelled", "cancelled"]];

// "7 running, 283 pending, 10 completed" of a campaign's jobs.
function jobsWords({ jobs_by_status: jobs }) {
  return BY_STATUS.filter(([status]) => jobs?.[status] > 0).map(([status, word]) => `${count(jobs[status])} ${word}`).join(", ");
}

function amounts(row) {
  const parts = [];
  const total = typeof row.items_total === "number" ? ` of ${count(row.items_total)}` : "";
  parts.push(`${count(row.items_processed ?? 0)}${total}`);
  if (row.items_succeeded > 0) parts.push(`${count(row.items_succeeded)} succeeded`);
  if (row.items_failed > 0) parts.push(`${count(row.items_failed)} failed`);
  return parts.join(", ");
}

function workerWords({ worker }) {
  if (!worker) return "";
  const where = [worker.name ?? worker.id, worker.host && `on ${worker.host}`, worker.client && `in ${worker.client}`,
    worker.client_host && `on ${worker.client_host}`].filter(Boolean).join(" ");
  return `${where}${worker.since ? `, since ${moment(worker.since)}` : ""}`;
}

// Label, text of the row. An empty text hides the line.
const JOB = [
  ["Type", (row) => row.job_type],
  ["Runs in", workerWords],
  ["Waits for", (row) => (row.status === "pending" ? row.waiting_for : "")],
  ["Control", (row) => (FINAL.has(row.status) ? "" : controlWords(row.control))],
  ["Current item", (row) => row.current_item],
  ["Processed", amounts],
  ["Running time", ranWords],
  ["Stood paused for", pausedWords],
  ["Time limit", (row) => seconds(row.timeout_seconds)],
  ["Retries", (row) => (row.max_retries > 0 ? `${row.retry_count} of ${row.max_retries}` : "")],
  ["Tried again", (row) => (row.status === "pending" ? timeWords(row.run_after) : "")],
  ["Not heard of since", (row) => timeWords(row.contact_lost_at)],
  ["Created", (row) => timeWords(row.created_at)],
  ["Created by", (row) => row.created_by],
  ["Started", (row) => timeWords(row.started_at)],
  ["Completed", (row) => (row.status === "completed" ? timeWords(row.completed_at) : "")],
  ["Failed", (row) => (row.status === "failed" ? timeWords(row.completed_at) : "")],
  ["Cancelled", (row) => timeWords(row.cancelled_at)],
  ["Cancelled by", (row) => row.cancelled_by],
  ["Last change", (row) => timeWords(row.updated_at)],
];

const CAMPAIGN = [
  ["Jobs", amounts],
  ["Now", jobsWords],
  ["Dispatch", (row) => (FINAL.has(row.status) ? "" : row.is_active ? "Its jobs are handed to workers" : "Stopped: none of its jobs is started")],
  ["Jobs may be added", (row) => (row.is_open ? "Yes, until it is closed" : "")],
  ["Created", (row) => timeWords(row.created_at)],
  ["Created by", (row) => row.created_by],
  ["Closed", (row) => timeWords(row.closed_at)],
  ["Completed", (row) => timeWords(row.completed_at)],
  ["Cancelled", (row) => timeWords(row.cancelled_at)],
  ["Cancelled by", (row) => row.cancelled_by],
  ["Last change", (row) => timeWords(row.updated_at)],
];

// wscat sends the token in a header; the shell puts it in, so it stands in no list of processes' titles here.
export function wscat(kind, id) {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  return `wscat -H "Authorization: Bearer $TOKEN" -c ${scheme}://${location.host}/api/v1/realtime/ws/${kind}s/${id}`;
}

export class Facts {
  constructor(kind, id) {
    this.kind = kind;
    this.lines = (kind === "job" ? JOB : CAMPAIGN).map(([label, text]) => {
      const value = el("dd");
      return { text, value, line: el("div", { class: "fact", hidden: true }, el("dt", {}, label), value) };
    });
    this.links = el("dd");
    this.linked = el("div", { class: "fact wide", hidden: true }, el("dt", {}, "Belongs together with"), this.links);
    const shell = el("code", {}, wscat(kind, id));
    this.blocks = (kind === "job" ? [["error_message", "Error"], ["parameters", "Parameters"], ["result", "Result"]] : [])
      .map(([field, title]) => {
        const pre = el("pre", { tabindex: "0", "aria-label": title });
        return { field, pre, box: el("section", { class: "block", hidden: true }, el("h3", {}, title), pre) };
      });
    this.node = el("div", { class: "facts-page" },
      el("dl", { class: "facts" },
        el("div", { class: "fact wide" }, el("dt", {}, "ID"), el("dd", {}, el("code", {}, id), copyButton("the id", () => id))),
        ...this.lines.map(({ line }) => line), this.linked),
      ...this.blocks.map(({ box }) => box),
      el("section", { class: "block" }, el("h3", {}, "From a shell"),
        el("p", { class: "shell" }, shell, copyButton("the command", () => wscat(kind, id)))));
  }

  update(row) {
    for (const { text, value, line } of this.lines) {
      const words = text(row) ?? "";
      setText(value, String(words));
      setAttribute(line, "hidden", words === "");
    }
    for (const { field, pre, box } of this.blocks) {
      const value = row[field];
      setText(pre, isEmpty(value) ? "" : typeof value === "string" && field === "error_message" ? value : pretty(value));
      setAttribute(box, "hidden", isEmpty(value));
    }
    const links = [
      this.kind === "job" && row.campaign_id && ["campaigns", row.campaign_id, "its campaign"],
      row.rerun_of && ["jobs", row.rerun_of, "the job that it is a rerun of"],
      ...(row.reruns ?? []).map((id) => ["jobs", id, "a rerun of it"]),
    ].filter(Boolean);
    const told = links.map(([, id]) => id).join(" ");
    setAttribute(this.linked, "hidden", links.length === 0);
    if (this.told === told) return;
    this.told = told;
    this.links.replaceChildren(...links.flatMap(([page, id, what]) => [link(href(page, id), id), ` (${what}) `]));
  }
}
