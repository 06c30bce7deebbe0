import {
  asResult,
  type CommandOptions,
  type Commands,
  type ScheduledCommand,
  type ScheduleOptions,
} from './commands.js';
import { asCommandError, type CommandError, errorFrom } from './errors.js';
import type { Feed, Watcher } from './feed.js';
import type { Http } from './http.js';
import type { Limit } from './limit.js';
import { Store } from './store.js';
import type { Action, CampaignNow, CommandResult, JobNow, Kind, Message } from './types.js';
import { updated } from './updated.js';

/** A job or a campaign as this page knows it. */
export interface ResourceState<T> {
  /** The newest that is known; undefined until it has been read. */
  data: T | undefined;
  /** Only `live` is true now. `stale`: the connection is lost or interrupted, and `data` is from before. `missing`: there is no such thing. */
  status: 'loading' | 'live' | 'stale' | 'missing' | 'failed';
  error?: CommandError;
}

const MOST_WAITING = 1_000;

const READ_AGAIN = 3_000;
/** Answers that another try does not change. */
const SETTLED = ['not_found', 'permission_denied', 'forbidden', 'unauthorized'];

export interface Parts {
  http: Http;
  /** A page of a thousand components reads them a few at a time. */
  reads: Limit;
  feed: Feed;
  commands: Commands;
  withdraw(scheduleId: string): Promise<void>;
}

/** One job or campaign. Watched by many, it is read and followed once. */
export class Resource<T extends JobNow | CampaignNow = JobNow> implements Watcher {
  readonly #store = new Store<ResourceState<T>>({ data: undefined, status: 'loading' });
  readonly #readers = new Set<(message: Message) => void>();
  #followers = 0;
  #unwatch: (() => void) | undefined;
  #reading = 0;
  #early: Message[] | undefined;

  readonly kind: Kind;
  readonly id: string;
  readonly #parts: Parts;

  constructor(kind: Kind, id: string, parts: Parts) {
    this.kind = kind;
    this.id = id;
    this.#parts = parts;
  }

  /** What is known; undefined data until somebody subscribes or `load()` is called. */
  readonly get = (): ResourceState<T> => this.#store.get();

  /** Follows it; `listener` is called after each change. Gives the function that ends this. */
  readonly subscribe = (listener: (state: ResourceState<T>) => void): (() => void) => {
    const unlisten = this.#store.subscribe(() => listener(this.get()));
    const unfollow = this.#follow();
    return () => {
      unlisten();
      unfollow();
    };
  };

  /** Reads it once. Throws `CommandError`. */
  load(signal?: AbortSignal): Promise<T> {
    return this.#parts.http.json<T>(`/api/v1/${this.kind}s/${encodeURIComponent(this.id)}`, { signal });
  }

