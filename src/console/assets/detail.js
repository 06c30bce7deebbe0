// What an open row shows: everything that is known, in words, and the same view for a shell.

import { copyButton, el, setAttribute, setText } from "./dom.js";
import { pretty } from "./json.js";
import { FINAL, controlWords, count, duration, moment, age } from "./messages.js";

const json = (value) => (value === null || value === undefined ? "" : pretty(value));
const isEmpty = (value) => value === null || value === undefined
  || (typeof value === "object" && Object.keys(value).length === 0);

function timeWords(iso) {
  const text = moment(iso);
  return text && `${text} (${age(iso)})`;
}

function ranWords(row) {
  const begun = Date.parse(row.started_at ?? "");
  if (Number.isNaN(begun)) return "";
  const end = Date.parse(row.completed_at ?? row.cancelled_at ?? "");
  return duration((Number.isNaN(end) ? Date.now() : end) - begun);
}

// Label, text of the row, and whether it is fixed-width. An empty text hides the line.
const JOB = [
  ["Type", (row) => row.job_type],
  ["Control", (row) => (FINAL.has(row.status) ? "" : controlWords(row.control))],
  ["Current item", (row) => row.current_item],
  ["Error", (row) => row.error_message],
  ["Processed", (row) => amounts(row)],
  ["Running time", (row) => ranWords(row)],
  ["Created", (row) => timeWords(row.created_at)],
  ["Created by", (row) => row.created_by],
  ["Started", (row) => timeWords(row.started_at)],
  ["Completed", (row) => (row.status === "completed" ? timeWords(row.completed_at) : "")],
  ["Failed", (row) => (row.status === "failed" ? timeWords(row.completed_at) : "")],
  ["Cancelled", (row) => timeWords(row.cancelled_at)],
  ["Cancelled by", (row) => row.cancelled_by],
  ["Last change", (row) => timeWords(row.updated_at)],
  ["Retries", (row) => (row.max_retries > 0 ? `${row.retry_count} of ${row.max_retries}` : "")],
  ["Campaign", (row) => row.campaign_id],
];

const CAMPAIGN = [
  ["Jobs", (row) => amounts(row)],
  ["Dispatch", (row) => (row.is_active ? "Its jobs are handed to workers" : "Stopped: none of its jobs is started")],
  ["Created", (row) => timeWords(row.created_at)],
  ["Created by", (row) => row.created_by],
  ["Completed", (row) => timeWords(row.completed_at)],
  ["Cancelled", (row) => timeWords(row.cancelled_at)],
  ["Cancelled by", (row) => row.cancelled_by],
  ["Last change", (row) => timeWords(row.updated_at)],
];

function amounts(row) {
  const parts = [];
  const total = typeof row.items_total === "number" ? ` of ${count(row.items_total)}` : "";
  parts.push(`${count(row.items_processed ?? 0)}${total}`);
  if (row.items_succeeded > 0) parts.push(`${count(row.items_succeeded)} succeeded`);
  if (row.items_failed > 0) parts.push(`${count(row.items_failed)} failed`);
  return parts.join(", ");
}

// wscat sends the token in a header; the shell puts it in, so it stands in no list of processes' titles here.
export function wscat(item) {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  return `wscat -H "Authorization: Bearer $TOKEN" -c ${scheme}://${location.host}/api/v1/realtime/ws/${item.kind}s/${item.id}`;
}

export class Detail {
  // `showJobs(campaign)` lists a campaign's jobs.
  constructor(item, showJobs) {
    this.item = item;
    this.lines = (item.kind === "job" ? JOB : CAMPAIGN).map(([label, text]) => {
      const value = el("dd");
      const line = el("div", { class: "fact", hidden: true }, el("dt", {}, label), value);
      return { text, value, line };
    });
    const id = el("code", {}, item.id);
    const shell = el("code", {}, wscat(item));
    this.said = el("p", { class: "said-last", hidden: true });
    this.blocks = (item.kind === "job" ? ["parameters", "result"] : []).map((field) => {
      const pre = el("pre", { tabindex: "0", "aria-label": field === "result" ? "Result" : "Parameters" });
      const title = field === "result" ? "Result" : "Parameters";
      return { field, pre, box: el("div", { class: "block", hidden: true }, el("h4", {}, title), pre) };
    });
    this.node = el("div", { class: "detail-in" },
      this.said,
      el("dl", { class: "facts" },
        el("div", { class: "fact wide" }, el("dt", {}, "ID"), el("dd", {}, id, copyButton("the id", () => item.id))),
        ...this.lines.map(({ line }) => line)),
      ...this.blocks.map(({ box }) => box),
      el("div", { class: "block" }, el("h4", {}, "From a shell"),
        el("p", { class: "shell" }, shell, copyButton("the command", () => wscat(item)))));
    if (item.kind === "campaign") {
      this.node.prepend(el("button", { type: "button", class: "jobs-of", onclick: () => showJobs(item) }, "Show its jobs"));
    }
    this.update();
  }

  update() {
    const { row, note } = this.item;
    for (const { text, value, line } of this.lines) {
      const words = text(row) ?? "";
      setText(value, String(words));
      setAttribute(line, "hidden", words === "");
    }
    for (const { field, pre, box } of this.blocks) {
      setText(pre, json(row[field]));
      setAttribute(box, "hidden", isEmpty(row[field]));
    }
    // In the row it may be cut off.
    setText(this.said, note?.text ?? "");
    setAttribute(this.said, "data-tone", note?.tone);
    setAttribute(this.said, "hidden", !note);
  }
}
