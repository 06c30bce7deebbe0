// The header: how the connection is, who is signed in, whether there is a worker, what is left of the budget.

import { commands } from "./commands.js";
import { byId, say, setAttribute, setText } from "./dom.js";
import { live } from "./live.js";
import { oidc } from "./oidc.js";
import { session } from "./session.js";
import { NO_WORKER, WORKER_BACK, clock, closedBecause, duration, interruptedBecause, limited } from "./messages.js";

export const EXPIRES_SOON = 5 * 60_000;

let said = "";
let hadWorkers = null;
let liveUntil = null;
// A connection that is back at once is not worth a line that moves everything below it.
const NOTICED = 1_000;

export function describeConnection(signsIn) {
  const [state, text] = connection(signsIn);
  const node = byId("connection");
  setAttribute(node, "data-state", state);
  setText(node, text);
  if (state !== said && said !== "" && (state === "offline" || (state === "live" && said === "offline"))) {
    say(state === "live" ? "Live again" : text, state !== "live");
  }
  if (state === "live" || state === "offline") said = state;
  describeStale(state);
  describeWorkers();
}

// Over every page while nothing of it is live: since when, and what becomes of its buttons.
function describeStale(state) {
  if (state === "live") liveUntil = Date.now();
  const { away } = live;
  const isStale = liveUntil === null || away !== null ? state === "offline" : state !== "live" && Date.now() - liveUntil >= NOTICED;
  const then = `As it was at ${clock(new Date(live.state.since ?? liveUntil))}`;
  const since = away !== null ? `${then}: since then news may be missing, because ${interruptedBecause(live.state.reason)}. Buttons wait`
    : liveUntil === null ? "There is no connection: what is shown here may be old. Buttons wait for it"
      : `${then}, when the connection was lost. Buttons wait for it`;
  setAttribute(byId("stale"), "hidden", !isStale);
  setText(byId("stale"), isStale ? `${since}: nothing is sent until ${away === null ? "it is back" : "all is live again"}.` : "");
}

function connection(signsIn) {
  if (signsIn) return ["out", "Signed out"];
  const { status, code, reason, retryAt } = live.state;
  if (status === "open") return live.covered ? ["live", "Live"] : ["starting", "Connecting…"];
  if (status === "interrupted") return ["offline", `Not live: ${interruptedBecause(reason)}`];
  if (status === "waiting") {
    const seconds = Math.max(0, Math.ceil((retryAt - Date.now()) / 1_000));
    const why = code === undefined ? "no connection" : closedBecause(code);
    return ["offline", `Not live, ${why}: ${seconds > 0 ? `trying again in ${seconds} s` : "trying again…"}`];
  }
  if (status === "closed") return ["offline", `Not live: ${closedBecause(live.state.code)}`];
  return code === undefined ? ["starting", "Connecting…"] : ["offline", "Not live: trying again…"];
}

function describeWorkers() {
  const { workers } = live;
  setText(byId("workers"), workers === 0 ? NO_WORKER : "");
  setAttribute(byId("workers"), "hidden", workers !== 0);
  if (workers === null || workers === hadWorkers) return;
  if (workers === 0) say(NO_WORKER, true);
  else if (hadWorkers === 0) say(WORKER_BACK);
  hadWorkers = workers;
}

export function describeWho() {
  const { me } = session;
  // What is renewed without a question ends for nobody.
  const left = oidc.canRenew(session.token) ? Infinity : session.expiresIn();
  let text = me ? `${me.user_id} in ${me.tenant_id}` : "";
  if (me && left < EXPIRES_SOON) text += left > 0 ? `, token ends in ${duration(left)}` : ", token has expired";
  setText(byId("who"), text);
  const renew = Boolean(me) && session.usable && left < EXPIRES_SOON;
  setText(byId("sign-out"), renew ? "New token" : "Sign out");
  setAttribute(byId("sign-out"), "data-renew", renew);
  setAttribute(byId("sign-out"), "hidden", !session.token);
}

export function describeLimit() {
  const seconds = commands.secondsLimited();
  setText(byId("limit"), seconds > 0 ? limited(commands.limitMessage, seconds) : "");
  setAttribute(byId("limit"), "hidden", seconds === 0);
}
