import { errorText, Refused } from '../worker/errors.js';
import { attachedJob } from '../worker/job.js';
import { describeJob } from './describe.js';
import type { AnyJob, ControlledOptions } from './options.js';

/** What of BullMQ's worker is used here. */
interface FailingWorker {
  on?(event: 'failed', listener: (job: AnyJob | undefined, error: Error) => void): unknown;
}

/** Jobs that were delivered to a processor of this process: how those end is told there. */
const delivered = new WeakSet<AnyJob>();
const watched = new WeakSet<object>();

/** A job has been delivered by this worker. From now on what the worker fails without delivering it is failed in Wheelhouse, too. */
export function watchGivenUp(job: AnyJob, options: ControlledOptions<never>): void {
  delivered.add(job);
  const worker = (job as unknown as { queue?: FailingWorker }).queue;
  if (!worker?.on || watched.has(worker)) return;
  watched.add(worker);
  worker.on('failed', (failed, error) => {
    // Also what is tried again comes here; that was delivered, though.
    if (failed && !delivered.has(failed)) void close(failed, error, options as ControlledOptions);
  });
}

/** The job has stalled too often: BullMQ has failed it, and no processor was asked. */
async function close(job: AnyJob, error: Error, options: ControlledOptions): Promise<void> {
  try {
    const described = describeJob(job, options);
    // The run of the process that died is kept for it, for a while.
    const run = await attachedJob(described.tenant, described.id, described.options);
    run.end({ how: 'failed', error: errorText(error), permanent: true });
    await run.recorded;
  } catch (problem) {
    if (problem instanceof Refused && problem.code === 'ended') return;
    const why = problem instanceof Error ? problem.message : String(problem);
    process.emitWarning(`The row of job ${job.id} of ${job.queueName} stays as it is: ${why}`, 'WheelhouseWarning');
  }
}
