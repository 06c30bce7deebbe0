// Built from clients/typescript by `npm run console`. Do not edit.

// dist/client/errors.js
var CommandError = class extends Error {
  /**
   * `code` is the protocol's stable word (`permission_denied`, `rate_limit_exceeded`, `not_found`, …); `failed` if a worker
   * has refused the command, with its reason as the message; `network` if nothing came back at all.
   */
  constructor(code, message, retryAfter) {
    super(message);
    this.code = code;
    this.retryAfter = retryAfter;
    this.name = "CommandError";
  }
};
function asCommandError(error) {
  return error instanceof CommandError ? error : new CommandError("network", String(error));
}
function errorFrom(answer) {
  const code = answer.error || "internal";
  return new CommandError(code, answer.message || code, answer.retry_after);
}

// dist/client/commands.js
var AGAIN = 1e3;
var Commands = class {
  #pending = /* @__PURE__ */ new Map();
  #connection;
  constructor(connection) {
    this.#connection = connection;
  }
  /** Settles with the result, or with the schedule's message if it was given a time. Rejects with `CommandError`. */
  run(kind, id, action, options) {
    const requestId = options.requestId ?? newId();
    const message = {
      type: `${action}_${kind}`,
      [`${kind}_id`]: id,
      request_id: requestId,
      // What is undefined does not travel.
      reason: options.reason,
      run_at: options.at?.toISOString(),
      delay_seconds: options.in === void 0 ? void 0 : seconds(options.in)
    };
    const { signal } = options;
    if (signal?.aborted)
      return Promise.reject(signal.reason);
    const { status, reason } = this.#connection.state.get();
    if (status === "closed")
      return Promise.reject(closed(reason));
    const release = this.#connection.hold();
    return new Promise((resolve, reject) => {
      const abort = () => fail(signal?.reason);
      const done = () => {
        this.#pending.delete(requestId);
        signal?.removeEventListener("abort", abort);
        release();
      };
      const fail = (error) => {
        done();
        reject(error);
      };
      const settle = (answer) => {
        done();
        resolve(answer);
      };
      signal?.addEventListener("abort", abort);
      this.#pending.set(requestId, { message, settle, fail });
      if (this.#connection.isUp)
        this.#connection.send(message);
    });
  }
  opened() {
    for (const { message } of this.#pending.values())
      this.#connection.send(message);
  }
  ended(reason) {
    for (const pending of [...this.#pending.values()])
      pending.fail(closed(reason));
  }
  message(message) {
    const pending = this.#find(message);
    if (!pending)
      return;
    const what = message.type.split("_").pop();
    if (what === "requested")
      pending.commandId = message.command_id;
    else if (what === "succeeded" || what === "scheduled")
      pending.settle(message);
    else if (what === "failed")
      pending.fail(new CommandError("failed", message.error ?? "failed"));
    else if (message.error === "outcome_unknown") {
      setTimeout(() => this.#again(pending), (message.retry_after ?? 0) * 1e3 || AGAIN);
    } else if (message.type === "error")
      pending.fail(errorFrom(message));
  }
  #find({ request_id, command_id }) {
    const named = request_id === void 0 ? void 0 : this.#pending.get(request_id);
    if (named || command_id === void 0)
      return named;
    return [...this.#pending.values()].find((pending) => pending.commandId === command_id);
  }
  #again(pending) {
    if ([...this.#pending.values()].includes(pending))
      this.#connection.send(pending.message);
  }
};
function asResult(message) {
  return message;
}
function closed(reason) {
  return new CommandError("closed", reason || "The connection is closed");
}
var UNITS = { s: 1, m: 60, h: 3600, d: 86400 };
function seconds(time) {
  if (typeof time === "number")
    return Math.round(time);
  const [, count, unit] = /^(\d+)([smhd])$/.exec(time) ?? [];
  if (!count || !unit)
    throw new TypeError(`"${time}" is no length of time: give seconds, 15m, 8h, 7d`);
  return Number(count) * UNITS[unit];
}
function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// dist/client/batch.js
var WAIT_SECONDS = 30;
var TRIES = 20;
var Batch = class {
  #action;
  #target;
  #http;
  constructor(action, target, http) {
    this.#action = action;
    this.#target = target;
    this.#http = http;
  }
  /** What it would do, and what it would cost of the user's budget. Nothing is done. Throws `CommandError`. */
  preview(signal) {
    return this.#http.json("/api/v1/batch", { method: "POST", body: { ...this.#body(), dry_run: true }, signal });
  }
  /**
   * Does it, and settles with all results. Throws `CommandError`. Where an answer is lost it asks again under the same
   * name, so that nothing is done twice.
   */
  async run({ reason, requestId, signal } = {}) {
    const body = { ...this.#body(), request_id: requestId ?? newId(), reason };
    for (let tries = 1; ; tries++) {
      try {
        const path = `/api/v1/batch?wait=${WAIT_SECONDS}`;
        const answer = await this.#http.request(path, { method: "POST", body, signal });
        if (answer.status === 200)
          return answer.body;
      } catch (error) {
        const unsure = error instanceof CommandError && ["network", "outcome_unknown"].includes(error.code);
        if (!unsure || tries >= TRIES)
          throw error;
        await new Promise((resolve) => setTimeout(resolve, 1e3 * Math.random() * Math.min(tries, 5)));
      }
    }
  }
  #body() {
    const target = this.#target;
    if ("jobIds" in target)
      return { type: `${this.#action}_jobs`, job_ids: target.jobIds };
    if ("campaignIds" in target)
      return { type: `${this.#action}_campaigns`, campaign_ids: target.campaignIds };
    if ("campaigns" in target)
      return { type: `${this.#action}_campaigns`, filter: target.campaigns };
    const { status, campaignId, jobType } = target.jobs;
    return { type: `${this.#action}_jobs`, filter: { status, campaign_id: campaignId, job_type: jobType } };
  }
};

// dist/shared/backoff.js
var Backoff = class {
  #failures = 0;
  constructor(first, most, random = Math.random) {
    this.first = first;
    this.most = most;
    this.random = random;
  }
  next() {
    const limit = Math.min(this.most, this.first * 2 ** Math.min(this.#failures, 30));
    this.#failures += 1;
    return Math.round(this.random() * limit);
  }
  /** A connection has worked: the next failure is the first again. */
  reset() {
    this.#failures = 0;
  }
};

// dist/client/store.js
var Store = class {
  #listeners;
  constructor(value) {
    this.value = value;
    this.#listeners = /* @__PURE__ */ new Set();
    this.get = () => this.value;
    this.subscribe = (listener) => {
      this.#listeners.add(listener);
      return () => {
        this.#listeners.delete(listener);
      };
    };
  }
  set(value) {
    this.value = value;
    for (const listener of [...this.#listeners])
      listener();
  }
};

// dist/client/connection.js
var BURST = 30;
var PER_SECOND = 15;
var SILENCE = 25e3;
var ANSWER = 1e4;
var LINGER = 5e3;
var TRANSIENT = [4401, 4408, 4413, 4429];
var Connection = class {
  #backoff;
  #holders;
  #socket;
  #token;
  #refused;
  #attempt;
  #retry;
  #linger;
  #watch;
  #pace;
  #queue;
  #allowance;
  #allowanceAt;
  #options;
  constructor(options) {
    this.state = new Store({ status: "idle" });
    this.isUp = false;
    this.#backoff = new Backoff(500, 3e4);
    this.#holders = 0;
    this.#attempt = 0;
    this.#queue = [];
    this.#allowance = BURST;
    this.#allowanceAt = 0;
    this.#awake = () => {
      if (globalThis.document?.visibilityState === "hidden")
        return;
      const { status } = this.state.get();
      if (status === "waiting")
        void this.#connect();
      else if (this.isUp)
        this.#ask();
    };
    this.#offline = () => this.#drop("offline");
    this.#options = options;
  }
  /** Keeps the connection up until the function that this gives is called. */
  hold() {
    this.#holders += 1;
    clearTimeout(this.#linger);
    if (this.state.get().status === "idle") {
      this.#listen("addEventListener");
      void this.#connect();
    }
    let held = true;
    return () => {
      if (held)
        this.#holders -= 1;
      held = false;
      if (this.#holders === 0)
        this.#linger = later(() => this.#leave({ status: "idle" }), LINGER);
    };
  }
  /**
   * Sends as soon as the connection is open, at the pace that the service allows. What waits when it is lost is not sent
   * again.
   */
  send(message) {
    if (this.state.get().status === "closed")
      return;
    this.#queue.push(typeof message === "string" ? message : JSON.stringify(message));
    this.#flush();
  }
  /** Closes for good. */
  close() {
    this.#end({ status: "closed", code: 1e3 });
  }
  async #connect() {
    this.#attempt += 1;
    const attempt = this.#attempt;
    clearTimeout(this.#retry);
    this.state.set({ ...this.state.get(), status: "connecting" });
    try {
      this.#token = await this.#options.tokens.get(this.#refused);
    } catch (error) {
      if (attempt === this.#attempt)
        this.#tryAgain({ code: 1006, reason: String(error) });
      return;
    }
    if (attempt !== this.#attempt)
      return;
    let socket;
    try {
      socket = new this.#options.WebSocket(this.#options.url, ["wheelhouse", `bearer.${this.#token}`]);
    } catch (error) {
      this.#refused = this.#token;
      return this.#tryAgain({ code: 1006, reason: String(error) });
    }
    this.#socket = socket;
    socket.onopen = () => this.#socket === socket && this.#heard();
    socket.onmessage = ({ data }) => {
      if (this.#socket !== socket)
        return;
      this.#heard();
      if (!this.isUp) {
        this.#backoff.reset();
        this.#refused = void 0;
        this.#opened();
      }
      const message = this.#options.parse(String(data));
      if (message.type === "token_expiring")
        void this.#renew(socket);
      else if (message.type === "feed_interrupted") {
        const { reason, since } = message;
        this.state.set({ status: "interrupted", reason, since });
        this.#options.lost?.();
      } else if (message.type === "feed_resumed")
        this.#opened();
      if (message.type !== "pong")
        this.#options.message(message);
    };
    socket.onerror = () => {
    };
    socket.onclose = ({ code, reason }) => {
      if (this.#socket === socket)
        this.#lost(code, String(reason ?? ""));
    };
  }
  #opened() {
    this.isUp = true;
    this.state.set({ status: "open" });
    this.#options.opened?.();
    this.#flush();
  }
  /** Before its token ends the socket gets a newer one: it goes on without a break. Without one it is closed in time. */
  async #renew(socket) {
    const token = await this.#options.tokens.get(this.#token, true).catch(() => this.#token);
    if (this.#socket !== socket || token === this.#token)
      return;
    this.#token = token;
    this.send({ type: "refresh_token", token });
  }
  #lost(code, reason) {
    this.#forget();
    if (code === 4401)
      this.#refused = this.#token;
    if (code >= 4400 && code < 4500 && !TRANSIENT.includes(code))
      return this.#end({ status: "closed", code, reason });
    const told = code === 1012 ? /(\d+) ms/.exec(reason)?.[1] : void 0;
    this.#tryAgain({ code, reason }, told ? Number(told) : void 0);
  }
  #tryAgain(why, wait = this.#backoff.next()) {
    if (this.#holders === 0)
      return this.#leave({ status: "idle" });
    this.state.set({ status: "waiting", ...why, retryAt: Date.now() + wait });
    this.#retry = later(() => void this.#connect(), wait);
  }
  #end(state) {
    if (this.state.get().status === "closed")
      return;
    this.#leave(state);
    this.#options.ended?.(state);
  }
  #listen(how) {
    globalThis[how]?.("online", this.#awake);
    globalThis[how]?.("offline", this.#offline);
    globalThis.document?.[how]("visibilitychange", this.#awake);
  }
  /** Closes the socket, and comes to rest in a state. */
  #leave(state) {
    this.#listen("removeEventListener");
    this.#attempt += 1;
    clearTimeout(this.#retry);
    clearTimeout(this.#linger);
    const socket = this.#socket;
    this.#forget();
    socket?.close(1e3);
    this.state.set(state);
  }
  #forget() {
    clearTimeout(this.#watch);
    clearTimeout(this.#pace);
    this.#pace = void 0;
    this.#queue = [];
    this.isUp = false;
    if (this.#socket) {
      this.#socket = void 0;
      this.#options.lost?.();
    }
  }
  /** Asks after a long silence, and gives the connection up if there is no answer: its other end may be long gone. */
  #heard() {
    clearTimeout(this.#watch);
    this.#watch = later(() => this.#ask(), SILENCE);
  }
  #ask() {
    clearTimeout(this.#watch);
    this.send({ type: "ping" });
    this.#watch = later(() => this.#drop("no answer"), ANSWER);
  }
  /** The computer woke up, or is online again: do not sit out a wait, and do not trust a socket from before. */
  #awake;
  /** Nothing comes any more: what is shown must not look live until a socket has long been silent. */
  #offline;
  #drop(reason) {
    const socket = this.#socket;
    if (!socket)
      return;
    this.#lost(1006, reason);
    socket.close();
  }
  #flush() {
    if (!this.isUp || this.#pace !== void 0)
      return;
    const now = Date.now();
    this.#allowance = Math.min(BURST, this.#allowance + (now - this.#allowanceAt) / 1e3 * PER_SECOND);
    this.#allowanceAt = now;
    while (this.#queue.length > 0 && this.#allowance >= 1) {
      this.#allowance -= 1;
      this.#socket?.send(this.#queue.shift());
    }
    if (this.#queue.length === 0)
      return;
    this.#pace = later(() => {
      this.#pace = void 0;
      this.#flush();
    }, 1e3 / PER_SECOND);
  }
};
function later(what, milliseconds) {
  const timer = setTimeout(what, milliseconds);
  timer.unref?.();
  return timer;
}

// dist/client/feed.js
var MOST_IDS = 1e3;
var MOST_SNAPSHOTS = 100;
var NAME = "subscription-";
var NOBODY = "0";
var Feed = class {
  #watchers = { job: /* @__PURE__ */ new Map(), campaign: /* @__PURE__ */ new Map() };
  #lists = /* @__PURE__ */ new Set();
  #uncovered = /* @__PURE__ */ new Set();
  #subscriptions = 0;
  #snapshot = false;
  #asked = [];
  #planned = false;
  #connection;
  constructor(connection) {
    this.#connection = connection;
  }
  /** Follows one resource. Gives the function that ends this. */
  watch(kind, id, watcher) {
    this.#watchers[kind].set(id, watcher);
    return this.#added(watcher, () => this.#watchers[kind].delete(id));
  }
  /** Follows every job and campaign of the tenant. */
  watchAll(watcher) {
    this.#lists.add(watcher);
    return this.#added(watcher, () => this.#lists.delete(watcher));
  }
  opened() {
    for (const watcher of this.#all())
      this.#uncovered.add(watcher);
    this.#plan();
  }
  lost() {
    this.#asked = [];
    for (const watcher of this.#all())
      watcher.lost();
  }
  message(message) {
    if (message.request_id?.startsWith(NAME)) {
      if (message.request_id !== this.#name())
        return;
      if (message.type === "subscription") {
        for (const watcher of this.#asked.splice(0))
          watcher.covered(this.#snapshot);
      } else {
        for (const watcher of this.#all())
          watcher.covered(false);
      }
    } else if (message.type === "resynchronize") {
      this.opened();
    } else {
      const { job_id, campaign_id } = message;
      const kind = job_id === void 0 ? "campaign" : "job";
      const id = job_id ?? campaign_id;
      if (id !== void 0)
        this.#watchers[kind].get(id)?.message(message);
      for (const list of this.#lists)
        list.message(message);
    }
  }
  #added(watcher, remove) {
    const release = this.#connection.hold();
    this.#uncovered.add(watcher);
    this.#plan();
    return () => {
      remove();
      this.#uncovered.delete(watcher);
      this.#asked = this.#asked.filter((other) => other !== watcher);
      release();
      this.#plan();
    };
  }
  /** Many components appear and go in one turn of a page: one message is enough for them. */
  #plan() {
    if (this.#planned)
      return;
    this.#planned = true;
    queueMicrotask(() => {
      this.#planned = false;
      if (this.#connection.state.get().status !== "open")
        return;
      this.#subscriptions += 1;
      this.#asked.push(...this.#uncovered);
      this.#uncovered.clear();
      const { job, campaign } = this.#watchers;
      const count = job.size + campaign.size;
      this.#snapshot = this.#lists.size === 0 && count > 0 && count <= MOST_SNAPSHOTS;
      this.#connection.send({
        type: "subscribe",
        filter: this.#filter(),
        request_id: this.#name(),
        snapshot: this.#snapshot || void 0
      });
    });
  }
  #name() {
    return NAME + this.#subscriptions;
  }
  #filter() {
    const jobs = [...this.#watchers.job.keys()];
    const campaigns = [...this.#watchers.campaign.keys()];
    if (this.#lists.size > 0 || jobs.length > MOST_IDS || campaigns.length > MOST_IDS)
      return {};
    if (jobs.length + campaigns.length === 0)
      return { job_ids: [NOBODY] };
    return {
      job_ids: jobs.length > 0 ? jobs : void 0,
      campaign_ids: campaigns.length > 0 ? campaigns : void 0
    };
  }
  #all() {
    return [...this.#watchers.job.values(), ...this.#watchers.campaign.values(), ...this.#lists];
  }
};

// dist/client/http.js
var Http = class {
  #base;
  #tokens;
  #fetch;
  #parse;
  constructor(base, tokens, fetch, parse) {
    this.#base = base;
    this.#tokens = tokens;
    this.#fetch = fetch;
    this.#parse = parse;
  }
  /**
   * The answer's status and JSON. A token that is not taken is replaced once. Throws `CommandError`; with the code
   * `network` if there was no answer.
   */
  async request(path, options = {}) {
    let token = await this.#tokens.get();
    let response = await this.#send(path, token, options);
    if (response.status === 401) {
      token = await this.#tokens.get(token);
      response = await this.#send(path, token, options);
    }
    const body = await response.text().then(this.#parse).catch(() => ({}));
    if (response.ok)
      return { status: response.status, body };
    throw errorFrom({ message: `HTTP ${response.status}`, ...body });
  }
  /** The same, without the status. */
  async json(path, options) {
    return (await this.request(path, options)).body;
  }
  async #send(path, token, { method, body, signal }) {
    try {
      return await this.#fetch(this.#base + path, {
        method: method ?? "GET",
        headers: { Authorization: `Bearer ${token}`, ...body ? { "Content-Type": "application/json" } : {} },
        body: JSON.stringify(body),
        signal: signal ?? null
      });
    } catch (error) {
      if (signal?.aborted)
        throw error;
      throw new CommandError("network", `No answer: ${String(error)}`);
    }
  }
};
function query(fields) {
  const given = Object.entries(fields).filter(([, value]) => value !== void 0);
  return given.length === 0 ? "" : `?${new URLSearchParams(given)}`;
}

// dist/client/limit.js
var Limit = class {
  #waiting = [];
  constructor(free) {
    this.free = free;
  }
  async run(call) {
    if (this.free > 0)
      this.free -= 1;
    else
      await new Promise((resolve) => this.#waiting.push(resolve));
    try {
      return await call();
    } finally {
      const next = this.#waiting.shift();
      if (next)
        next();
      else
        this.free += 1;
    }
  }
};

// dist/client/updated.js
var FINAL = ["completed", "failed", "cancelled"];
function updated(row, message) {
  const { type, tenant_id, ...fields } = message;
  if ((fields.seq ?? 0) <= (row.seq ?? -1))
    return void 0;
  if (FINAL.includes(row.status) && fields.status !== row.status)
    return void 0;
  const next = { ...row, ...fields };
  if (type.endsWith("_status") && !fields.desired)
    delete next.desired;
  return next;
}

// dist/client/list.js
var REREAD = 500;
var READ_AGAIN = 3e3;
var JobList = class {
  #store;
  #next;
  #pages;
  #followers;
  #unwatch;
  #reading;
  #reread;
  #filter;
  #http;
  #feed;
  constructor(filter, http, feed) {
    this.#store = new Store({ jobs: [], more: false, status: "loading" });
    this.#next = null;
    this.#pages = 1;
    this.#followers = 0;
    this.#reading = 0;
    this.get = () => this.#store.get();
    this.subscribe = (listener) => {
      const unlisten = this.#store.subscribe(() => listener(this.get()));
      this.#followers += 1;
      this.#unwatch ??= this.#feed.watchAll(this);
      let following = true;
      return () => {
        unlisten();
        if (following)
          this.#followers -= 1;
        following = false;
        if (this.#followers > 0)
          return;
        this.#unwatch?.();
        this.#unwatch = void 0;
        this.lost();
      };
    };
    this.#filter = filter;
    this.#http = http;
    this.#feed = feed;
  }
  /** One page, read once. `after` is the `next` of the page before. Throws `CommandError`. */
  page(after) {
    const { status, campaignId, jobType, limit = 100 } = this.#filter;
    return this.#http.json(`/api/v1/jobs${query({ status, campaign_id: campaignId, job_type: jobType, limit, after })}`);
  }
  /** Adds the next page to what is shown. */
  async loadMore() {
    if (!this.#next)
      return;
    this.#pages += 1;
    await this.#read();
  }
  // What the feed tells (Watcher).
  covered() {
    void this.#read();
  }
  lost() {
    this.#reading += 1;
    clearTimeout(this.#reread);
    this.#reread = void 0;
    this.#store.set({ ...this.get(), status: this.get().status === "loading" ? "loading" : "stale" });
  }
  message(message) {
    const { job_id: id, type } = message;
    if (id === void 0 || !/^job_(status|progress)$/.test(type))
      return;
    const state = this.get();
    const at = state.jobs.findIndex((job) => job.id === id);
    const old = state.jobs[at];
    if (!old) {
      if (type === "job_status")
        this.#readSoon();
      return;
    }
    const next = updated(old, message);
    if (!next)
      return;
    const jobs = [...state.jobs];
    const wanted = this.#filter.status;
    if (wanted && next.status !== wanted)
      jobs.splice(at, 1);
    else
      jobs[at] = next;
    this.#store.set({ ...state, jobs });
  }
  #readSoon(milliseconds = REREAD) {
    this.#reread ??= setTimeout(() => {
      this.#reread = void 0;
      void this.#read();
    }, milliseconds);
  }
  async #read() {
    this.#reading += 1;
    const reading = this.#reading;
    try {
      const jobs = [];
      let next = null;
      for (let i = 0; i < this.#pages && (i === 0 || next); i++) {
        const page = await this.page(next ?? void 0);
        jobs.push(...page.jobs);
        next = page.next;
      }
      if (reading !== this.#reading)
        return;
      this.#next = next;
      this.#store.set({ jobs, more: next !== null, status: "live" });
    } catch (error) {
      if (reading !== this.#reading)
        return;
      const known = asCommandError(error);
      this.#store.set({ ...this.get(), status: "failed", error: known });
      if (known.code === "network" || known.code === "unavailable")
        this.#readSoon(READ_AGAIN);
    }
  }
};

// dist/client/resource.js
var MOST_WAITING = 1e3;
var READ_AGAIN2 = 3e3;
var SETTLED = ["not_found", "permission_denied", "forbidden", "unauthorized"];
var Resource = class {
  #store;
  #readers;
  #followers;
  #unwatch;
  #reading;
  #early;
  #parts;
  constructor(kind, id, parts) {
    this.#store = new Store({ data: void 0, status: "loading" });
    this.#readers = /* @__PURE__ */ new Set();
    this.#followers = 0;
    this.#reading = 0;
    this.get = () => this.#store.get();
    this.subscribe = (listener) => {
      const unlisten = this.#store.subscribe(() => listener(this.get()));
      const unfollow = this.#follow();
      return () => {
        unlisten();
        unfollow();
      };
    };
    this.kind = kind;
    this.id = id;
    this.#parts = parts;
  }
  /** Reads it once. Throws `CommandError`. */
  load(signal) {
    return this.#parts.http.json(`/api/v1/${this.kind}s/${encodeURIComponent(this.id)}`, { signal });
  }
  /** Every message about it, beginning with a snapshot; again a snapshot after each lost connection. */
  async *messages(signal) {
    let waiting = [];
    let wake = () => {
    };
    const read = (message) => {
      if (waiting.length >= MOST_WAITING)
        waiting = waiting.filter(({ type }) => !type.endsWith("_progress"));
      waiting.push(message);
      wake();
    };
    const stop = () => wake();
    this.#readers.add(read);
    signal?.addEventListener("abort", stop);
    const { data, status } = this.get();
    if (data && status === "live")
      read(this.#snapshot(data));
    const unfollow = this.#follow();
    try {
      while (!signal?.aborted) {
        const message = waiting.shift();
        if (message)
          yield message;
        else
          await new Promise((resolve) => {
            wake = resolve;
          });
      }
    } finally {
      unfollow();
      signal?.removeEventListener("abort", stop);
      this.#readers.delete(read);
    }
  }
  pause(options = {}) {
    return this.#run("pause", options);
  }
  resume(options = {}) {
    return this.#run("resume", options);
  }
  cancel(options = {}) {
    return this.#run("cancel", options);
  }
  async #run(action, options) {
    const answer = await this.#parts.commands.run(this.kind, this.id, action, options);
    const { schedule_id: id, run_at } = answer;
    if (id === void 0)
      return asResult(answer);
    return { id, runAt: new Date(run_at), withdraw: () => this.#parts.withdraw(id) };
  }
  #follow() {
    this.#followers += 1;
    this.#unwatch ??= this.#parts.feed.watch(this.kind, this.id, this);
    let following = true;
    return () => {
      if (following)
        this.#followers -= 1;
      following = false;
      if (this.#followers > 0)
        return;
      this.#unwatch?.();
      this.#unwatch = void 0;
      this.lost();
    };
  }
  // What the feed tells (Watcher).
  covered(sent = false) {
    this.#reading += 1;
    const reading = this.#reading;
    this.#early = [];
    if (sent)
      return;
    this.#parts.reads.run(() => this.load()).then((data) => reading === this.#reading && this.#begin(data), (error) => {
      if (reading !== this.#reading)
        return;
      const known = asCommandError(error);
      this.#fail(known);
      if (SETTLED.includes(known.code))
        return;
      setTimeout(() => reading === this.#reading && this.covered(), READ_AGAIN2 * (0.5 + Math.random()));
    });
  }
  /** This is how it is; what has come meanwhile may be newer. */
  #begin(data) {
    this.#reading += 1;
    const early = this.#early ?? [];
    this.#early = void 0;
    this.#store.set({ data, status: "live" });
    this.#tell(this.#snapshot(data));
    for (const message of early)
      this.message(message);
  }
  #fail(error) {
    this.#early = void 0;
    const status = error.code === "not_found" ? "missing" : "failed";
    this.#store.set({ data: this.get().data, status, error });
  }
  lost() {
    this.#reading += 1;
    this.#early = void 0;
    const { data } = this.get();
    this.#store.set({ data, status: data ? "stale" : "loading" });
  }
  message(message) {
    const what = message.type.slice(this.kind.length + 1);
    if (what === "snapshot") {
      const { type: _, ...data2 } = message;
      if (this.#early)
        this.#begin(data2);
      return;
    }
    if (message.type === "error")
      return this.#fail(errorFrom(message));
    if (this.#early)
      return void this.#early.push(message);
    const { data, status } = this.get();
    if (status === "missing")
      this.covered();
    if (!data || status !== "live")
      return;
    if (what === "status" || what === "progress") {
      const next = updated(data, message);
      if (!next)
        return;
      this.#store.set({ data: next, status });
    }
    this.#tell(message);
  }
  #snapshot(data) {
    return { type: `${this.kind}_snapshot`, ...data };
  }
  #tell(message) {
    for (const read of [...this.#readers])
      read(message);
  }
};

// dist/client/tokens.js
var Tokens = class {
  #closing = new AbortController();
  #token;
  #asking;
  #ask;
  constructor(ask) {
    this.#ask = ask;
  }
  /** The token, asked for once however many need it. `refused` is the one that was not taken, if that is why. */
  get(refused, isEnding) {
    if (this.#asking)
      return this.#asking;
    const token = this.#token;
    if (token !== void 0 && token !== refused && !expired(token))
      return Promise.resolve(token);
    const reason = token === void 0 ? "connect" : isEnding ? "expiring" : "expired";
    this.#asking = Promise.resolve().then(() => this.#ask({ reason, signal: this.#closing.signal })).then((fresh) => this.#token = fresh).finally(() => {
      this.#asking = void 0;
    });
    return this.#asking;
  }
  close() {
    this.#closing.abort();
  }
};
function expired(token) {
  try {
    const claims = atob((token.split(".")[1] ?? "").replace(/-/g, "+").replace(/_/g, "/"));
    return JSON.parse(claims).exp * 1e3 <= Date.now();
  } catch {
    return false;
  }
}

// dist/client/client.js
var Wheelhouse = class {
  #options;
  #tokens;
  #http;
  #reads;
  #connection;
  #feed;
  #commands;
  #resources;
  #lists;
  constructor(options) {
    this.#reads = new Limit(8);
    this.#resources = /* @__PURE__ */ new Map();
    this.#lists = /* @__PURE__ */ new Map();
    this.withdraw = async (scheduleId) => {
      await this.#http.json(`/api/v1/schedules/${encodeURIComponent(scheduleId)}`, { method: "DELETE" });
    };
    const url = (options.url ?? globalThis.location?.origin ?? "").replace(/\/+$/, "");
    if (!/^https?:\/\//.test(url))
      throw new TypeError(`createClient needs the gateway's url, not "${url}"`);
    const parse = options.parse ?? JSON.parse;
    this.#options = { ...options, url, parse };
    this.#tokens = new Tokens(options.getToken);
    this.#http = new Http(url, this.#tokens, options.fetch ?? globalThis.fetch.bind(globalThis), parse);
    this.#connection = this.#open("", {
      opened: () => {
        this.#feed.opened();
        this.#commands.opened();
      },
      message: (message) => {
        this.#feed.message(message);
        this.#commands.message(message);
      },
      lost: () => this.#feed.lost(),
      ended: ({ reason }) => this.#commands.ended(reason)
    });
    this.connection = this.#connection.state;
    this.#feed = new Feed(this.#connection);
    this.#commands = new Commands(this.#connection);
  }
  /** One job: to watch and to command. The same object for the same id. */
  job(id) {
    return this.#resource("job", id);
  }
  /** One campaign: to watch and to command. */
  campaign(id) {
    return this.#resource("campaign", id);
  }
  /** The tenant's jobs, newest first. The same object for the same filter. */
  jobs(filter = {}) {
    const key = JSON.stringify(Object.entries(filter).sort());
    const list = this.#lists.get(key) ?? new JobList(filter, this.#http, this.#feed);
    this.#lists.set(key, list);
    return list;
  }
  /** One action on many: `wh.batch('cancel', { jobIds })`, then `preview()` or `run()`. */
  batch(action, target) {
    return new Batch(action, target, this.#http);
  }
  /** Every message of the tenant that the user may read, as it comes. Gives the function that ends this. */
  watch(watcher) {
    return this.#feed.watchAll(watcher);
  }
  /** Any other request of the REST API: its JSON. Throws `CommandError`. */
  request(path, options) {
    return this.#http.json(path, options);
  }
  /** Commands that wait for their time. Throws `CommandError`. */
  async schedules() {
    return (await this.#http.json("/api/v1/schedules")).schedules;
  }
  /** A socket of your own: `socket('jobs/ID')`, for `/api/v1/realtime/ws/jobs/ID`, with a query if you like; a path that begins with `/` is taken whole. */
  socket(path) {
    const listeners = /* @__PURE__ */ new Set();
    const connection = this.#open(path, {
      message: (message) => {
        for (const listener of [...listeners])
          listener(message);
      }
    });
    return {
      state: connection.state,
      send: (message) => connection.send(message),
      subscribe(listener) {
        listeners.add(listener);
        const release = connection.hold();
        return () => {
          listeners.delete(listener);
          release();
        };
      },
      close: () => connection.close()
    };
  }
  /** Closes for good: commands on their way reject with the code `closed`. */
  close() {
    this.#connection.close();
    this.#tokens.close();
  }
  #resource(kind, id) {
    const key = `${kind}:${id}`;
    const parts = {
      http: this.#http,
      reads: this.#reads,
      feed: this.#feed,
      commands: this.#commands,
      withdraw: this.withdraw
    };
    const found = this.#resources.get(key) ?? new Resource(kind, id, parts);
    this.#resources.set(key, found);
    return found;
  }
  #open(path, listener) {
    const WebSocket = this.#options.WebSocket ?? globalThis.WebSocket;
    if (!WebSocket)
      throw new TypeError("createClient needs a WebSocket");
    const root = "/api/v1/realtime/ws";
    const whole = path.startsWith("/") ? path : path ? `${root}/${path}` : root;
    return new Connection({
      // A page's script does not see why an upgrade was refused; it does see why a socket was closed.
      // And it is to know when nothing comes because nothing can.
      url: `${this.#options.url.replace(/^http/, "ws")}${whole}${whole.includes("?") ? "&" : "?"}reject=close&interruptions=true`,
      WebSocket,
      tokens: this.#tokens,
      parse: this.#options.parse,
      ...listener
    });
  }
};
function createClient(options) {
  return new Wheelhouse(options);
}
export {
  Batch,
  CommandError,
  createClient
};
