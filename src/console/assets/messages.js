// Every word an operator reads about jobs, commands and connections. No network, no page: words only.

export const FINAL = new Set(["completed", "failed", "cancelled"]);
export const PLURAL = { job: "jobs", campaign: "campaigns" };

const STATUS = {
  pending: "Pending", running: "Running", active: "Active", paused: "Paused",
  completed: "Completed", failed: "Failed", cancelled: "Cancelled",
};
const TOWARDS = { paused: "Pausing…", cancelled: "Cancelling…", running: "Resuming…", active: "Resuming…", pending: "Resuming…" };

export const ACTIONS = {
  pause: { label: "Pause", doing: "Pausing…", done: "Paused", goal: "paused" },
  resume: { label: "Resume", doing: "Resuming…", done: "Resumed", goal: "running" },
  cancel: { label: "Cancel", doing: "Cancelling…", done: "Cancelled", goal: "cancelled" },
};

// What the audit trail calls an action, for people.
export const actionWords = (action) => ACTIONS[action]?.label ?? (action === "rerun" ? "Run again" : action);

// "Running", or "Pausing…" while a command under way takes it elsewhere.
export function statusWords(status, desired) {
  if (desired && desired !== status && !FINAL.has(status)) return TOWARDS[desired] ?? STATUS[status] ?? status;
  return STATUS[status] ?? status ?? "Unknown";
}

// What a row is to be shown as: its status, or `partly` for a campaign that is over and of which something has failed.
export function standing(kind, row) {
  const { failed = 0, cancelled = 0 } = row.jobs_by_status ?? {};
  return kind === "campaign" && row.status === "completed" && failed + cancelled > 0 ? "partly" : row.status;
}

// "Running", "Pausing…", "Completed, 3 failed".
export function outcomeWords(kind, row) {
  if (standing(kind, row) !== "partly") return statusWords(row.status, row.desired);
  const { failed = 0, cancelled = 0 } = row.jobs_by_status;
  return failed > 0 ? `Ended, ${count(failed)} failed` : `Ended, ${count(cancelled)} cancelled`;
}

const COUNT = new Intl.NumberFormat("en");
export const count = (n) => COUNT.format(n);

export function countsWords(row, kind) {
  const unit = kind === "campaign" ? " jobs" : "";
  const done = row.items_processed ?? 0;
  const total = row.items_total;
  let text = "";
  if (typeof total === "number") text = `${count(done)} of ${count(total)}${unit}`;
  else if (done > 0) text = `${count(done)} done`;
  if (row.items_failed > 0) text += `${text ? ", " : ""}${count(row.items_failed)} failed`;
  return text;
}

export function age(iso, now = Date.now()) {
  const then = Date.parse(iso ?? "");
  if (Number.isNaN(then)) return "";
  const seconds = Math.max(0, Math.round((now - then) / 1000));
  if (seconds < 60) return "just now";
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3_600)} h ago`;
  const days = Math.floor(seconds / 86_400);
  return days === 1 ? "yesterday" : `${count(days)} days ago`;
}

// "in 20 min", of a moment that is to come.
export function inWords(iso, now = Date.now()) {
  const seconds = Math.round((Date.parse(iso ?? "") - now) / 1000);
  if (Number.isNaN(seconds)) return "";
  if (seconds < 60) return seconds > 0 ? `in ${seconds} s` : "now";
  if (seconds < 3_600) return `in ${Math.floor(seconds / 60)} min`;
  return seconds < 172_800 ? `in ${Math.floor(seconds / 3_600)} h` : `in ${count(Math.floor(seconds / 86_400))} days`;
}

export function duration(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${count(Math.floor(seconds / 3_600))} h ${Math.floor((seconds % 3_600) / 60)} min`;
}

// Milliseconds for which a job has run so far: what the gateway said when it was read (`readAt`), and the time since. Time in
// which it stood paused is no part of it. Null: it has not begun.
export function ranFor(row, now = Date.now()) {
  if (typeof row.running_seconds !== "number" || !row.started_at) return null;
  return row.running_seconds * 1_000 + (row.status === "running" && row.readAt ? now - row.readAt : 0);
}

