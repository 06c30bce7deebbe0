import type { ProgressMessage } from '../generated/worker.js';

/** How far a job is. What is left out stays as it was. */
export interface Progress {
  /** Items done so far, failed ones included. */
  done?: number;
  /** Items in all. */
  total?: number;
  succeeded?: number;
  failed?: number;
  /** 0 to 100, where there are no items to count. */
  percent?: number;
  /** What the job is at, for people. */
  item?: string | null;
}

const EVERY_MILLISECONDS = 250;

/** Sends a job's progress four times a second at most; what comes between is folded to the newest figures. */
export class ProgressFold {
  #waiting: ProgressMessage | undefined;
  #newest: Partial<ProgressMessage> = {};
  #timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly ref: number,
    private readonly send: (message: ProgressMessage) => void,
  ) {}

  add(progress: Progress): void {
    const given = fields(progress);
    this.#newest = { ...this.#newest, ...given };
    this.#waiting = { type: 'progress', ref: this.ref, ...this.#waiting, ...given };
    if (this.#timer) return;
    this.flush();
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.flush();
    }, EVERY_MILLISECONDS);
    this.#timer.unref();
  }

  /** Sends what waits. */
  flush(): void {
    const message = this.#waiting;
    this.#waiting = undefined;
    if (message) this.send(message);
  }

  /** Sends all figures: on a new connection, since the last ones may have been lost with the old one. */
  again(): void {
    this.#waiting = undefined;
    if (Object.keys(this.#newest).length > 0) this.send({ type: 'progress', ref: this.ref, ...this.#newest });
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#waiting = undefined;
  }
}

function fields(progress: Progress): Partial<ProgressMessage> {
  const given: Partial<ProgressMessage> = {
    items_processed: count(progress.done),
    items_total: count(progress.total),
    items_succeeded: count(progress.succeeded),
    items_failed: count(progress.failed),
    progress_percent: Number.isFinite(progress.percent)
      ? Math.min(100, Math.max(0, progress.percent as number))
      : undefined,
    current_item: typeof progress.item === 'string' ? progress.item.slice(0, 1000) : progress.item,
  };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
}

/** A number that the protocol takes as a count; nothing for what is none. */
function count(value: number | undefined): number | undefined {
  if (value === undefined || !Number.isFinite(value)) return undefined;
  return Math.min(Number.MAX_SAFE_INTEGER, Math.max(0, Math.floor(value)));
}
