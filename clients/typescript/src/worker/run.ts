import type {
  AttachedMessage,
  AttachMessage,
  Client,
  OrderMessage,
  RefusedMessage,
  SaveMessage,
  Status,
} from '../generated/worker.js';
import { Cancelled, HandedBack, Lost, Refused, type Stopped, TimedOut } from './errors.js';
import { Output, type OutputStream } from './output.js';
import { ProgressFold } from './progress.js';
import { Signal } from './signal.js';
import { moment } from './text.js';

/** What a run needs of the connection that carries it. */
export interface Carrier {
  /** Sends if there is a connection; what matters is sent again after a new `attached`. Throws `RangeError` if too large. */
  send(message: Client): void;
  /** A message as it is sent. Throws as `send` does, and what the JSON writer throws. */
  textOf(message: Client): string;
  /** Changes with every connection. */
  readonly connection: number;
  /** When the worker was last heard on the present connection, as `carrier.now()` counts. */
  readonly heardAt: number;
  /** After how many milliseconds without the worker work is held. */
  readonly holdAfter: number;
  /** How many bytes the worker takes in one message. */
  readonly maxFrame: number;
  /** Whether the worker knows the message `log`: one of before it does not. */
  readonly takesLines: boolean;
  /** So much waits to be taken by the worker that nothing which may be left out is added. */
  readonly isBacklogged: boolean;
  now(): number;
  /** The run is over; nothing is sent for it any more. */
  forget(ref: number): void;
  /** Ends this process hard, or says why not. */
  kill(): string;
}

/** How the work of a run has ended, as the client sees it. */
export type Ending =
  | { how: 'completed'; result: unknown }
  | { how: 'failed'; error: string; permanent: boolean }
  | { how: 'cancelled' }
  /** With `error` this try has failed, and the queue of the work tries again. */
  | { how: 'handed_back'; runAfter?: Date; error?: string };

/**
 * One attempt of a job in this process: what the worker wants of it, whether that has been reached, and what is still to be
 * confirmed. It outlives connections. It knows nothing of the code that does the work.
 */
export class Run {
  /** Settles with the answer to the attach; rejects with `Refused` or `Lost`. */
  readonly attached: Promise<AttachedMessage>;
  /** Settles when the end of the run is recorded, with the row's status; rejects with `Lost`. */
  readonly recorded: Promise<Status>;
  readonly abort = new AbortController();
  readonly progress: ProgressFold;
  readonly output: Output;
  #attachedSignal = new Signal<AttachedMessage>();
  #recordedSignal = new Signal<Status>();
  #changed = new Signal<void>();
  #number: number | undefined;
  #connection = -1;
  #heldContactAt = Number.NEGATIVE_INFINITY;
  #order: OrderMessage | undefined;
  #answered: Client | undefined;
  #paused = false;
  #stop: Stopped | undefined;
  #interrupted: Error | undefined;
  #leaving = false;
  #attachSentOn = -1;
  #over = false;
  #ending: Ending | undefined;
  #isBareEnding = false;
  #holding = 0;
  #critical = 0;
  #branches = 0;
  #saves = 0;
  #unsaved: SaveMessage | undefined;
  #savers: { n: number; signal: Signal<void> }[] = [];

