import { Backoff } from '../shared/backoff.js';
import { Store } from './store.js';
import type { Tokens } from './tokens.js';
import type { Message } from './types.js';

/** Where a connection is. */
export interface ConnectionState {
  /**
   * `waiting`: it comes back by itself, at `retryAt`. `interrupted`: it stands, and nothing new may come through it, for what
   * `reason` names is away (`redis`, `subscription`, `sql`); it goes on by itself, and everything is read again. `closed`: it does
   * not come back, because it was closed or access was revoked.
   */
  status: 'idle' | 'connecting' | 'open' | 'interrupted' | 'waiting' | 'closed';
  /** The close code of the last socket. */
  code?: number;
  reason?: string;
  /** While it is interrupted: from then on news may be missing, as RFC 3339. */
  since?: string;
  /** In milliseconds since 1970. */
  retryAt?: number;
}

/** What is used of a WebSocket: a browser's, or that of the package `ws`. */
export type WebSocketClass = new (url: string, protocols: string[]) => WebSocketLike;
export interface WebSocketLike {
  readyState: number;
  send(text: string): void;
  close(code?: number, reason?: string): void;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
}

export interface ConnectionOptions {
  /** The socket's address, `ws://…` or `wss://…`. */
  url: string;
  WebSocket: WebSocketClass;
  tokens: Tokens;
  parse(text: string): unknown;
  opened?(): void;
  message(message: Message): void;
  /** Nothing of what is shown is certain any more. */
  lost?(): void;
  /** It does not come back. */
  ended?(state: ConnectionState): void;
}

const BURST = 30;
const PER_SECOND = 15;
const SILENCE = 25_000;
const ANSWER = 10_000;
const LINGER = 5_000;
/** Close codes from 4400 on that are no verdict on the token. */
const TRANSIENT = [4401, 4408, 4413, 4429];

/** One WebSocket that comes back by itself, for as long as somebody holds it. */
export class Connection {
  readonly state = new Store<ConnectionState>({ status: 'idle' });
  /** Messages can be sent, whether or not news come. */
  isUp = false;
  readonly #backoff = new Backoff(500, 30_000);
  #holders = 0;
  #socket: WebSocketLike | undefined;
  #token: string | undefined;
  #refused: string | undefined;
  #attempt = 0;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #linger: ReturnType<typeof setTimeout> | undefined;
  #watch: ReturnType<typeof setTimeout> | undefined;
  #pace: ReturnType<typeof setTimeout> | undefined;
  #queue: string[] = [];
  #allowance = BURST;
  #allowanceAt = 0;

  readonly #options: ConnectionOptions;

  constructor(options: ConnectionOptions) {
    this.#options = options;
  }

