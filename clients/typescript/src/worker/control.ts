import { errorText } from './errors.js';
import type { OutputStream } from './output.js';
import type { Progress } from './progress.js';
import type { Run } from './run.js';

/**
 * What job code has of its job. Nothing here has to be called, but a pause takes effect at `checkpoint()` alone, and a cancel
 * at `checkpoint()` or through `signal`.
 */
export class Control<Point = unknown> {
  readonly tenant: string;
  readonly id: string;
  /** The number of this attempt. */
  readonly run: number;
  /** What `save` was last given, in this attempt or an earlier one; null if nothing was saved. */
  readonly resumePoint: Point | null;
  readonly #run: Run;
  #signalTaken = false;

  constructor(run: Run, resumePoint: Point | null) {
    this.#run = run;
    this.tenant = run.description.tenant_id;
    this.id = run.description.job_id;
    this.run = run.number;
    this.resumePoint = resumePoint;
  }

  /**
   * Waits here while the job is paused, and while it is not sure that this process still has the job. Throws `Cancelled`,
   * `TimedOut`, `HandedBack` or `Lost` (all of them `Stopped`) when the work is to end: let it pass through. Call it
   * wherever the work can stand still; it costs next to nothing.
   */
  checkpoint(): Promise<void> {
    return this.#run.wanted() ? this.#run.hold() : breathe(this.#run);
  }

  /** Aborted when the job is cancelled, has timed out or is lost; for `fetch` and all else that takes an `AbortSignal`. */
  get signal(): AbortSignal {
    this.#signalTaken = true;
    return this.#run.abort.signal;
  }

  /** Whether the job is to stand still. */
  get paused(): boolean {
    return this.#run.paused;
  }

  /** Says how far the job is. Call it as often as you like: four times a second it is sent. */
  progress(progress: Progress): void {
    this.#run.progress.add(progress);
  }

  /** Records an item that could not be done; the job goes on. */
  failedItem(item: string, error: unknown): void {
    this.#run.failedItem(item.slice(0, 1000), errorText(error).slice(0, 4000));
  }

  /**
   * Adds the text's lines to the job's output, of which the newest 1,000 are kept. Never waits: they are sent four times a
   * second. Where they come faster the oldest are left out, and the output says how many. `stream` is what they are shown as.
   */
  log(text: unknown, stream: OutputStream = 'log'): void {
    this.#run.log(String(text), stream);
  }

  /**
   * Saves where the job is (any JSON), for the attempt after this one: its `resumePoint`. Settles when it is in SQL. Rejects
   * with `Lost` if this process has lost the job, and with `RangeError` if the point is too large.
   */
  save(point: Point): Promise<void> {
    return this.#run.save(point);
  }

  /** Runs `work` as one piece: checkpoints inside do not hold or throw, and `signal` is not aborted before it is done. */
  async critical<T>(work: () => T | Promise<T>): Promise<T> {
    this.#run.enterCritical();
    try {
      return await work();
    } finally {
      this.#run.leaveCritical();
    }
  }

  /**
   * Runs one of several parts that work side by side (`Promise.all` of branches). A pause is confirmed only when each of
   * them has come to a checkpoint.
   */
  async branch<T>(work: () => T | Promise<T>): Promise<T> {
    this.#run.enterBranch();
    try {
      return await work();
    } finally {
      this.#run.leaveBranch();
    }
  }

  /** Whether the work could have noticed a cancel by itself and returned early for it. For adapters. */
  get signalTaken(): boolean {
    return this.#signalTaken;
  }
}

const BREATH_MILLISECONDS = 5;
const NOTHING = Promise.resolve();
let lastBreath = 0;

/**
 * Lets Node read its sockets now and then: a loop that awaits nothing but checkpoints would otherwise never hear that it is
 * to pause.
 */
function breathe(run: Run): Promise<void> {
  const now = performance.now();
  if (now - lastBreath < BREATH_MILLISECONDS) return NOTHING;
  lastBreath = now;
  return new Promise<void>((resolve) => setImmediate(resolve)).then(() => (run.wanted() ? run.hold() : undefined));
}
