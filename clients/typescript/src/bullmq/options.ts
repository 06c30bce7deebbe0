import type { Job } from 'bullmq';
import type { Session } from '../worker/session.js';
import { ID } from '../worker/settings.js';

// biome-ignore lint/suspicious/noExplicitAny: any job of BullMQ, whatever its data.
export type AnyJob = Job<any, any, string>;

/** How the jobs of a queue are put under control. */
export interface ControlledOptions<J = AnyJob> {
  /** Whose jobs these are. Default: `tenantId` or `tenant_id` of the job's data. */
  tenant?: string | ((job: J) => string);
  /** What people see as the job's title. Default: the job's name. */
  title?: (job: J) => string | undefined;
  /** The campaign that a job belongs to. */
  campaign?: (job: J) => string | undefined;
  /** What people see as the job's parameters. Default: the job's data. Give `() => undefined` to show nothing. */
  parameters?: (job: J) => unknown;
  /** How long a job may run, in whole seconds, paused time not counted. */
  timeoutSeconds?: number | ((job: J) => number | undefined);
  /** The user on whose behalf a job runs. */
  createdBy?: (job: J) => string | undefined;
  /** The connection to use. Default: the one of this process, from `WHEELHOUSE_URL` and `WHEELHOUSE_TOKEN`. */
  session?: Session;
}

/** A job's tenant. Throws an `Error` that says how to give one. */
export function tenantOf(job: AnyJob, options: ControlledOptions<never>): string {
  const option = options.tenant as string | ((job: AnyJob) => string) | undefined;
  const data = job.data as { tenantId?: unknown; tenant_id?: unknown } | null | undefined;
  const tenant = typeof option === 'function' ? option(job) : (option ?? data?.tenantId ?? data?.tenant_id);
  if (typeof tenant === 'string' && ID.test(tenant)) return tenant;
  throw new Error(
    tenant === undefined || tenant === null
      ? `Job ${job.id} of queue ${job.queueName} has no tenant: put tenantId into its data, or give controlled() the option "tenant".`
      : `"${tenant}" is no tenant id: it takes 1 to 128 of A-Z, a-z, 0-9, ".", "_" and "-", and begins with a letter or digit.`,
  );
}