export function pausedFor(row, now = Date.now()) {
  if (typeof row.paused_seconds !== "number") return 0;
  return row.paused_seconds * 1_000 + (row.status === "paused" && row.readAt ? now - row.readAt : 0);
}

const MOMENT = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
const CLOCK = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
export const moment = (iso) => (Number.isNaN(Date.parse(iso ?? "")) ? "" : MOMENT.format(new Date(iso)));
export const clock = (date) => CLOCK.format(date);

// "job j-17" or its title, as it stands in sentences and in a button's name for screen readers.
export function nameOf(item) {
  const row = item.row ?? {};
  return `${item.kind} ${row.title || row.name || item.id}`;
}

// ---- commands ---------------------------------------------------------------------------------------

// What a command on a job reaches: "live" its work, in the worker that hosts it; "row" what the database says of it.
export function controlWords(control) {
  if (control === "live") return "A worker hosts this job: a command stops, continues or ends the work itself";
  if (control === "row") return "No worker hosts this job: a command changes its row only, and a program that works on it elsewhere hears nothing";
  return "";
}

const ROW_ONLY = {
  pause: "only its row was changed: no worker hosts this job, and a program that works on it was not stopped",
  cancel: "only its row was changed: no worker hosts this job, and a program that works on it was not stopped",
  resume: "only its row was changed: no worker hosts this job, and a program that works on it was told nothing",
};

export const accepted = (action, workers) =>
  workers === 0 ? "No worker is online: the command waits" : ACTIONS[action].doing;

// After some seconds an operator wants to know that it is still being waited for, and for what.
export function waiting(action, seconds, workers, status) {
  if (workers === 0) return `No worker is online: the command waits (${seconds} s)`;
  if (seconds < 3) return ACTIONS[action].doing;
  if (status !== "running") return `${ACTIONS[action].doing.slice(0, -1)}: waiting for a worker (${seconds} s)`;
  return `${ACTIONS[action].doing.slice(0, -1)}: the work has not stopped yet (${seconds} s)`;
}

export const done = (action, mine, control) =>
  `${ACTIONS[action].done} by ${mine ? "you" : "another operator"}${control === "row" ? `; ${ROW_ONLY[action]}` : ""}`;

export const couldNot = (action, error) => `Could not ${action}: ${error || "no reason was given"}`;

// The limit's own numbers stand in its message: "Rate limit exceeded: 30/30 commands per minute".
export function limited(message, seconds) {
  const numbers = /(\d+)\/(\d+)/.exec(message ?? "");
  // Other limits, as of requests at once, have sentences of their own.
  if (!numbers && message) return message;
  const used = numbers ? `${numbers[1]} of ${numbers[2]} commands used` : "Too many commands";
  return seconds > 0 ? `${used}: try again in ${seconds} s` : "You can send commands again";
}

// Why a command was not accepted, or why it is not known whether it was.
export function refused({ code, message, retryAfter }, action, kind) {
  switch (code) {
    case "permission_denied":
      return action === "rerun" ? "You may not run jobs again: it takes the permission jobs.create"
        : `You may not ${action} ${PLURAL[kind]}: it takes the permission ${PLURAL[kind]}.${action}`;
    case "not_found":
      return `Could not ${action === "rerun" ? "run it again" : action}: there is no such ${kind} any more`;
    case "rate_limit_exceeded":
      return `Could not ${action}: ${limited(message, secondsOf(retryAfter))}`;
    case "failed":
      return couldNot(action, message);
    default:
      return why({ code, message, retryAfter });
  }
}

const secondsOf = (retryAfter) => Math.max(1, Math.ceil(retryAfter ?? 1));

