import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import type { AttachMessage, Client, ExpectedMessage, ExpectMessage, Server } from '../generated/worker.js';
import { Backoff } from '../shared/backoff.js';
import { openLink } from './builtin-link.js';
import { clockThatGoesOn } from './clock.js';
import { Refused } from './errors.js';
import type { Link, LinkEnd, OpenLink } from './link.js';
import { type Carrier, Run } from './run.js';
import { authorities, currentToken, endpoint, type WorkerSettings } from './settings.js';
import { Signal } from './signal.js';
import { isTooDeep, toText } from './text.js';
import { Watchdog } from './watchdog.js';
import { linkFrom, type WsConstructor } from './ws-link.js';

const SOFTWARE = `wheelhouse-client/0.1.0 node/${process.versions.node}`;
const SUBPROTOCOL = 'wheelhouse-worker.1';
const MOST_BETWEEN_TRIES = 5_000;

export interface SessionOptions extends WorkerSettings {
  /** The class `WebSocket` of the package `ws`; without it a built-in client is used. */
  WebSocket?: WsConstructor;
  /**
   * What happens to a job that does not end within the worker's grace after a cancel. `refuse` (the default): the command is
   * answered as failed, with words. `exit`: this process kills itself, with all the jobs in it, also when a job blocks its
   * event loop for so long that others may get the jobs; for processes that run one job and that somebody starts again.
   */
  onKill?: 'refuse' | 'exit';
  /** Is told, as a sentence, of what an operator should know. Default: `process.emitWarning`. */
  onWarning?: (message: string) => void;
}

interface Expectation {
  message: ExpectMessage;
  answer: Signal<ExpectedMessage>;
  /** Until it is answered the process does not end by itself. */
  keepsAlive: boolean;
}

/** While so many bytes wait for the worker, lines of output wait, too: orders and ends are not to wait behind them. */
const MOST_BACKLOG_BYTES = 256 * 1024;

/** How long a program that ends right after publishing waits for Wheelhouse to hear of it. */
const LINGER_MILLISECONDS = 3_000;

/**
 * This process's connection to the worker, and all its jobs. There is one socket, opened when the first job comes; it comes
 * back by itself when it is lost, and then says what has become of each job.
 */
export class Session implements Carrier {
  readonly id = randomUUID();
  readonly #options: SessionOptions;
  readonly #open: OpenLink;
  readonly #url: URL;
  readonly #runs = new Map<number, Run>();
  readonly #expectations = new Map<number, Expectation>();
  readonly #backoff = new Backoff(250, MOST_BETWEEN_TRIES);
  readonly #warned = new Map<string, number>();
  #lastRef = 0;
  #link: Link | undefined;
  #welcomed = false;
  #connection = 0;
  #heardAt = Number.NEGATIVE_INFINITY;
  #reattach = 10_000;
  #maxFrame = 256 * 1024;
  #pings: NodeJS.Timeout | undefined;
  #retry: NodeJS.Timeout | undefined;
  #connecting = false;
  #closed: Signal<void> | undefined;
  #watchdog: Watchdog | undefined;
  takesLines = true;

  /** Throws an `Error` if the address is missing or wrong. Connects only when there is something to do. */
  constructor(options: SessionOptions = {}) {
    this.#options = options;
    this.#url = endpoint(options.url);
    this.#open = options.WebSocket ? linkFrom(options.WebSocket) : openLink;
  }

