// One WebSocket on one job or campaign: connects, keeps itself alive, and comes back after a break.

import { parse } from "./json.js";
import { session } from "./session.js";

const CONNECT_TIMEOUT = 10_000;
// A browser does not show a page the pings of the server, so silence is broken by asking.
const SILENCE = 25_000;
const ANSWER_WITHIN = 10_000;
const FIRST_WAIT = 500;
const LONGEST_WAIT = 30_000;

// The wait before try number `tries`, spread out so that a hundred consoles do not come back in step.
export const backoff = (tries, random = Math.random()) =>
  Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** Math.min(tries, 10)) * (0.5 + random / 2);

// The wait after a close. 1012 carries its own: the gateway spreads its clients over the time of its drain.
export function waitAfter(code, reason, tries, random = Math.random()) {
  const asked = code === 1012 ? Number.parseInt(/\d+/.exec(reason ?? "")?.[0] ?? "", 10) : NaN;
  return Number.isNaN(asked) ? backoff(tries, random) : Math.min(asked, LONGEST_WAIT) + random * 100;
}

// CONTRACT: 44xx other than these three are final for this token.
export const isTerminal = (code) => code >= 4400 && code < 4500 && ![4408, 4413, 4429].includes(code);

export class ResourceSocket {
  // `on`: open(), message(value), down(code, reason, waitMs, opened), terminal(code)
  constructor(item, on) {
    this.item = item;
    this.on = on;
    this.state = "idle";
    this.tries = 0;
    this.socket = null;
    this.timer = null;
    this.retryAt = 0;
  }

  connect() {
    if (this.state === "connecting" || this.state === "open" || this.state === "closed") return;
    clearTimeout(this.timer);
    this.state = "connecting";
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const path = `/api/v1/realtime/ws/${this.item.kind}s/${encodeURIComponent(this.item.id)}`;
    let socket;
    try {
      // As a protocol the token stands in no address, and so in no log of a proxy.
      socket = new WebSocket(`${scheme}//${location.host}${path}`, ["wheelhouse", `bearer.${session.token}`]);
    } catch {
      // A token with characters that cannot stand there is no token.
      this.state = "closed";
      this.on.terminal(4401);
      return;
    }
    this.socket = socket;
    let opened = false;
    this.timer = setTimeout(() => this.drop(1006), CONNECT_TIMEOUT);
    socket.onopen = () => {
      if (this.socket !== socket) return;
      clearTimeout(this.timer);
      this.heard();
    };
    socket.onmessage = (event) => {
      if (this.socket !== socket) return;
      this.heard();
      let message;
      try {
        message = parse(event.data);
      } catch {
        return;
      }
      if (typeof message?.type !== "string") return;
      if (message.type === "subscribed") {
        opened = true;
        this.state = "open";
        this.tries = 0;
        this.on.open();
      }
      this.on.message(message);
    };
    socket.onclose = (event) => {
      if (this.socket === socket) this.lost(event.code, event.reason, opened);
    };
  }

  // Closes a socket that does not answer; its own close event may be long in coming.
  drop(code) {
    const { socket, state } = this;
    if (!socket) return;
    this.socket = null;
    socket.close();
    this.lost(code, "", state === "open");
  }

  lost(code, reason, opened) {
    clearTimeout(this.timer);
    this.socket = null;
    if (this.state === "closed") return;
    if (isTerminal(code)) {
      this.state = "closed";
      this.on.terminal(code);
      return;
    }
    this.state = "waiting";
    const wait = waitAfter(code, reason, this.tries);
    this.tries += 1;
    this.retryAt = Date.now() + wait;
    // The pool says when: it lets only a few connect at once.
    this.on.down(code, reason, wait, opened);
  }

  heard() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.send({ type: "ping" });
      this.timer = setTimeout(() => this.drop(4408), ANSWER_WITHIN);
    }, SILENCE);
  }

  // False where it could not be sent.
  send(message) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(message));
    return true;
  }

  close() {
    this.state = "closed";
    clearTimeout(this.timer);
    const { socket } = this;
    this.socket = null;
    socket?.close(1000);
  }
}
