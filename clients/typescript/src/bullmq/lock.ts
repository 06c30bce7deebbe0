import type { AnyJob } from './options.js';

const LOCK_MILLISECONDS = 30_000;

/**
 * Keeps BullMQ's lock on a job for as long as it is held here: while it waits for Wheelhouse, and through pauses of any
 * length. BullMQ does so itself unless its option `skipLockRenewal` is set; this holds either way. Gives the function that
 * ends it.
 */
export function keepLock(job: AnyJob, token: string | undefined): () => void {
  if (!token) return () => {};
  const duration = workerOf(job)?.opts?.lockDuration ?? LOCK_MILLISECONDS;
  const timer = setInterval(() => {
    // A lock that is lost shows itself when the job is delivered elsewhere, and is dealt with there.
    job.extendLock(token, duration).catch(() => {});
  }, duration / 3);
  timer.unref();
  return () => clearInterval(timer);
}

/** Whether this delivery still has the job in BullMQ. */
export async function hasLock(job: AnyJob, token: string | undefined): Promise<boolean> {
  if (!token) return true;
  const duration = workerOf(job)?.opts?.lockDuration ?? LOCK_MILLISECONDS;
  return job.extendLock(token, duration).then(
    (extended) => extended !== 0,
    () => false,
  );
}

/** What of BullMQ's worker is used here. */
interface BullWorker {
  opts?: { lockDuration?: number };
  /** Set from `worker.close()` on. */
  closing?: unknown;
  once?(event: 'closing', listener: () => void): unknown;
}

/** The BullMQ worker that has taken the job. */
function workerOf(job: AnyJob): BullWorker | undefined {
  return (job as unknown as { queue?: BullWorker }).queue;
}

const closings = new WeakMap<BullWorker, Set<() => void>>();

/** Calls `leave` when the worker that has the job is being closed. Gives the function that takes this back. */
export function whenClosing(job: AnyJob, leave: () => void): () => void {
  const worker = workerOf(job);
  if (!worker) return () => {};
  if (worker.closing) leave();
  let leaves = closings.get(worker);
  if (!leaves) {
    // One listener for all jobs of the worker: Node warns of an eleventh.
    const all = new Set<() => void>();
    closings.set(worker, all);
    worker.once?.('closing', () => {
      for (const each of [...all]) each();
    });
    leaves = all;
  }
  leaves.add(leave);
  return () => leaves.delete(leave);
}
