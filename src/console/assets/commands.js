// Commands on their way: one request_id for each press of a button, until its result is known.
//
// A request goes over the resource's socket where one is open, else over HTTP. Where an answer stays away the
// very same request_id is sent again: the gateway answers a repeat with the first answer, so nothing runs twice.

import { api } from "./api.js";
import { isFinal } from "./model.js";
import * as messages from "./messages.js";

// A socket that has just been asked for usually opens within this time; then it is the better way.
const FOR_SOCKET = 1_500;
const ACK_WITHIN = 8_000;
const RESENDS = [1_000, 2_000, 4_000, 8_000, 15_000];
// How often a result that does not come is asked for (it comes by itself, unless a message got lost).
const LOOK_EVERY = 15_000;
const LOOK_WAIT = 20;

const RESULT = /^(cancel|pause|resume)_(requested|succeeded|failed)$/;
const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// randomUUID exists on https and localhost only; a console on a plain address in a private network needs one too.
export function uuid() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

// Which buttons make sense now.
export function allowed(item) {
  if (item.gone || isFinal(item)) return { pause: false, resume: false, cancel: false };
  const under = new Set(item.requests.map((request) => request.action));
  if (under.has("cancel") || item.desired === "cancelled") return { pause: false, resume: false, cancel: false };
  const paused = item.row.status === "paused";
  const pausing = under.has("pause") || item.desired === "paused";
  return {
    pause: (!paused || under.has("resume")) && !pausing,
    resume: (paused || pausing) && !under.has("resume"),
    cancel: true,
  };
}

export class Commands {
  // `on`: report(item, tone, text), settled(item), unauthorized(), limit()
  constructor(model, pool, on) {
    this.model = model;
    this.pool = pool;
    this.on = on;
    this.pending = new Map();
    // Command ids whose result has been shown: the same result also comes by another way.
    this.shown = new Set();
    this.limitedUntil = 0;
    this.limitMessage = "";
  }

  start(item, action, reason) {
    const request = {
      id: uuid(), item, action, reason: reason || undefined, begun: Date.now(), phase: "sending", tries: 0,
      workers: null, command: null, timer: null, following: false,
    };
    this.pending.set(request.id, request);
    item.requests.push(request);
    this.note(item, "busy", messages.ACTIONS[action].doing);
    this.pool.soon(0);
    this.deliver(request, this.pool.isOpen(item) ? 0 : FOR_SOCKET);
  }

  // Asked by hand after the console gave up.
  again(request) {
    if (!this.pending.has(request.id)) return;
    request.tries = 0;
    request.phase = "sending";
    this.note(request.item, "busy", "Asking again…");
    this.deliver(request, 0);
  }

  deliver(request, patience) {
    clearTimeout(request.timer);
    if (!this.pending.has(request.id)) return;
    const { item, action, reason, id } = request;
    const sent = this.pool.send(item, { type: `${action}_${item.kind}`, request_id: id, reason });
    if (sent) request.timer = setTimeout(() => this.unanswered(request), ACK_WITHIN);
    else if (patience > 0) request.timer = setTimeout(() => this.deliver(request, 0), patience);
    else this.overHttp(request);
  }

  async overHttp(request) {
    const { item, action, reason, id } = request;
    try {
      this.onMessage(item, await api.command(item.kind, item.id, action, { request_id: id, reason }));
    } catch (error) {
      if (!this.pending.has(id)) return;
      if (error.status === 401 && !error.stale) this.on.unauthorized(error);
      if (error.code === "unreachable" || error.code === "outcome_unknown") this.unanswered(request);
      else this.refuse(request, error.code, error.message, error.retryAfter);
    }
  }

  unanswered(request) {
    clearTimeout(request.timer);
    if (!this.pending.has(request.id) || request.phase === "waiting") return;
    const wait = RESENDS[request.tries];
    request.tries += 1;
    if (wait === undefined) {
      request.phase = "unknown";
      const text = `No answer: the ${request.action} may have been accepted or not`;
      this.note(request.item, "bad", text, request);
      this.on.report(request.item, "bad", text);
      return;
    }
    this.note(request.item, "warn", "No answer yet: asking again…");
    request.timer = setTimeout(() => this.deliver(request, 0), wait * (0.75 + Math.random() / 2));
  }

  // The socket is there (again): what has no result yet is asked again on it, which is also how a result that
  // was published while there was no socket comes in.
  onOpen(item) {
    for (const request of item.requests) if (request.phase !== "unknown") this.deliver(request, 0);
  }