  /** Every message about it, beginning with a snapshot; again a snapshot after each lost connection. */
  async *messages(signal?: AbortSignal): AsyncGenerator<Message, void> {
    let waiting: Message[] = [];
    let wake = () => {};
    const read = (message: Message) => {
      // A reader that does not keep up misses progress first.
      if (waiting.length >= MOST_WAITING) waiting = waiting.filter(({ type }) => !type.endsWith('_progress'));
      waiting.push(message);
      wake();
    };
    const stop = () => wake();
    this.#readers.add(read);
    signal?.addEventListener('abort', stop);
    const { data, status } = this.get();
    if (data && status === 'live') read(this.#snapshot(data));
    const unfollow = this.#follow();
    try {
      while (!signal?.aborted) {
        const message = waiting.shift();
        if (message) yield message;
        else
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
      }
    } finally {
      unfollow();
      signal?.removeEventListener('abort', stop);
      this.#readers.delete(read);
    }
  }

  /** Settles when it has really been paused. Throws `CommandError`. */
  pause(options?: CommandOptions): Promise<CommandResult>;
  pause(options: ScheduleOptions): Promise<ScheduledCommand>;
  pause(options: ScheduleOptions = {}): Promise<CommandResult | ScheduledCommand> {
    return this.#run('pause', options);
  }

  /** Settles when it goes on. Throws `CommandError`. */
  resume(options?: CommandOptions): Promise<CommandResult>;
  resume(options: ScheduleOptions): Promise<ScheduledCommand>;
  resume(options: ScheduleOptions = {}): Promise<CommandResult | ScheduledCommand> {
    return this.#run('resume', options);
  }

  /** Settles when nothing of it runs any more. With `in` or `at`: when it has been scheduled. Throws `CommandError`. */
  cancel(options?: CommandOptions): Promise<CommandResult>;
  cancel(options: ScheduleOptions): Promise<ScheduledCommand>;
  cancel(options: ScheduleOptions = {}): Promise<CommandResult | ScheduledCommand> {
    return this.#run('cancel', options);
  }

  async #run(action: Action, options: ScheduleOptions): Promise<CommandResult | ScheduledCommand> {
    const answer = await this.#parts.commands.run(this.kind, this.id, action, options);
    const { schedule_id: id, run_at } = answer;
    if (id === undefined) return asResult(answer);
    return { id, runAt: new Date(run_at as string), withdraw: () => this.#parts.withdraw(id) };
  }

  #follow(): () => void {
    this.#followers += 1;
    this.#unwatch ??= this.#parts.feed.watch(this.kind, this.id, this);
    let following = true;
    return () => {
      if (following) this.#followers -= 1;
      following = false;
      if (this.#followers > 0) return;
      this.#unwatch?.();
      this.#unwatch = undefined;
      this.lost();
    };
  }

  // What the feed tells (Watcher).

  covered(sent = false): void {
    this.#reading += 1;
    const reading = this.#reading;
    this.#early = [];
    if (sent) return;
    this.#parts.reads
      .run(() => this.load())
      .then(
        (data) => reading === this.#reading && this.#begin(data),
        (error: unknown) => {
          if (reading !== this.#reading) return;
          const known = asCommandError(error);
          this.#fail(known);
          if (SETTLED.includes(known.code)) return;
          setTimeout(() => reading === this.#reading && this.covered(), READ_AGAIN * (0.5 + Math.random()));
        },
      );
  }

  /** This is how it is; what has come meanwhile may be newer. */
  #begin(data: T): void {
    this.#reading += 1;
    const early = this.#early ?? [];
    this.#early = undefined;
    this.#store.set({ data, status: 'live' });
    this.#tell(this.#snapshot(data));
    for (const message of early) this.message(message);
  }

  #fail(error: CommandError): void {
    this.#early = undefined;
    const status = error.code === 'not_found' ? 'missing' : 'failed';
    this.#store.set({ data: this.get().data, status, error });
  }

  lost(): void {
    this.#reading += 1;
    this.#early = undefined;
    const { data } = this.get();
    this.#store.set({ data, status: data ? 'stale' : 'loading' });
  }

  message(message: Message): void {
    const what = message.type.slice(this.kind.length + 1);
    if (what === 'snapshot') {
      const { type: _, ...data } = message;
      // One that comes for another component's sake says nothing new.
      if (this.#early) this.#begin(data as unknown as T);
      return;
    }
    if (message.type === 'error') return this.#fail(errorFrom(message));
    if (this.#early) return void this.#early.push(message);
    const { data, status } = this.get();
    // It is there now.
    if (status === 'missing') this.covered();
    if (!data || status !== 'live') return;
    if (what === 'status' || what === 'progress') {
      const next = updated(data, message);
      if (!next) return;
      this.#store.set({ data: next, status });
    }
    this.#tell(message);
  }

  #snapshot(data: T): Message {
    return { type: `${this.kind}_snapshot`, ...data } as unknown as Message;
  }

  #tell(message: Message): void {
    for (const read of [...this.#readers]) read(message);
  }
}
