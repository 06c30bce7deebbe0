import type { Job } from 'bullmq';
import { Refused } from '../worker/errors.js';
import { type JobOptions, withdraw } from '../worker/job.js';
import type { AnyJob } from './options.js';

/** Jobs of a queue that are remembered. Beyond that the oldest are forgotten, and stay as they are when they are removed. */
const MOST = 10_000;
/** Of those, how many are looked at in one turn. */
const MOST_AT_ONCE = 500;
/** Between two turns. What other processes remove is found by these. */
const EVERY_MILLISECONDS = 5_000;
/** After something was removed by this process: whoever adds the job again under its id has done so by then. */
const SOON_MILLISECONDS = 1_000;

/** A job as it was told of. */
export interface Told {
  tenant: string;
  id: string;
  options: JobOptions;
}

/** What of a queue is used here. */
export interface Removes {
  name: string;
  getJob(id: string): Promise<unknown>;
  close?(...given: never[]): Promise<void>;
}

/** How long the close of a queue waits for the rows of what was removed just before. */
const CLOSE_MILLISECONDS = 3_000;

const REMOVING = ['remove', 'drain', 'clean', 'obliterate'] as const;

/**
 * The jobs of a queue that Wheelhouse was told of and that have not ended. One that is not in BullMQ any more was removed:
 * nobody will ever begin it, so its row is ended as cancelled, and does not wait for ever.
 */
export class Removals {
  readonly #told = new Map<string, Told>();
  #turn: NodeJS.Timeout | undefined;
  #at = Number.POSITIVE_INFINITY;
  #looking: Promise<void> | undefined;

  constructor(private readonly queue: Removes) {
    // Each is replaced where the queue has it: mocks and other versions may not.
    const methods = queue as unknown as Record<string, ((...given: unknown[]) => Promise<unknown>) | undefined>;
    for (const name of REMOVING) {
      const method = methods[name];
      if (method)
        methods[name] = (...given) => method.apply(queue, given).finally(() => this.#lookWithin(SOON_MILLISECONDS));
    }
    const { getJob, close } = methods;
    if (getJob) methods.getJob = async (...given) => this.#watch(await getJob.apply(queue, given));
    if (close) {
      methods.close = async (...given) => {
        const soon = this.#turn !== undefined && this.#at - performance.now() <= SOON_MILLISECONDS;
        clearTimeout(this.#turn);
        if (soon) await Promise.race([this.#look(), new Promise((resolve) => setTimeout(resolve, CLOSE_MILLISECONDS))]);
        this.#told.clear();
        return close.apply(queue, given);
      };
    }
  }

  /** A job that was added. */
  remember(job: AnyJob, told: Told): void {
    if (!job.id) return;
    this.#watch(job);
    this.#told.delete(job.id);
    // Without the parameters, which may be large: the row has them.
    const { type, title, session } = told.options;
    this.#told.set(job.id, { ...told, options: { type, title, session } });
    for (const oldest of this.#told.keys()) {
      if (this.#told.size <= MOST) break;
      this.#told.delete(oldest);
    }
    this.#lookWithin(EVERY_MILLISECONDS);
  }

  /** Hears of it when the job is removed by this object. */
  #watch<T>(job: T): T {
    const watched = job as { remove?: (...given: unknown[]) => Promise<unknown> } | null | undefined;
    const remove = watched?.remove;
    if (watched && remove && !Object.hasOwn(watched, 'remove')) {
      watched.remove = (...given) => remove.apply(watched, given).finally(() => this.#lookWithin(SOON_MILLISECONDS));
    }
    return job;
  }

  #lookWithin(milliseconds: number): void {
    const at = performance.now() + milliseconds;
    if (this.#told.size === 0 || (this.#turn && this.#at <= at)) return;
    clearTimeout(this.#turn);
    this.#at = at;
    this.#turn = setTimeout(() => {
      this.#turn = undefined;
      void this.#look();
    }, milliseconds);
    this.#turn.unref();
  }

  #look(): Promise<void> {
    this.#looking ??= this.#lookAtSome().finally(() => {
      this.#looking = undefined;
      this.#lookWithin(EVERY_MILLISECONDS);
    });
    return this.#looking;
  }

  async #lookAtSome(): Promise<void> {
    for (const [id, told] of [...this.#told].slice(0, MOST_AT_ONCE)) {
      // Behind all others: each has its turn.
      if (!this.#told.delete(id)) continue;
      this.#told.set(id, told);
      try {
        const job = (await this.queue.getJob(id)) as Job | undefined;
        const over = job ? job.finishedOn !== undefined : await withdraw(told.tenant, told.id, told.options);
        if (over && this.#told.get(id) === told) this.#told.delete(id);
      } catch (error) {
        if (error instanceof Refused) {
          this.#told.delete(id); // Not for this token: nothing can be done here.
          continue;
        }
        return; // Redis or Wheelhouse is away; the next turn looks again.
      }
    }
  }
}
