// One action on many jobs or campaigns: first what it would do and cost, then, with a reason, the real thing. Jobs that have
// ended can be run again in the same way, as new ones.

import { disable, el, isDisabled, newId, openDialog, setAttribute, setText } from "./dom.js";
import { live, path } from "./live.js";
import { count, refused } from "./messages.js";

const MOST = 1_000;
const PAGE = 500;
// What a batch's own filter knows. With anything else, or with several statuses of which some are over, ids are collected.
const OWN = { job: ["status", "campaign_id", "job_type"], campaign: ["status"] };
const OPEN = ["pending", "running", "paused", "active"];
const ENDED = ["completed", "failed", "cancelled"];
const LABELS = { pause: "Pause", resume: "Resume", cancel: "Cancel", rerun: "Run again" };

export class BatchDialog {
  // `done()`: it was carried out; `statusOf(id)`: as far as it is known here.
  constructor(kind, done, statusOf = () => undefined) {
    this.kind = kind;
    this.done = done;
    this.statusOf = statusOf;
    this.words = el("p", { role: "status" });
    this.reason = el("input", { type: "text", maxlength: "500", "aria-label": "Reason, optional", placeholder: "Reason, for the audit trail", autocomplete: "off" });
    this.choice = el("select", { "aria-label": "What to do", onchange: () => this.preview() },
      ...Object.entries(LABELS).filter(([value]) => value !== "rerun" || kind === "job").map(([value, text]) => el("option", { value }, text)));
    this.run = el("button", { type: "submit", class: "main", disabled: true });
    // What a press would do is known, and nothing is on its way.
    this.isReady = false;
    this.offline = el("p", { class: "warn", hidden: true });
    this.leave = el("button", { type: "button", onclick: () => this.node.close() }, "Leave it");
    this.items = el("ul", { class: "refusals" });
    this.heading = el("h2");
    this.node = el("dialog", { class: "ask", "aria-label": `Many ${kind}s at once` },
      el("form", { onsubmit: (event) => { event.preventDefault(); this.start(); } }, this.heading,
        el("label", { class: "what" }, "What to do ", this.choice), this.words, this.offline, this.items, this.reason,
        el("div", { class: "sign-in-do" }, this.run, this.leave)));
    // The event comes a moment after the dialog has closed: it may have been opened again meanwhile.
    this.node.addEventListener("close", () => this.node.open || this.stop?.abort());
    this.unwatch = live.watch({ connection: () => this.update(), covered: () => this.node.open && this.isUncounted && this.preview() });
  }

  close() {
    this.unwatch();
    this.stop?.abort();
  }

  // Without a connection nothing is sent, now or later.
  update() {
    setAttribute(this.offline, "hidden", live.isOpen);
    setText(this.offline, live.isOpen ? "" : live.waits);
    disable(this.run, !this.isReady || !live.isOpen);
  }

  setReady(isReady) {
    this.isReady = isReady;
    this.update();
  }

  // `target`: { ids } or { fields } of a list.
  open(action, target) {
    this.target = target;
    this.choice.value = action ?? "pause";
    this.reason.value = "";
    this.leave.textContent = "Leave it";
    setText(this.heading, target.ids ? `${count(target.ids.length)} selected ${this.kind}s` : `All ${this.kind}s that match`);
    openDialog(this.node);
    this.preview();
  }

  async preview() {
    this.stop?.abort();
    this.stop = new AbortController();
    const { signal } = this.stop;
    const action = this.choice.value;
    setText(this.words, "Counting…");
    this.items.replaceChildren();
    this.isUncounted = false;
    this.setReady(false);
    setText(this.run, LABELS[action]);
    this.run.className = action === "cancel" ? "danger" : "main";
    try {
      const [target, more] = await this.resolve(signal);
      if (signal.aborted) return;
      if (!target) return void setText(this.words, action === "rerun" ? "None of them has ended." : "None of them can still be controlled: all have ended.");
      this.ready = target;
      this.requestId = newId();
      const preview = action === "rerun" ? await this.rerun({ dry_run: true }, signal) : await live.wh.batch(action, target).preview(signal);
      if (signal.aborted) return;
      const left = preview.more || more ? ` There are more than ${count(MOST)}: do it again for the rest.` : "";
      const cost = action === "rerun" ? "Each becomes a new job; the old ones stay as they are." : `It costs ${count(preview.cost)} of your commands per minute.`;
      const over = action === "rerun" ? "not ended yet" : "ended already";
      const without = this.leftOut > 0 ? ` ${count(this.leftOut)} more ${this.leftOut === 1 ? "has" : "have"} ${over}, and ${this.leftOut === 1 ? "is" : "are"} left out.` : "";
      setText(this.words, `${LABELS[action]} ${count(preview.accepted)} of ${count(preview.total)}. ${cost}${without}${left}`);
      this.refusals(preview.items);
      setText(this.run, `${LABELS[action]} ${count(preview.accepted)}`);
      this.setReady(preview.accepted > 0);
    } catch (error) {
      if (signal.aborted) return;
      // Counted again once there is a connection.
      this.isUncounted = error.code === "network";
      setText(this.words, this.isUncounted ? "They could not be counted: no answer came." : refused(error, action, this.kind));
    }
  }