  constructor(
    readonly description: AttachMessage,
    private readonly carrier: Carrier,
  ) {
    this.attached = this.#attachedSignal.promise;
    this.recorded = this.#recordedSignal.promise;
    this.progress = new ProgressFold(description.ref, (message) => this.#sendIfAttached(message));
    const say = (message: Client, last: boolean) =>
      !this.carrier.takesLines || ((last || !this.carrier.isBacklogged) && this.#sendIfAttached(message));
    this.output = new Output(description.ref, say, () => this.carrier.maxFrame);
  }

  get ref(): number {
    return this.description.ref;
  }

  /** The number of this attempt; 0 before it is attached. */
  get number(): number {
    return this.#number ?? 0;
  }

  get paused(): boolean {
    return this.#paused;
  }

  /** Why the work is to end; undefined while it may go on. */
  get stop(): Stopped | undefined {
    return this.#stop;
  }

  // What the connection tells.

  /** A new connection is there: the job is attached, again if it was before. */
  connected(): void {
    this.#attachSentOn = this.carrier.connection;
    this.carrier.send({ ...this.description, ...(this.#number === undefined ? {} : { run: this.#number }) });
  }

  /** The connection is gone. What was heard on it until now still counts. */
  disconnected(): void {
    if (this.#connection === this.carrier.connection) this.#heldContactAt = this.carrier.heardAt;
    this.output.brokeOff(this.carrier.holdAfter);
    this.#connection = -1;
    this.#attachSentOn = -1;
    this.#answered = undefined;
    if (this.#leaving && this.#number === undefined) this.lose('The job was not begun');
    else if (this.#leaving) this.wake();
  }

  onAttached(message: AttachedMessage): void {
    // An order that is not confirmed yet comes again, and is answered then.
    this.#order = undefined;
    this.#number = message.run;
    this.#connection = this.carrier.connection;
    this.#paused = message.status === 'paused';
    this.#attachedSignal.resolve(message);
    this.progress.again();
    this.output.flush(this.#ending !== undefined);
    if (this.#ending) this.#sendEnding(this.#ending);
    else if (this.#unsaved) this.carrier.send(this.#unsaved);
    this.wake();
  }

  onRefused(message: RefusedMessage): void {
    const before = this.#number !== undefined;
    this.#attachedSignal.reject(new Refused(message));
    if (before && this.#ending && message.error === 'ended' && message.status) this.onEnded(message.status);
    else this.lose(message.message);
  }

  onOrder(order: OrderMessage): void {
    if (this.#over || order.order < (this.#order?.order ?? 0)) return;
    const again = order.order === this.#order?.order;
    this.#order = order;
    if (this.#ending) return this.#sendEnding(this.#ending);
    if (again && this.#answered) this.carrier.send(this.#answered);
    else if (order.kill) this.#answer('refused', this.carrier.kill());
    else this.#take(order);
  }

  onSaved(n: number): void {
    if (this.#unsaved && this.#unsaved.n <= n) this.#unsaved = undefined;
    const done = this.#savers.filter((saver) => saver.n <= n);
    this.#savers = this.#savers.filter((saver) => saver.n > n);
    for (const saver of done) saver.signal.resolve();
  }

  /**
   * The worker could not use a message about this run, and says which and why. Said again as it is it would be refused again,
   * and somebody may wait for what it was to lead to.
   */
  onUnusable(why: string): void {
    if (why.startsWith('save:')) {
      this.#unsaved = undefined;
      for (const saver of this.#savers.splice(0)) saver.signal.reject(new RangeError(why));
    } else if (why.startsWith('end:') && this.#ending && !this.#isBareEnding) {
      this.#isBareEnding = true;
      this.#sendEnding(this.#ending);
    }
  }

  onEnded(status: Status): void {
    this.#close(new Lost(`The run has ended: its job is ${status}`));
    this.#recordedSignal.resolve(status);
  }

  /** Nothing of this run may be said any more; its work is to end. */
  lose(why: string): void {
    this.#close(new Lost(why));
  }

  /** Lets every checkpoint that holds look again. */
  wake(): void {
    const changed = this.#changed;
    this.#changed = new Signal<void>();
    changed.resolve();
  }

  // What the work tells.

  /** Whether the work may not go on just now. */
  mustHold(): boolean {
    if (this.#paused) return true;
    const attached = this.#connection === this.carrier.connection;
    const contact = attached ? this.carrier.heardAt : this.#heldContactAt;
    return this.carrier.now() - contact > this.carrier.holdAfter;
  }

  /** Whether a checkpoint has something to do: to hold, or to end the work. */
  wanted(): boolean {
    if (this.#critical > 0) return false;
    return this.#stop !== undefined || this.#interrupted !== undefined || this.mustHold();
  }

  /** Waits while the work is to stand still. Rejects with `Stopped` when it is to end. */
  async hold(): Promise<void> {
    this.#holding += 1;
    try {
      while (!this.#stop && !this.#interrupted && this.mustHold()) {
        if (this.#leaving) {
          this.#leaveNow();
        } else {
          this.#answerStill();
          await this.#changed.promise;
        }
      }
    } finally {
      this.#holding -= 1;
    }
    if (this.#stop) throw this.#stop;
    if (this.#interrupted) throw this.#interrupted;
  }

  /** Aborts the work with an error of the client's own queue. What that means is for whoever runs the work to say. */
  interrupt(error: Error): void {
    this.#interrupted ??= error;
    this.abort.abort(error);
    this.wake();
  }

  /** The process is about to end: from now on the job is handed back where it would be held. Work that runs goes on. */
  leaveRatherThanHold(): void {
    this.#leaving = true;
    if (this.#number === undefined) this.#abandon();
    this.wake();
  }

  #leaveNow(): void {
    const attached = this.#connection === this.carrier.connection;
    // Without a connection the worker hands the run back by itself.
    if (attached) this.#stop = new HandedBack();
    else this.lose('The connection was lost, and the process is about to end');
  }

  /** The job is not wanted any more, and has not been begun. */
  #abandon(): void {
    const why = new Lost('The job was not begun, because the process is about to end');
    this.#attachedSignal.reject(why);
    // The worker may be giving it to this process right now: then it is handed back as soon as it says so.
    if (this.#attachSentOn === this.carrier.connection) this.#ending = { how: 'handed_back' };
    else this.#close(why);
  }

  enterCritical(): void {
    this.#critical += 1;
  }

  leaveCritical(): void {
    this.#critical -= 1;
    if (this.#critical === 0) this.#abortIfStopped();
    this.#answerStill();
  }

  enterBranch(): void {
    this.#branches += 1;
  }

  leaveBranch(): void {
    this.#branches -= 1;
    this.#answerStill();
  }

  /** Settles when the resume point is in SQL. Rejects with `Lost`, or with `RangeError` if it is too large. */
  save(point: unknown): Promise<void> {
    if (this.#over) return Promise.reject(this.#stop ?? new Lost('The run is over'));
    const message: SaveMessage = { type: 'save', ref: this.ref, n: this.#saves + 1, point: point ?? null };
    try {
      // Also without a connection: what the worker would not take must not wait for one.
      this.carrier.textOf(message);
    } catch (error) {
      return Promise.reject(error);
    }
    this.#sendIfAttached(message);
    this.#saves += 1;
    this.#unsaved = message;
    const signal = new Signal<void>();
    this.#savers.push({ n: message.n, signal });
    return signal.promise;
  }

  log(text: string, stream: OutputStream): void {
    if (!this.#over && !this.#ending) this.output.add(text, stream);
  }

  failedItem(item: string, error: string): void {
    this.#sendIfAttached({ type: 'failed_item', ref: this.ref, item, error });
  }

  /** The work has ended. `recorded` settles when the worker has it in SQL. */
  end(ending: Ending): void {
    if (this.#over || this.#ending) return;
    this.#ending = ending;
    this.progress.flush();
    this.output.flush(true);
    const order = this.#order;
    const confirms =
      (order?.do === 'cancel' && ending.how === 'cancelled') || (order?.do === 'time_out' && this.#timedOut());
    if (order && confirms && this.#answered === undefined) this.#answer('ended');
    else this.#sendEnding(ending);
  }

  #timedOut(): boolean {
    return this.#stop instanceof TimedOut && this.#ending?.how === 'failed';
  }

  #take(order: OrderMessage): void {
    this.#answered = undefined;
    switch (order.do) {
      case 'pause':
        this.#paused = true;
        if (this.#stop instanceof HandedBack) this.#stop = undefined;
        this.#answerStill();
        break;
      case 'resume':
        this.#paused = false;
        if (this.#stop instanceof HandedBack) this.#stop = undefined;
        break;
      case 'cancel':
        if (!(this.#stop instanceof Cancelled)) this.#stop = new Cancelled(order.by, order.reason ?? undefined);
        break;
      case 'time_out':
        if (!(this.#stop instanceof TimedOut)) this.#stop = new TimedOut(order.reason ?? undefined);
        break;
      case 'leave':
        this.#stop ??= new HandedBack();
        break;
    }
    this.#abortIfStopped();
    this.wake();
  }

  #abortIfStopped(): void {
    // "leave" asks for a good point to stop at, so it cuts nothing off.
    if (this.#stop && !(this.#stop instanceof HandedBack) && this.#critical === 0) this.abort.abort(this.#stop);
  }

  /** Tells the worker that a pause is complete, once nothing of the work runs. */
  #answerStill(): void {
    if (this.#order?.do !== 'pause' || !this.#paused || this.#answered || this.#ending || this.#over) return;
    if (this.#critical > 0 || this.#holding < Math.max(1, this.#branches)) return;
    this.progress.flush();
    this.#answer('still');
  }

  #answer(state: 'still' | 'ended' | 'refused', error?: string): void {
    if (!this.#order || this.#connection !== this.carrier.connection) return;
    this.#answered = { type: 'reached', ref: this.ref, order: this.#order.order, state, ...(error ? { error } : {}) };
    this.carrier.send(this.#answered);
  }

  #sendIfAttached(message: Client): boolean {
    if (this.#over || this.#connection !== this.carrier.connection) return false;
    this.carrier.send(message);
    return true;
  }

  #sendEnding(ending: Ending): void {
    if (this.#connection !== this.carrier.connection) return;
    const end = { type: 'end' as const, ref: this.ref, how: ending.how };
    switch (ending.how) {
      case 'completed': {
        if (ending.result === undefined || this.#isBareEnding) return this.carrier.send(end);
        try {
          return this.carrier.send({ ...end, result: ending.result });
        } catch {
          // Too large, too deep, no JSON, or code of its own that throws. The work is done all the same; only its result
          // has no place in the row.
          return this.carrier.send(end);
        }
      }
      case 'failed':
        return this.carrier.send({ ...end, error: ending.error.slice(0, 16_000), permanent: ending.permanent });
      case 'handed_back':
        return this.carrier.send({
          ...end,
          ...(ending.runAfter && !this.#isBareEnding ? { run_after: moment(ending.runAfter) } : {}),
          ...(ending.error ? { error: ending.error.slice(0, 16_000) } : {}),
        });
      default:
        return this.carrier.send(end);
    }
  }

  #close(why: Lost): void {
    if (this.#over) return;
    this.#over = true;
    this.#stop = why;
    this.progress.stop();
    this.output.stop();
    this.carrier.forget(this.ref);
    this.#attachedSignal.reject(why);
    for (const saver of this.#savers.splice(0)) saver.signal.reject(why);
    if (!this.#ending) this.abort.abort(why);
    this.wake();
    // After onEnded it has been settled in the same turn, and this does nothing.
    queueMicrotask(() => this.#recordedSignal.reject(why));
  }
}