  /** Keeps the connection up until the function that this gives is called. */
  hold(): () => void {
    this.#holders += 1;
    clearTimeout(this.#linger);
    if (this.state.get().status === 'idle') {
      this.#listen('addEventListener');
      void this.#connect();
    }
    let held = true;
    return () => {
      if (held) this.#holders -= 1;
      held = false;
      if (this.#holders === 0) this.#linger = later(() => this.#leave({ status: 'idle' }), LINGER);
    };
  }

  /**
   * Sends as soon as the connection is open, at the pace that the service allows. What waits when it is lost is not sent
   * again.
   */
  send(message: object | string): void {
    if (this.state.get().status === 'closed') return;
    this.#queue.push(typeof message === 'string' ? message : JSON.stringify(message));
    this.#flush();
  }

  /** Closes for good. */
  close(): void {
    this.#end({ status: 'closed', code: 1000 });
  }

  async #connect(): Promise<void> {
    this.#attempt += 1;
    const attempt = this.#attempt;
    clearTimeout(this.#retry);
    this.state.set({ ...this.state.get(), status: 'connecting' });
    try {
      this.#token = await this.#options.tokens.get(this.#refused);
    } catch (error) {
      if (attempt === this.#attempt) this.#tryAgain({ code: 1006, reason: String(error) });
      return;
    }
    if (attempt !== this.#attempt) return;
    let socket: WebSocketLike;
    try {
      socket = new this.#options.WebSocket(this.#options.url, ['wheelhouse', `bearer.${this.#token}`]);
    } catch (error) {
      // A token that is none has characters that no header takes.
      this.#refused = this.#token;
      return this.#tryAgain({ code: 1006, reason: String(error) });
    }
    this.#socket = socket;
    socket.onopen = () => this.#socket === socket && this.#heard();
    socket.onmessage = ({ data }: { data: unknown }) => {
      if (this.#socket !== socket) return;
      this.#heard();
      // What is refused opens, too, and closes with the reason; only who is let in hears something.
      if (!this.isUp) {
        this.#backoff.reset();
        this.#refused = undefined;
        this.#opened();
      }
      const message = this.#options.parse(String(data)) as Message;
      if (message.type === 'token_expiring') void this.#renew(socket);
      else if (message.type === 'feed_interrupted') {
        // The socket stands, and news do not come: nothing that is shown may look live meanwhile.
        const { reason, since } = message as unknown as { reason: string; since: string };
        this.state.set({ status: 'interrupted', reason, since });
        this.#options.lost?.();
      } else if (message.type === 'feed_resumed') this.#opened();
      if (message.type !== 'pong') this.#options.message(message);
    };
    socket.onerror = () => {};
    socket.onclose = ({ code, reason }: { code: number; reason: unknown }) => {
      if (this.#socket === socket) this.#lost(code, String(reason ?? ''));
    };
  }

  #opened(): void {
    this.isUp = true;
    this.state.set({ status: 'open' });
    this.#options.opened?.();
    this.#flush();
  }

  /** Before its token ends the socket gets a newer one: it goes on without a break. Without one it is closed in time. */
  async #renew(socket: WebSocketLike): Promise<void> {
    const token = await this.#options.tokens.get(this.#token, true).catch(() => this.#token);
    if (this.#socket !== socket || token === this.#token) return;
    this.#token = token;
    this.send({ type: 'refresh_token', token });
  }

  #lost(code: number, reason: string): void {
    this.#forget();
    if (code === 4401) this.#refused = this.#token;
    if (code >= 4400 && code < 4500 && !TRANSIENT.includes(code)) return this.#end({ status: 'closed', code, reason });
    // A gateway that leaves says when to come back, so that not all come at once.
    const told = code === 1012 ? /(\d+) ms/.exec(reason)?.[1] : undefined;
    this.#tryAgain({ code, reason }, told ? Number(told) : undefined);
  }

  #tryAgain(why: { code: number; reason: string }, wait = this.#backoff.next()): void {
    if (this.#holders === 0) return this.#leave({ status: 'idle' });
    this.state.set({ status: 'waiting', ...why, retryAt: Date.now() + wait });
    this.#retry = later(() => void this.#connect(), wait);
  }

  #end(state: ConnectionState): void {
    if (this.state.get().status === 'closed') return;
    this.#leave(state);
    this.#options.ended?.(state);
  }

  #listen(how: 'addEventListener' | 'removeEventListener'): void {
    globalThis[how]?.('online', this.#awake);
    globalThis[how]?.('offline', this.#offline);
    globalThis.document?.[how]('visibilitychange', this.#awake);
  }

  /** Closes the socket, and comes to rest in a state. */
  #leave(state: ConnectionState): void {
    this.#listen('removeEventListener');
    this.#attempt += 1;
    clearTimeout(this.#retry);
    clearTimeout(this.#linger);
    const socket = this.#socket;
    this.#forget();
    socket?.close(1000);
    this.state.set(state);
  }

  #forget(): void {
    clearTimeout(this.#watch);
    clearTimeout(this.#pace);
    this.#pace = undefined;
    this.#queue = [];
    this.isUp = false;
    if (this.#socket) {
      this.#socket = undefined;
      this.#options.lost?.();
    }
  }

  /** Asks after a long silence, and gives the connection up if there is no answer: its other end may be long gone. */
  #heard(): void {
    clearTimeout(this.#watch);
    this.#watch = later(() => this.#ask(), SILENCE);
  }

  #ask(): void {
    clearTimeout(this.#watch);
    this.send({ type: 'ping' });
    this.#watch = later(() => this.#drop('no answer'), ANSWER);
  }

  /** The computer woke up, or is online again: do not sit out a wait, and do not trust a socket from before. */
  readonly #awake = (): void => {
    if (globalThis.document?.visibilityState === 'hidden') return;
    const { status } = this.state.get();
    if (status === 'waiting') void this.#connect();
    else if (this.isUp) this.#ask();
  };

  /** Nothing comes any more: what is shown must not look live until a socket has long been silent. */
  readonly #offline = (): void => this.#drop('offline');

  #drop(reason: string): void {
    const socket = this.#socket;
    if (!socket) return;
    this.#lost(1006, reason);
    socket.close();
  }

  #flush(): void {
    if (!this.isUp || this.#pace !== undefined) return;
    const now = Date.now();
    this.#allowance = Math.min(BURST, this.#allowance + ((now - this.#allowanceAt) / 1000) * PER_SECOND);
    this.#allowanceAt = now;
    while (this.#queue.length > 0 && this.#allowance >= 1) {
      this.#allowance -= 1;
      this.#socket?.send(this.#queue.shift() as string);
    }
    if (this.#queue.length === 0) return;
    this.#pace = later(() => {
      this.#pace = undefined;
      this.#flush();
    }, 1000 / PER_SECOND);
  }
}

/** A timer that keeps no Node process alive. */
function later(what: () => void, milliseconds: number): ReturnType<typeof setTimeout> {
  const timer = setTimeout(what, milliseconds);
  (timer as { unref?(): void }).unref?.();
  return timer;
}
