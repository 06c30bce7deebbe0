// What a job prints, as it comes: each line with its time, stdout and stderr apart. It follows the end until somebody
// scrolls up, and holds as many lines as the gateway keeps.

import { el, setAttribute, setText } from "./dom.js";
import { live } from "./live.js";
import { clock, count, moment } from "./messages.js";

// As many as the gateway keeps of a job.
const MOST = 1_000;
// Nearer to the end than this is at the end: half a line of rounding must not stop it from following.
const NEAR = 24;
const STREAMS = { stderr: "error output", note: "from Wheelhouse" };

export class Output {
  constructor(id) {
    this.nodes = new Map();
    this.follows = true;
    this.hasGone = false;
    // Not announced line by line: nobody can listen to a program. The job's state is announced elsewhere.
    this.log = el("div", { class: "output", role: "log", "aria-live": "off", tabindex: "0", "aria-label": "Output",
      onscroll: () => this.scrolled() });
    this.note = el("span", { class: "count" });
    this.end = el("button", { type: "button", class: "plain", hidden: true, onclick: () => this.follow() }, "Follow the end");
    this.node = el("section", { hidden: true }, el("div", { class: "section-head" }, el("h3", {}, "Output"), this.note, this.end), this.log);
    // A socket of its own: the tenant's does not carry what programs print. After each lost connection it begins with the
    // first line that is kept, so that nothing is missing; what is there already stays as it is.
    this.socket = live.wh.socket(`jobs/${encodeURIComponent(id)}?output=true`);
    this.ends = [
      this.socket.subscribe((message) => message.type === "job_output" && this.show(message)),
      this.socket.state.subscribe(() => this.describe()),
    ];
  }

  close() {
    this.ends.forEach((end) => end());
    this.socket.close();
  }

  // For the page, which tells its parts of messages and connections: the lines come by themselves.
  load() {}
  message() {}

  show({ lines, left_out: gone = 0 }) {
    this.hasGone ||= gone > 0;
    const added = document.createDocumentFragment();
    for (const line of lines) {
      const known = this.nodes.get(line.line);
      // An open line comes again as it has become: a program that counts up in place.
      if (known) setText(known.lastChild, line.text);
      else added.append(this.make(line));
    }
    setAttribute(this.node, "hidden", false);
    this.log.append(added);
    for (const [number, node] of this.nodes) {
      if (this.nodes.size <= MOST) break;
      // Whoever reads further up keeps what is before their eyes: the browser holds the place when lines above it go.
      node.remove();
      this.nodes.delete(number);
      this.hasGone = true;
    }
    if (this.follows) this.log.scrollTop = this.log.scrollHeight;
    this.describe();
  }

  make({ line, at, stream, text }) {
    const node = el("div", { "data-stream": stream }, el("time", { datetime: at, title: moment(at) }, clock(new Date(at))),
      STREAMS[stream] ? el("span", { class: "unseen" }, `${STREAMS[stream]}: `) : "", el("span", { class: "text" }, text));
    this.nodes.set(line, node);
    return node;
  }

  scrolled() {
    this.follows = this.log.scrollTop + this.log.clientHeight >= this.log.scrollHeight - NEAR;
    this.describe();
  }

  follow() {
    this.follows = true;
    this.log.scrollTop = this.log.scrollHeight;
    this.log.focus({ preventScroll: true });
    this.describe();
  }

  describe() {
    const { status } = this.socket.state.get();
    const isLive = status === "open";
    setAttribute(this.log, "data-stale", !isLive);
    setAttribute(this.end, "hidden", this.follows);
    const { size } = this.nodes;
    const words = [this.hasGone ? `the last ${count(size)} lines` : size === 1 ? "1 line" : `${count(size)} lines`];
    if (!isLive) words.push(`as of before ${status === "interrupted" ? "news stopped coming" : "the connection was lost"}`);
    setText(this.note, words.join(", "));
  }
}
