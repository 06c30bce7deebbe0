import { Worker } from 'node:worker_threads';

/** Between two signs of life of the event loop, and two looks at them. */
const LOOK_MILLISECONDS = 250;

/**
 * Runs in a thread of its own, so that it sees what the main thread cannot say while it is blocked. Only time in which this
 * thread has run counts: a process that was stopped as a whole has not been blocked.
 */
const LOOKOUT = `
const { workerData } = require('node:worker_threads');
const [beats, limit, sleep] = [0, 1, 2];
let last = -1;
let silent = 0;
let before = process.hrtime.bigint();
for (;;) {
  Atomics.wait(workerData, sleep, 0, ${LOOK_MILLISECONDS});
  const now = process.hrtime.bigint();
  const passed = Math.min(Number(now - before) / 1e6, ${2 * LOOK_MILLISECONDS});
  before = now;
  const beat = Atomics.load(workerData, beats);
  silent = beat === last ? silent + passed : 0;
  last = beat;
  const most = Atomics.load(workerData, limit);
  if (most > 0 && silent > most) process.kill(process.pid, 'SIGKILL');
}
`;

/**
 * Kills this process when its event loop has been blocked for so long that its jobs may be given to others: it can then neither
 * hold them nor hear that they are to end.
 */
export class Watchdog {
  readonly #shared = new Int32Array(new SharedArrayBuffer(12));
  readonly #beats: NodeJS.Timeout;
  readonly #lookout: Worker;

  constructor() {
    this.#beats = setInterval(() => Atomics.add(this.#shared, 0, 1), LOOK_MILLISECONDS / 2);
    this.#beats.unref();
    this.#lookout = new Worker(LOOKOUT, { eval: true, workerData: this.#shared });
    this.#lookout.unref();
  }

  /** From now on the event loop may be blocked for so many milliseconds; 0: for ever. */
  limit(milliseconds: number): void {
    Atomics.store(this.#shared, 1, Math.ceil(milliseconds));
  }

  stop(): void {
    clearInterval(this.#beats);
    void this.#lookout.terminate();
  }
}