  // An ack, a result or an error; false where it is something else.
  onMessage(item, message) {
    if (message.type === "error") {
      const request = this.pending.get(message.request_id);
      if (!request) return false;
      if (message.error === "outcome_unknown") this.unanswered(request);
      else this.refuse(request, message.error, message.message, message.retry_after);
      return true;
    }
    const parts = RESULT.exec(message.type);
    if (!parts) return false;
    const [, action, outcome] = parts;
    const request = this.pending.get(message.request_id)
      ?? item.requests.find((one) => one.command !== null && one.command === message.command_id);
    // The newest word on it; the row has its own, from when it was read.
    if (message.control) item.row = { ...item.row, control: message.control };
    if (outcome === "requested") {
      if (request) this.accept(request, message);
      return true;
    }
    if (message.command_id && this.shown.has(message.command_id)) return true;
    if (message.command_id) this.shown.add(message.command_id);
    if (request) this.forget(request);
    const good = outcome === "succeeded";
    const text = good ? messages.done(action, Boolean(request), message.control) : messages.couldNot(action, message.error);
    // Work may go on behind a row: nobody should take that for an end.
    const tone = good && message.control === "row" ? "warn" : good ? "good" : "bad";
    this.note(item, tone === "bad" && !request ? "warn" : tone, text);
    this.on.report(item, tone, text);
    this.on.settled(item);
    return true;
  }

  accept(request, message) {
    clearTimeout(request.timer);
    const first = request.phase !== "waiting";
    request.phase = "waiting";
    request.command = message.command_id ?? request.command;
    request.workers = message.workers_online ?? null;
    if (first) {
      const text = messages.accepted(request.action, request.workers);
      this.note(request.item, request.workers === 0 ? "warn" : "busy", text);
      if (request.workers === 0) this.on.report(request.item, "warn", text);
    }
    this.follow(request);
  }

  async follow(request) {
    if (request.following || request.command === null) return;
    request.following = true;
    const { item } = request;
    while (this.pending.has(request.id)) {
      const live = this.pool.isOpen(item);
      await sleep(live ? LOOK_EVERY : 500);
      if (!this.pending.has(request.id)) return;
      try {
        const message = await api.result(item.kind, item.id, request.command, this.pool.isOpen(item) ? 0 : LOOK_WAIT);
        if (message.type !== "pending") this.onMessage(item, message);
      } catch (error) {
        if (error.status === 401 && !error.stale) this.on.unauthorized(error);
        await sleep(3_000);
      }
    }
  }

  refuse(request, code, message, retryAfter) {
    this.forget(request);
    const { item, action } = request;
    if (code === "rate_limit_exceeded") {
      const seconds = Math.max(1, Math.ceil(retryAfter ?? 1));
      this.limitedUntil = Date.now() + seconds * 1_000;
      this.limitMessage = message;
      item.note = { tone: "warn", text: messages.limited(message, seconds), at: Date.now(), limited: true };
      this.model.changed(item);
      this.on.report(item, "warn", `Could not ${action}: ${messages.limited(message, seconds)}`);
      this.on.limit();
      return;
    }
    const text = messages.refused(code, message, action, item.kind);
    this.note(item, "bad", text);
    this.on.report(item, "bad", text);
  }

  forget(request) {
    clearTimeout(request.timer);
    this.pending.delete(request.id);
    request.item.requests = request.item.requests.filter((one) => one !== request);
    this.model.changed(request.item);
  }

  // Another user's session begins: nothing of this one is shown in it.
  clear() {
    for (const request of [...this.pending.values()]) this.forget(request);
    this.shown.clear();
    this.limitedUntil = 0;
  }

  note(item, tone, text, unknown = null) {
    item.note = { tone, text, at: Date.now(), unknown };
    this.model.changed(item);
  }

  secondsLimited() {
    return Math.max(0, Math.ceil((this.limitedUntil - Date.now()) / 1_000));
  }

  // Once a second: what has been waited for, and what is left to wait.
  tick() {
    for (const request of this.pending.values()) {
      const last = request.item.requests.at(-1);
      if (request !== last || request.phase !== "waiting") continue;
      const seconds = Math.floor((Date.now() - request.begun) / 1_000);
      const text = messages.waiting(request.action, seconds, request.workers, request.item.row.status);
      if (request.item.note?.text !== text) this.note(request.item, request.workers === 0 ? "warn" : "busy", text);
    }
    const left = this.secondsLimited();
    if (this.limitedUntil === 0) return;
    for (const item of this.model.items.values()) {
      if (!item.note?.limited) continue;
      item.note.text = messages.limited(this.limitMessage, left);
      if (left === 0) item.note = { tone: "good", text: item.note.text, at: Date.now() };
      this.model.changed(item);
    }
    this.on.limit();
    if (left === 0) this.limitedUntil = 0;
  }
}
