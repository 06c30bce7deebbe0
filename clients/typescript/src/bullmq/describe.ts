import type { JobOptions } from '../worker/job.js';
import { wheelhouseId } from './ids.js';
import { type AnyJob, type ControlledOptions, tenantOf } from './options.js';

/** A BullMQ job as Wheelhouse shows it. Throws where its tenant is not known. */
export function describeJob<J extends AnyJob>(
  job: J,
  options: ControlledOptions<J>,
): { tenant: string; id: string; options: JobOptions } {
  const timeout = options.timeoutSeconds;
  return {
    tenant: tenantOf(job, options as ControlledOptions<never>),
    id: wheelhouseId(job.queueName, job.id ?? ''),
    options: {
      type: `bullmq:${job.queueName}`,
      title: options.title ? options.title(job) : job.name,
      campaign: options.campaign?.(job),
      parameters: options.parameters ? options.parameters(job) : job.data,
      timeoutSeconds: typeof timeout === 'function' ? timeout(job) : timeout,
      createdBy: options.createdBy?.(job),
      session: options.session,
    },
  };
}
