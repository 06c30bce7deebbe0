import { errorText } from '../worker/errors.js';
import type { Ending } from '../worker/run.js';
import type { AnyJob } from './options.js';

/** BullMQ's decision about an error: whether it tries again, and after how many milliseconds. */
type Decision = [retry: boolean, delay: number];

interface Internals {
  shouldRetryJob?(error: Error): Promise<Decision>;
  discarded?: boolean;
}

/**
 * How an error that the processor threw ends the run. BullMQ's own decision is taken and kept for BullMQ, because asking
 * twice may give two answers: its backoff has jitter, and may be a function of the application.
 */
export async function endingAfter(job: AnyJob, thrown: unknown): Promise<Ending> {
  if (movedItself(thrown)) {
    return { how: 'handed_back', ...(named(thrown, 'DelayedError') ? { runAfter: soon(job.delay) } : {}) };
  }
  try {
    const [retry, delay] = await decide(job, thrown as Error);
    return retry
      ? { how: 'handed_back', error: errorText(thrown), ...(delay > 0 ? { runAfter: soon(delay) } : {}) }
      : { how: 'failed', error: errorText(thrown), permanent: true };
  } catch (problem) {
    // BullMQ could not decide when it tries again: a backoff that it does not know, or one of the application that throws.
    (job as unknown as Internals).shouldRetryJob = async () => [false, 0];
    return { how: 'failed', error: `${errorText(thrown)} (not tried again: ${errorText(problem)})`, permanent: true };
  }
}

async function decide(job: AnyJob, error: Error): Promise<Decision> {
  const internals = job as unknown as Internals;
  if (typeof internals.shouldRetryJob === 'function') {
    const decision = await internals.shouldRetryJob(error);
    internals.shouldRetryJob = async () => decision;
    return decision;
  }
  const left = job.attemptsMade + 1 < (job.opts.attempts ?? 1);
  return [left && !internals.discarded && !named(error, 'UnrecoverableError'), 0];
}

/** The processor has put the job elsewhere itself (delayed, waiting for children, rate-limited): it comes again. */
function movedItself(thrown: unknown): boolean {
  return (
    ['DelayedError', 'WaitingError', 'WaitingChildrenError'].some((name) => named(thrown, name)) ||
    (thrown instanceof Error && thrown.message === 'bullmq:rateLimitExceeded')
  );
}

function named(thrown: unknown, name: string): boolean {
  return thrown instanceof Error && thrown.name === name;
}

function soon(milliseconds: number): Date {
  return new Date(Date.now() + Math.max(0, milliseconds));
}

/** Fails the job in BullMQ without another try. BullMQ knows the error by its name, whichever copy of it is installed. */
export function unrecoverable(job: AnyJob, message: string): Error {
  // A decision that was taken before, for another error, does not hold for this one.
  (job as unknown as Internals).shouldRetryJob = async () => [false, 0];
  const error = new Error(message);
  error.name = 'UnrecoverableError';
  return error;
}

/**
 * Puts the job back into BullMQ, to be delivered again after `milliseconds`, without using up an attempt. Gives the error to
 * throw, which tells BullMQ that the job has been moved.
 */
export async function putBack(job: AnyJob, token: string | undefined, milliseconds: number): Promise<Error> {
  const moved = new Error('bullmq:movedToDelayed');
  moved.name = 'DelayedError';
  try {
    await job.moveToDelayed(Date.now() + milliseconds, token);
  } catch {
    // The lock is lost, so BullMQ has delivered the job again already: it is not this delivery's to move.
  }
  return moved;
}
