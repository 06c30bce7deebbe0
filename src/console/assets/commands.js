// Commands on their way, and what is said of them beside the job or campaign that they are for. The client sends a
// command again under the same name until its result has come, so one press is one command, whatever breaks meanwhile.

import { FINAL } from "./messages.js";
import { live } from "./live.js";
import { newId } from "./dom.js";
import * as messages from "./messages.js";

const RESULT = /^(cancel|pause|resume)_(succeeded|failed)$/;
// How long a note stands beside its row.
const STANDS = 60_000;
const MOST = 500;

export const keyOf = (kind, id) => `${kind}:${id}`;

class Commands {
  constructor() {
    this.states = new Map();
    this.mine = new Set();
    this.told = new Set();
    this.listeners = new Set();
    this.limitedUntil = 0;
    this.limitMessage = "";
    live.watch({ message: (message) => this.onMessage(message) });
  }

  // `listener({ key, report })`: something about it has changed; `report`: { kind, id, tone, text } to be told.
  onChange(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  changed(kind, id, report) {
    for (const listener of this.listeners) listener({ key: keyOf(kind, id), kind, id, report });
  }

  state(kind, id) {
    return this.states.get(keyOf(kind, id)) ?? { requests: [], note: null };
  }

  note(kind, id, tone, text, report = true) {
    const key = keyOf(kind, id);
    const state = this.states.get(key) ?? { requests: [], note: null };
    state.note = text ? { tone, text, at: Date.now() } : null;
    this.states.set(key, state);
    if (this.states.size > MOST) this.forgetOld();
    this.changed(kind, id, report && text ? { kind, id, tone, text } : null);
  }

  // Settles when the result is known; never rejects. Nothing is begun without a connection: it would be sent when it is back,
  // when nobody thinks of it any more.
  async start(kind, id, action, options = {}) {
    if (!live.isOpen) {
      this.note(kind, id, "warn", live.notSent);
      return null;
    }
    const key = keyOf(kind, id);
    const request = { action, begun: Date.now(), id: newId() };
    this.mine.add(request.id);
    const state = this.states.get(key) ?? { requests: [], note: null };
    state.requests.push(request);
    this.states.set(key, state);
    const scheduled = options.in !== undefined || options.at !== undefined;
    this.note(kind, id, "busy", scheduled ? "Scheduling…" : messages.ACTIONS[action].doing, false);
    try {
      const result = await live.handle(kind, id)[action]({ ...options, reason: options.reason || undefined, requestId: request.id });
      this.done(state, request);
      if (scheduled) this.note(kind, id, "good", `${messages.ACTIONS[action].label} is scheduled for ${messages.moment(result.runAt.toISOString())}`);
      else this.result(kind, id, action, result, true);
      return result;
    } catch (error) {
      this.done(state, request);
      this.failed(kind, id, action, error);
      return null;
    }
  }

  done(state, request) {
    state.requests = state.requests.filter((one) => one !== request);
  }

  result(kind, id, action, message, mine) {
    if (message.command_id) this.told.add(message.command_id);
    const text = messages.done(action, mine, message.control);
    // Work may go on behind a row: nobody should take that for an end.
    this.note(kind, id, message.control === "row" ? "warn" : "good", text);
  }

  failed(kind, id, action, error) {
    if (error.code === "rate_limit_exceeded") {
      const seconds = Math.max(1, Math.ceil(error.retryAfter ?? 1));
      this.limitedUntil = Date.now() + seconds * 1_000;
      this.limitMessage = error.message;
      return this.note(kind, id, "warn", messages.refused(error, action, kind));
    }
    return this.note(kind, id, "bad", messages.refused(error, action, kind));
  }

  // Results of others; one's own are told by `start`.
  onMessage(message) {
    const kind = message.job_id === undefined ? "campaign" : "job";
    const id = message.job_id ?? message.campaign_id;
    if (message.request_id && this.mine.has(message.request_id) && message.command_id) this.told.add(message.command_id);
    const parts = RESULT.exec(message.type);
    if (!parts || id === undefined || !message.command_id || this.told.has(message.command_id)) return;
    this.told.add(message.command_id);
    const [, action, outcome] = parts;
    if (outcome === "succeeded") this.result(kind, id, action, message, false);
    else this.note(kind, id, "warn", messages.couldNot(action, message.error));
  }

  secondsLimited() {
    return Math.max(0, Math.ceil((this.limitedUntil - Date.now()) / 1_000));
  }

  // Once a second: what has been waited for, and for how long.
  tick(statusOf) {
    for (const [key, state] of this.states) {
      const request = state.requests.at(-1);
      if (!request || state.note?.tone === "good") continue;
      const [kind, ...rest] = key.split(":");
      const id = rest.join(":");
      const seconds = Math.floor((Date.now() - request.begun) / 1_000);
      const text = !live.isOpen ? messages.sentAgain(messages.ACTIONS[request.action].doing, live.away, seconds)
        : messages.waiting(request.action, seconds, live.workers, statusOf(kind, id));
      if (state.note?.text !== text) this.note(kind, id, live.isOpen && live.workers !== 0 ? "busy" : "warn", text, false);
    }
  }

  forgetOld() {
    for (const [key, { requests, note }] of this.states) {
      if (requests.length === 0 && Date.now() - (note?.at ?? 0) > STANDS) this.states.delete(key);
    }
    if (this.told.size > 10 * MOST) this.told.clear();
  }

  clear() {
    this.states.clear();
    this.mine.clear();
    this.limitedUntil = 0;
  }
}

export const commands = new Commands();

// Which buttons make sense now.
export function allowed(item) {
  const none = { pause: false, resume: false, cancel: false };
  if (item.gone || FINAL.has(item.row.status)) return none;
  const { requests } = commands.state(item.kind, item.id);
  const under = new Set(requests.map((request) => request.action));
  const desired = item.row.desired ?? null;
  if (under.has("cancel") || desired === "cancelled") return none;
  const paused = item.row.status === "paused";
  const pausing = under.has("pause") || desired === "paused";
  return {
    pause: (!paused || under.has("resume")) && !pausing,
    resume: (paused || pausing) && !under.has("resume"),
    cancel: true,
  };
}
