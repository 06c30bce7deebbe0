// Commands that were accepted and have no result yet, whoever sent them: without it an operator would see "Running" where a
// colleague's pause waits for a worker. Messages tell only of what becomes of commands, so this asks.

import { live } from "./live.js";
import { session } from "./session.js";
import { waitsWords } from "./messages.js";

const EVERY = 10_000;
// Without a worker all of them wait, and for long.
const EVERY_WITHOUT_WORKER = 3_000;
const SOON = 1_000;
// Most are over before they have been worth a word.
const WORTH_A_WORD = 2_000;

const idOf = (command) => command.job_id ?? command.campaign_id;

class Waiting {
  constructor() {
    this.commands = [];
    // More wait than were told.
    this.more = false;
    this.seen = new Map();
    this.readAt = 0;
    live.watch({
      covered: () => this.soon(0),
      looked: () => this.soon(0),
      lost: () => this.set([], false),
      message: (message) => this.message(message),
    });
    setInterval(() => {
      const every = live.workers === 0 ? EVERY_WITHOUT_WORKER : EVERY;
      if (!document.hidden && Date.now() - this.readAt >= every) this.load();
    }, 1_000);
  }

  message({ type, command_id: id }) {
    if (/_(succeeded|failed)$/.test(type)) this.ended(id);
    else if (/_(requested|completed)$|^workers_online$/.test(type)) this.soon(SOON);
  }

  ended(id) {
    if (this.commands.some((command) => command.command_id === id)) {
      this.set(this.commands.filter((command) => command.command_id !== id), this.more);
    }
  }

  soon(wait) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.load(), wait);
  }

  async load() {
    if (!live.isOpen || this.isReading) return;
    this.isReading = true;
    this.readAt = Date.now();
    const { wh } = live;
    try {
      const { waiting, more } = await live.ask("/api/v1/queue/waiting");
      if (wh === live.wh && live.isOpen) this.set(waiting, more);
    } catch { /* who may not read any of it, and a gateway that is away: the next look finds out */ } finally {
      this.isReading = false;
    }
  }

  set(commands, more) {
    const told = commands.map((command) => command.command_id + command.state).join();
    const now = Date.now();
    this.seen = new Map(commands.map(({ command_id: id }) => [id, this.seen.get(id) ?? now]));
    const isSame = told === this.told && more === this.more;
    [this.commands, this.more, this.told] = [commands, more, told];
    // What has just come is worth a word if it is still there in a moment.
    if (commands.some(({ command_id: id }) => now - this.seen.get(id) < WORTH_A_WORD)) this.soon(WORTH_A_WORD);
    if (!isSame || commands.length > 0) live.tell("waiting");
  }

  // Those that somebody would ask about.
  get list() {
    return this.commands.filter(({ command_id: id }) => live.workers === 0 || Date.now() - this.seen.get(id) >= WORTH_A_WORD);
  }

  words(command) {
    return waitsWords(command, session.me?.user_id, live.workers);
  }

  // Of one job or campaign, in words; null where nothing waits.
  of(kind, id) {
    const found = this.list.find((command) => idOf(command) === id && (kind === "job") === (command.job_id !== undefined));
    return found ? this.words(found) : null;
  }
}

export const waiting = new Waiting();