  /** Puts a job under control. Its work does not begin before `run.attached` has settled. */
  attach(description: Omit<AttachMessage, 'type' | 'ref' | 'run'>): Run {
    this.#refuseIfClosed();
    const run = new Run({ type: 'attach', ref: this.#nextRef(), ...withoutUndefined(description) }, this);
    this.#runs.set(run.ref, run);
    if (this.#options.onKill === 'exit') this.#watchdog ??= new Watchdog();
    if (this.#welcomed) this.#safely(() => run.connected(), run);
    this.#settle();
    return run;
  }

  /**
   * Says that a job has been published and not begun: it can be seen, paused and cancelled. Rejects with `Refused`. With
   * `linger` the process waits for the answer for three seconds at most before it ends.
   */
  expect(description: Omit<ExpectMessage, 'type' | 'ref'>, linger = false): Promise<ExpectedMessage> {
    this.#refuseIfClosed();
    const message: ExpectMessage = { type: 'expect', ref: this.#nextRef(), ...withoutUndefined(description) };
    const answer = new Signal<ExpectedMessage>();
    const expectation = { message, answer, keepsAlive: true };
    this.#expectations.set(message.ref, expectation);
    if (linger) {
      const timer = setTimeout(() => {
        expectation.keepsAlive = false;
        this.#settle();
      }, LINGER_MILLISECONDS);
      timer.unref();
    }
    if (this.#welcomed) this.send(message);
    this.#settle();
    return answer.promise;
  }

  /** Says goodbye. Jobs that still run are handed back, and their work is told to end. */
  async close(): Promise<void> {
    if (this.#closed) return this.#closed.promise;
    this.#closed = new Signal<void>();
    this.#watchdog?.stop();
    clearTimeout(this.#retry);
    for (const run of [...this.#runs.values()]) run.lose('This process has closed its connection to Wheelhouse');
    for (const { answer } of this.#expectations.values()) answer.reject(new Error('The session was closed'));
    this.#expectations.clear();
    if (this.#link) {
      // Without jobs the connection keeps no process alive; its goodbye does.
      this.#link.keepAlive(true);
      this.#link.close(1000, '');
    } else {
      this.#closed.resolve();
    }
    return this.#closed.promise;
  }

  // What a run needs (Carrier).

  get connection(): number {
    return this.#connection;
  }

  get heardAt(): number {
    return this.#heardAt;
  }

  /** How long the worker keeps the runs of a process that it has lost, in milliseconds. */
  get reattach(): number {
    return this.#reattach;
  }

  get maxFrame(): number {
    return this.#maxFrame;
  }

  get isBacklogged(): boolean {
    return (this.#link?.backlog ?? 0) > MOST_BACKLOG_BYTES;
  }

  get holdAfter(): number {
    return (this.#reattach * 2) / 3;
  }

  readonly now = clockThatGoesOn();

  send(message: Client): void {
    this.#link?.send(this.textOf(message));
  }

  textOf(message: Client): string {
    const text = toText(message);
    const size = Buffer.byteLength(text);
    if (size > this.#maxFrame) {
      throw new RangeError(
        `A message of ${size} bytes (${message.type}) is too large: the worker takes ${this.#maxFrame}.`,
      );
    }
    if ((message.type === 'save' || message.type === 'end') && isTooDeep(text, 1)) {
      throw new RangeError(
        `A message (${message.type}) has more than 127 arrays and objects inside one another: the worker takes no more.`,
      );
    }
    return text;
  }

  forget(ref: number): void {
    this.#runs.delete(ref);
    this.#settle();
  }

  kill(): string {
    if (this.#options.onKill === 'exit') {
      this.#warn('A job did not end in time after it was cancelled: this process ends, as `onKill: "exit"` asks.');
      process.kill(process.pid, 'SIGKILL');
    }
    return (
      'The job has not come to a checkpoint in time, and a Node process cannot end one job alone. ' +
      'It ends at its next checkpoint.'
    );
  }

  // The connection.

  /** Connects if there is something to do, and keeps the process alive only then. */
  #settle(): void {
    const busy = this.#runs.size > 0 || this.#expectations.size > 0;
    this.#watchdog?.limit(this.#runs.size > 0 ? this.holdAfter : 0);
    this.#link?.keepAlive(this.#keepsAlive());
    if (this.#keepsAlive()) this.#retry?.ref();
    else this.#retry?.unref();
    if (!busy) {
      clearTimeout(this.#retry);
      this.#retry = undefined;
    } else if (!this.#link && !this.#retry && !this.#connecting && !this.#closed) {
      void this.#connect();
    }
  }

  #keepsAlive(): boolean {
    return this.#runs.size > 0 || [...this.#expectations.values()].some((expectation) => expectation.keepsAlive);
  }

  async #connect(): Promise<void> {
    this.#connecting = true;
    let token: string;
    let ca: Buffer | undefined;
    try {
      token = await currentToken(this.#options.token);
      ca = await authorities(this.#url, this.#options.caFile);
    } catch (error) {
      this.#connecting = false;
      this.#warn(error instanceof Error ? error.message : String(error));
      return this.#tryAgain(MOST_BETWEEN_TRIES);
    }
    this.#connecting = false;
    if (this.#closed) return;
    this.#connection += 1;
    const listener = {
      opened: () => this.#opened(),
      message: (text: string) => this.#message(text),
      heard: () => this.#heard(),
      closed: (end: LinkEnd) => this.#lostLink(end),
    };
    this.#link = this.#open(this.#url, [SUBPROTOCOL, `bearer.${token}`], listener, ca);
    this.#settle();
  }

  #opened(): void {
    this.#heardAt = this.now();
    const name = (this.#options.name ?? `node@${hostname()}`).slice(0, 255);
    this.send({ type: 'hello', v: 1, worker: name, session: this.id, software: SOFTWARE, pid: process.pid });
    this.#watch();
  }

  /** Asks for a sign of life five times in `reattach_seconds`, and gives the connection up when none came for all of it. */
  #watch(): void {
    clearInterval(this.#pings);
    this.#pings = setInterval(() => {
      if (this.now() - this.#heardAt > this.#reattach) this.#link?.terminate();
      else this.#link?.ping();
    }, this.#reattach / 5);
    this.#pings.unref();
  }

  #heard(): void {
    const silent = this.now() - this.#heardAt > this.holdAfter;
    this.#heardAt = this.now();
    if (silent) for (const run of this.#runs.values()) run.wake();
  }

  #message(text: string): void {
    let message: Server;
    try {
      message = JSON.parse(text) as Server;
    } catch {
      return this.#warn('The worker sent something that is no JSON.');
    }
    switch (message.type) {
      case 'welcome':
        this.#reattach = message.reattach_seconds * 1000;
        this.#maxFrame = message.max_frame;
        this.#settle();
        this.#welcomed = true;
        this.#watch();
        for (const run of this.#runs.values()) this.#safely(() => run.connected(), run);
        for (const expectation of this.#expectations.values()) this.send(expectation.message);
        break;
      case 'attached':
        this.#backoff.reset();
        this.#runs.get(message.ref)?.onAttached(message);
        break;
      case 'refused': {
        this.#backoff.reset();
        const expectation = this.#takeExpectation(message.ref);
        if (expectation) expectation.answer.reject(new Refused(message));
        else this.#runs.get(message.ref)?.onRefused(message);
        break;
      }
      case 'expected':
        this.#takeExpectation(message.ref)?.answer.resolve(message);
        break;
      case 'order':
        this.#runs.get(message.ref)?.onOrder(message);
        break;
      case 'saved':
        this.#runs.get(message.ref)?.onSaved(message.n);
        break;
      case 'ended':
        this.#runs.get(message.ref)?.onEnded(message.status);
        break;
      case 'lost':
        this.#runs.get(message.ref)?.lose(message.message);
        break;
      case 'error':
        this.#warn(`The worker could not use a message: ${message.error}: ${message.message}`);
        if (message.ref !== undefined) this.#runs.get(message.ref)?.onUnusable(message.message);
        break;
    }
  }

  #lostLink(end: LinkEnd): void {
    clearInterval(this.#pings);
    const welcomed = this.#welcomed;
    this.#link = undefined;
    this.#welcomed = false;
    for (const run of this.#runs.values()) run.disconnected();
    if (this.#closed) return this.#closed.resolve();
    if (end.code === 4403) {
      this.#warn('The token was revoked: the jobs of this process end, and none of them is confirmed any more.');
      for (const run of [...this.#runs.values()]) run.lose('The token of this process was revoked');
    }
    if (end.status === 401 || end.status === 403 || end.code === 4401) {
      this.#warn(`The worker at ${this.#url.host} does not take the token: ${end.reason}`);
    } else if (!welcomed && end.code !== 1012) {
      this.#warn(`The worker at ${this.#url.host} cannot be reached: ${end.reason}`);
    }
    if (end.code === 4400 && end.reason.includes('"log"')) {
      this.takesLines = false;
      this.#warn(`The worker at ${this.#url.host} is older than the message log: what jobs log is not kept.`);
    }
    // The worker that leaves has another one beside it: its jobs move at once.
    if (end.code === 1012) this.#tryAgain(0);
    else this.#tryAgain(Math.max(this.#backoff.next(), Math.min(60, end.retryAfter ?? 0) * 1000));
  }

  #tryAgain(milliseconds: number): void {
    if (this.#closed || (this.#runs.size === 0 && this.#expectations.size === 0)) return;
    this.#retry = setTimeout(() => {
      this.#retry = undefined;
      this.#settle();
    }, milliseconds);
    if (!this.#keepsAlive()) this.#retry.unref();
  }

  #safely(send: () => void, run: Run): void {
    try {
      send();
    } catch (error) {
      run.lose(error instanceof Error ? error.message : String(error));
    }
  }

  #takeExpectation(ref: number): Expectation | undefined {
    const expectation = this.#expectations.get(ref);
    this.#expectations.delete(ref);
    this.#settle();
    return expectation;
  }

  #nextRef(): number {
    this.#lastRef += 1;
    return this.#lastRef;
  }

  #refuseIfClosed(): void {
    if (this.#closed) throw new Error('This session was closed: take a new one.');
  }

  /** The same warning once a minute at most. */
  #warn(message: string): void {
    const now = this.now();
    if (now - (this.#warned.get(message) ?? Number.NEGATIVE_INFINITY) < 60_000) return;
    if (this.#warned.size > 100) this.#warned.clear();
    this.#warned.set(message, now);
    if (this.#options.onWarning) this.#options.onWarning(message);
    else process.emitWarning(message, 'WheelhouseWarning');
  }
}

function withoutUndefined<T extends object>(fields: T): T {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as T;
}

const SHARED = Symbol.for('wheelhouse-client.session');

/** The session that all jobs of this process share, made from the environment when it is first asked for. */
export function sharedSession(options: SessionOptions = {}): Session {
  const place = globalThis as { [SHARED]?: Session };
  place[SHARED] ??= new Session(options);
  return place[SHARED];
}