  rerun(options, signal) {
    return live.ask("/api/v1/jobs/rerun", { method: "POST", body: { ...this.ready, ...options, request_id: this.requestId }, signal });
  }

  // The target of the batch, and whether there are more than it may have.
  async resolve(signal) {
    const { ids, fields } = this.target;
    this.leftOut = 0;
    const wanted = this.choice.value === "rerun" ? ENDED : OPEN;
    if (ids) {
      // A gateway would take them, and a worker refuse each.
      const fitting = ids.filter((id) => wanted.includes(this.statusOf(id) ?? wanted[0]));
      this.leftOut = ids.length - fitting.length;
      return [fitting.length > 0 ? this.byId(fitting.slice(0, MOST)) : null, fitting.length > MOST];
    }
    const given = Object.entries(fields).filter(([name, value]) => value !== "" && value !== undefined && name !== "sort");
    const statuses = (fields.status || "").split(",").filter(Boolean);
    if (given.every(([name]) => OWN[this.kind].includes(name)) && statuses.every((one) => wanted.includes(one))) {
      const status = statuses.length > 0 ? statuses : undefined;
      if (wanted === ENDED) return [{ filter: { status: status ?? ["failed"], campaign_id: fields.campaign_id || undefined, job_type: fields.job_type || undefined } }, false];
      if (this.kind === "campaign") return [{ campaigns: { status } }, false];
      return [{ jobs: { status, campaignId: fields.campaign_id || undefined, jobType: fields.job_type || undefined } }, false];
    }
    const found = [];
    let next = null;
    do {
      const page = await live.ask(path(`/api/v1/${this.kind}s`, { ...fields, limit: PAGE, after: next }), { signal });
      found.push(...page[`${this.kind}s`].filter((row) => wanted.includes(row.status)).map((row) => row.id));
      next = page.next ?? null;
      setText(this.words, `Counting: ${count(found.length)}…`);
    } while (next !== null && found.length <= MOST);
    return [found.length > 0 ? this.byId(found.slice(0, MOST)) : null, found.length > MOST];
  }

  byId(ids) {
    if (this.choice.value === "rerun") return { job_ids: ids };
    return this.kind === "job" ? { jobIds: ids } : { campaignIds: ids };
  }

  refusals(items) {
    const bad = items.filter((item) => item.error);
    this.items.replaceChildren(...bad.slice(0, 20).map((item) =>
      el("li", {}, `${item.job_id ?? item.campaign_id}: ${item.message ?? item.error}`)));
    if (bad.length > 20) this.items.append(el("li", {}, `and ${count(bad.length - 20)} more`));
  }

  tell(outcome) {
    const { succeeded, failed, refused: no, unknown = 0 } = outcome;
    const parts = [`${count(succeeded)} done`];
    if (failed + no > 0) parts.push(`${count(failed + no)} not`);
    if (unknown > 0) parts.push(`${count(unknown)} of unknown outcome`);
    setText(this.words, `${parts.join(", ")}.`);
    return outcome;
  }

  tellRerun(outcome) {
    const { accepted, refused: no } = outcome;
    setText(this.words, `${count(accepted)} run again as new jobs${no > 0 ? `, ${count(no)} not` : ""}.`);
    return outcome;
  }

  async start() {
    if (isDisabled(this.run)) return;
    const action = this.choice.value;
    this.setReady(false);
    setText(this.words, "On its way…");
    try {
      const reason = this.reason.value.trim() || undefined;
      const { signal } = this.stop;
      const { items } = action === "rerun" ? this.tellRerun(await this.rerun({ reason }, signal))
        : this.tell(await live.wh.batch(action, this.ready).run({ reason, signal, requestId: this.requestId }));
      this.refusals(items ?? []);
      this.leave.textContent = "Close";
      this.leave.focus();
      this.done();
    } catch (error) {
      if (this.stop.signal.aborted) return;
      setText(this.words, refused(error, action, this.kind));
      // Under the same name: what was done is not done twice.
      this.setReady(true);
    }
  }
}