// The same of any request.
export function why({ code, message, retryAfter }) {
  switch (code) {
    case "permission_denied":
    case "forbidden":
    case "not_found":
    case "conflict":
    case "failed":
      // Sentences that say what is lacking, who was faster, what there is already.
      return message;
    case "rate_limit_exceeded":
      return `Nothing was done: ${limited(message, secondsOf(retryAfter))}`;
    case "too_many_connections":
      return `Nothing was done: ${message}. Close other tabs of yours, or try again in ${secondsOf(retryAfter)} s`;
    case "unavailable":
      return "Nothing was done: Redis or the database is away. Try again shortly";
    case "queue_full":
      return "Nothing was done: too many commands are waiting. Try again later";
    case "request_conflict":
      return "Nothing was done: the request id was used before. Try again";
    case "unauthorized":
      return "Nothing was done: the token is no longer valid. Sign in again";
    case "outcome_unknown":
      return "It is not known whether it was done: Redis did not answer in time. Look before you do it again";
    case "network":
      return "No answer came: it is not known whether it was done. Look before you do it again";
    case "closed":
      return "The connection was closed: it is not known whether it was done. Look before you do it again";
    case "timeout":
      return "Nothing was done: the request did not arrive in time. Try again";
    case "internal":
      return "The gateway failed, and its log says why. Look whether it was done before you do it again";
    case "invalid_message":
    case "unknown_type":
    case "method_not_allowed":
    case "too_large":
    case "unsupported_encoding":
      // A page that is older or newer than its gateway, as during an upgrade.
      return `Nothing was done: ${message}. Load this page anew if that should have worked`;
    default:
      return `Nothing was done: ${message || code || "the answer makes no sense"}`;
  }
}

// Why something could not be read.
export function unread(error) {
  return error.code === "network" ? "no answer came" : why(error).replace(/^Nothing was done: /, "");
}

const CLAIMED = { pause: "stopped", resume: "gone on", cancel: "ended" };

// A command that waits or is being carried out, for those who have not sent it.
export function waitsWords({ action, user_id: user, state, accepted_at: at }, me, workers) {
  const what = `${ACTIONS[action]?.label ?? action} by ${user === me ? "you" : user}`;
  const long = duration(Date.now() - Date.parse(at));
  if (state === "claimed") return `${what}: the work has not ${CLAIMED[action]} yet (${long})`;
  return workers === 0 ? `${what} waits for a worker: none is online (${long})` : `${what} waits for a worker (${long})`;
}

// In the header, for as long as it is so.
// `away`: what is away though the connection stands ("Redis", "the database"), or null where it is the connection itself.
const missing = (away) => (away === null ? "there is no connection" : `${away} is away`);
const capital = (text) => text[0].toUpperCase() + text.slice(1);
export const waitsFor = (away) => `Waits for ${away ?? "a connection"}: nothing is sent until it is back`;
export const notRead = (away) => `${capital(missing(away))}: this is read when it is back`;
export const notSent = (away) => `Not sent: ${missing(away)}. Press again when it is back`;
export const sentAgain = (doing, away, seconds) => `${doing.slice(0, -1)}: ${away === null ? "no connection" : missing(away)}, sent again when it is back (${seconds} s)`;
export const NO_WORKER = "No worker is running: commands wait until one is back";
export const WORKER_BACK = "A worker is running again";

// ---- connections ------------------------------------------------------------------------------------

const CLOSED = {
  1001: "the gateway goes away", 1006: "no connection", 1012: "the gateway restarts",
  4401: "the token is not taken", 4403: "access was revoked", 4404: "there is no such page", 4408: "it was silent too long",
  4413: "the browser read too slowly", 4429: "too many connections or messages", 4503: "Redis or the database is away",
};
// What keeps news away from a connection that stands.
const AWAY = { redis: "Redis", subscription: "the news from Redis", sql: "the database" };
const INTERRUPTED = { redis: "Redis does not answer", subscription: "nothing is heard from Redis", sql: "the database does not answer" };
export const awayWords = (reason) => AWAY[reason] ?? "what the gateway needs";
export const interruptedBecause = (reason) => INTERRUPTED[reason] ?? "the gateway hears nothing new";
export const closedBecause = (code) => CLOSED[code] ?? `closed with code ${code}`;
