import type { Queue } from 'bullmq';
import { announce } from '../worker/job.js';
import { describeJob } from './describe.js';
import type { AnyJob, ControlledOptions } from './options.js';
import { Removals, type Removes } from './removed.js';

/** Jobs of which Wheelhouse has not heard yet, of this process. Beyond that the newest appear when they begin. */
const MOST_UNHEARD = 1_000;
let unheard = 0;

/** What adds jobs to a queue: `Queue`, and whatever has its methods. */
type Adds = Pick<Queue, 'add' | 'addBulk'> & Partial<Pick<Queue, 'upsertJobScheduler' | 'getJob'>>;

/**
 * Makes a queue tell Wheelhouse of each job that is added to it, in the background: the job is shown as pending before any
 * worker is up, and can be paused and cancelled then. Gives the same queue: `const queue = published(new Queue('videos'))`.
 *
 * A job that is removed before it has begun is ended as cancelled: within a second or two where this queue or its jobs remove it
 * (`remove`, `drain`, `clean`, `obliterate`), and within some five seconds where another process does, as long as this one
 * lives.
 *
 * A job that this process cannot tell of is added all the same, and appears when it begins. So do the later jobs of a
 * scheduler or a repeated job, which workers add, and jobs of a `FlowProducer`: give those to `publishedFlow`.
 */
export function published<Q extends Adds>(queue: Q, options: ControlledOptions = {}): Q {
  const { add, addBulk, upsertJobScheduler, getJob } = queue;
  const removals = getJob ? new Removals(queue as unknown as Removes) : undefined;
  queue.add = (async (...given: Parameters<Queue['add']>) => {
    const job = await add.apply(queue, given);
    tell(job as AnyJob, options, removals);
    return job;
  }) as Q['add'];
  queue.addBulk = (async (...given: Parameters<Queue['addBulk']>) => {
    const jobs = await addBulk.apply(queue, given);
    for (const job of jobs) tell(job as AnyJob, options, removals);
    return jobs;
  }) as Q['addBulk'];
  if (upsertJobScheduler) {
    queue.upsertJobScheduler = (async (...given: Parameters<Queue['upsertJobScheduler']>) => {
      const job = await upsertJobScheduler.apply(queue as unknown as Queue, given);
      if (job) tell(job as AnyJob, options, removals);
      return job;
    }) as Q['upsertJobScheduler'];
  }
  return queue;
}

/** A job of a flow, and what it waits for. */
interface FlowNode {
  job: AnyJob;
  children?: FlowNode[];
}

/** As `published`, for a `FlowProducer`: each job of a flow is told of, with the options of its queue or of all. */
export function publishedFlow<F extends { add: unknown; addBulk: unknown }>(
  flows: F,
  options: ControlledOptions | ((queue: string) => ControlledOptions | undefined) = {},
): F {
  const each = (node: FlowNode): void => {
    const its = typeof options === 'function' ? options(node.job.queueName) : options;
    if (its) tell(node.job, its);
    for (const child of node.children ?? []) each(child);
  };
  const { add, addBulk } = flows as unknown as {
    add(...given: unknown[]): Promise<FlowNode>;
    addBulk(...given: unknown[]): Promise<FlowNode[]>;
  };
  return Object.assign(flows, {
    add: async (...given: unknown[]) => {
      const node = await add.apply(flows, given);
      each(node);
      return node;
    },
    addBulk: async (...given: unknown[]) => {
      const nodes = await addBulk.apply(flows, given);
      nodes.forEach(each);
      return nodes;
    },
  });
}

/** Says that the job is published. Never throws, and never waits. */
function tell(job: AnyJob, options: ControlledOptions, removals?: Removals): void {
  if (unheard >= MOST_UNHEARD) return;
  unheard += 1;
  expectJob(job, options, removals)
    .catch((error: unknown) => {
      const why = error instanceof Error ? error.message : String(error);
      process.emitWarning(
        `Job ${job.id} of ${job.queueName} is not shown before it begins: ${why}`,
        'WheelhouseWarning',
      );
    })
    .finally(() => {
      unheard -= 1;
    });
}

async function expectJob(job: AnyJob, options: ControlledOptions, removals?: Removals): Promise<void> {
  const described = describeJob(job, options);
  removals?.remember(job, described);
  const delay = job.delay ?? job.opts.delay ?? 0;
  const runAfter = delay > 0 ? new Date(job.timestamp + delay) : undefined;
  await announce(described.tenant, described.id, { ...described.options, ...(runAfter ? { runAfter } : {}) }, true);
}
