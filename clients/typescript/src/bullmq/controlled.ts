import type { Job } from 'bullmq';
import type { Control } from '../worker/control.js';
import { Cancelled, HandedBack, Lost, Refused, TimedOut } from '../worker/errors.js';
import { attachJob, perform } from '../worker/job.js';
import { describeJob } from './describe.js';
import { watchGivenUp } from './given-up.js';
import { keepLock, whenClosing } from './lock.js';
import type { AnyJob, ControlledOptions } from './options.js';
import { rememberResult, takeResult } from './results.js';
import { endingAfter, putBack, unrecoverable } from './retries.js';

/** A processor as BullMQ's `Worker` takes it. */
export type Processor<J, R> = (job: J, token?: string, signal?: AbortSignal) => Promise<R>;

/** The work of a job: BullMQ's processor, with the control in the second place. */
export type ControlledProcessor<J, R> = (job: J, control: Control, token?: string) => R | Promise<R>;

const PUT_BACK_MILLISECONDS = 1_000;

/**
 * Makes a BullMQ processor whose jobs are under Wheelhouse's control:
 * `new Worker('videos', controlled(async (job, ctl) => { … await ctl.checkpoint(); … }), { connection })`.
 *
 * A cancelled job fails once in BullMQ and is not tried again; a paused one keeps its lock; an error with attempts left hands
 * the job back until BullMQ delivers it again. Throws a `TypeError` for a sandboxed processor (a path or a URL).
 */
// biome-ignore lint/suspicious/noExplicitAny: what BullMQ itself takes where an application names no types.
export function controlled<D = any, R = any, N extends string = string>(
  work: ControlledProcessor<Job<D, R, N>, R>,
  options: ControlledOptions<Job<D, R, N>> = {},
): Processor<Job<D, R, N>, R> {
  if (typeof work !== 'function') {
    throw new TypeError(
      'controlled() takes a function. A sandboxed processor (a path or a URL) runs in a process of its own that cannot be ' +
        'paused from here: give the function itself, or start the program with `wheelhouse run`.',
    );
  }
  // Three parameters, so that BullMQ gives its own signal too (`worker.cancelJob`).
  return async (job, token, signal) => {
    const release = keepLock(job as AnyJob, token);
    try {
      return await deliver(job, token, signal, work, options);
    } finally {
      release();
    }
  };
}

async function deliver<D, R, N extends string>(
  job: Job<D, R, N>,
  token: string | undefined,
  signal: AbortSignal | undefined,
  work: ControlledProcessor<Job<D, R, N>, R>,
  options: ControlledOptions<Job<D, R, N>>,
): Promise<R> {
  const any = job as AnyJob;
  watchGivenUp(any, options as ControlledOptions<never>);
  let described: ReturnType<typeof describeJob>;
  try {
    described = describeJob(any, options as ControlledOptions);
  } catch (error) {
    throw unrecoverable(any, error instanceof Error ? error.message : String(error));
  }
  const { id } = described;
  const run = attachJob(described.tenant, id, described.options);
  // BullMQ's worker waits for its jobs when it is closed; one that is paused here would keep it waiting for ever.
  const settled = whenClosing(any, () => run.leaveRatherThanHold());
  const abort = () => run.interrupt(reasonOf(signal));
  signal?.addEventListener('abort', abort, { once: true });
  try {
    const outcome = await perform<R, unknown>(
      run,
      (control) => storable(() => work(job, control, token)),
      (error) => endingAfter(any, error),
    );
    if (outcome.ok) {
      await rememberResult(any, token, id, outcome.result);
      return outcome.result;
    }
    throw await afterwards(any, token, outcome.error, outcome.status);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    return await refused<R>(any, token, id, error);
  } finally {
    settled();
    signal?.removeEventListener('abort', abort);
  }
}

/** The result of the work. Rejects where BullMQ is about to fail the job because it cannot write it. */
async function storable<R>(work: () => R | Promise<R>): Promise<R> {
  try {
    const result = await work();
    JSON.stringify(result);
    return result;
  } catch (error) {
    // BullMQ reads the error's fields, whatever was thrown.
    throw error ?? new Error(`The work threw ${error}`);
  }
}

/** BullMQ aborts with whatever `worker.cancelJob` was given. */
function reasonOf(signal: AbortSignal | undefined): Error {
  const reason: unknown = signal?.reason;
  return reason instanceof Error ? reason : new Error(typeof reason === 'string' ? reason : 'Cancelled in BullMQ');
}

/** The error to give to BullMQ for a run that did not complete. */
async function afterwards(
  job: AnyJob,
  token: string | undefined,
  error: unknown,
  status: string | undefined,
): Promise<unknown> {
  if (error instanceof HandedBack) {
    const wait = (error.runAfter?.getTime() ?? Number.NaN) - Date.now();
    return putBack(job, token, Number.isNaN(wait) ? PUT_BACK_MILLISECONDS : Math.max(0, wait));
  }
  // Another delivery may have the job. If it has ended instead, the next delivery is told so and does not run it.
  if (error instanceof Lost) return putBack(job, token, PUT_BACK_MILLISECONDS);
  if (error instanceof Cancelled || error instanceof TimedOut) return unrecoverable(job, error.message);
  if (status === 'cancelled') return unrecoverable(job, 'Cancelled');
  return error;
}

/** What to do with a delivery whose job the worker has not given to this process. Nothing of it has been run. */
async function refused<R>(job: AnyJob, token: string | undefined, id: string, refusal: Refused): Promise<R> {
  if (refusal.code === 'elsewhere') {
    throw await putBack(job, token, (refusal.retryAfter ?? 1) * 1000);
  }
  if (refusal.code !== 'ended') throw refusal;
  if (refusal.status === 'completed') {
    const [known, result] = takeResult(id);
    if (!known)
      await job.log('Completed by an earlier delivery; it was not run again, and its result is in Wheelhouse.');
    return (known ? result : null) as R;
  }
  throw unrecoverable(job, `Not run: the job is ${refusal.status ?? 'over'} in Wheelhouse. ${refusal.message}`);
}
