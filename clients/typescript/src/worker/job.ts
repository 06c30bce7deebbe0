import type { AttachMessage, ExpectedMessage, Status } from '../generated/worker.js';
import { Control } from './control.js';
import { Cancelled, errorText, HandedBack, Lost, Refused, TimedOut } from './errors.js';
import type { Ending, Run } from './run.js';
import { type Session, sharedSession } from './session.js';
import { ID } from './settings.js';
import { isTooDeep, moment } from './text.js';

/** What a job is, for those who look at it. */
export interface JobOptions {
  /** What kind of work it is. Default: `node`. */
  type?: string;
  title?: string;
  /** The id of the campaign it belongs to. */
  campaign?: string;
  /** What the job was given: any JSON. Left out if it is too large. */
  parameters?: unknown;
  /** How long it may run, in whole seconds, paused time not counted. */
  timeoutSeconds?: number;
  /** How often its row becomes pending again after a failure. Default: 0. */
  maxRetries?: number;
  /** The user on whose behalf it runs. */
  createdBy?: string;
  /**
   * How many seconds to wait for a job that another process has, before `Refused` with the code `elsewhere`. Default: as
   * long as the job of a process that died is kept for it, and a little longer.
   */
  elsewhereSeconds?: number;
  /** The connection to use. Default: the one of this process, from `WHEELHOUSE_URL` and `WHEELHOUSE_TOKEN`. */
  session?: Session;
}

const BEYOND_REATTACH = 4_000;

/** The work of a job. */
export type Work<T, Point> = (control: Control<Point>) => T | Promise<T>;

/**
 * Runs `work` as the job `id` of `tenant`, under control: it can be seen, paused, resumed and cancelled. Settles with its
 * result once the end is recorded. Rejects with what `work` threw; with `Cancelled`, `TimedOut`, `HandedBack` or `Lost` if
 * it was ended from outside; with `Refused`, and without having begun, if the job has ended before or is elsewhere.
 */
export async function job<T, Point = unknown>(tenant: string, id: string, work: Work<T, Point>): Promise<T>;
export async function job<T, Point = unknown>(
  tenant: string,
  id: string,
  options: JobOptions,
  work: Work<T, Point>,
): Promise<T>;
export async function job<T, Point>(
  tenant: string,
  id: string,
  given: JobOptions | Work<T, Point>,
  maybeWork?: Work<T, Point>,
): Promise<T> {
  const work = typeof given === 'function' ? given : maybeWork;
  if (typeof work !== 'function') throw new TypeError('job(tenant, id, options, work) takes a function as its work.');
  const options = typeof given === 'function' ? {} : given;
  const run = await attachedJob(tenant, id, options);
  const outcome = await perform(run, work);
  if (outcome.ok) return outcome.result;
  throw outcome.error;
}

/** Says that a job is published and not begun, so that it can be seen, paused and cancelled. Gives the row's status. */
export async function expect(
  tenant: string,
  id: string,
  options: JobOptions & { runAfter?: Date } = {},
): Promise<Status> {
  return (await announce(tenant, id, options, false)).status;
}

/** As `expect`; with `linger` the process waits for the answer for a few seconds only before it ends. */
export function announce(
  tenant: string,
  id: string,
  options: JobOptions & { runAfter?: Date },
  linger: boolean,
): Promise<ExpectedMessage> {
  const { runAfter, ...rest } = options;
  const session = options.session ?? sharedSession();
  const description = { ...describe(tenant, id, rest), run_after: moment(runAfter) };
  return session.expect(description, linger);
}

const ENDED: readonly Status[] = ['completed', 'failed', 'cancelled'];

/**
 * Says that a published job will never begin, since it was removed from its queue: its row is ended as cancelled. Gives
 * whether it has ended now; a job that runs somewhere goes on. Rejects with `Refused` where the token is not for the tenant.
 */
export async function withdraw(tenant: string, id: string, options: JobOptions = {}): Promise<boolean> {
  try {
    // Asked first: while Wheelhouse is away this keeps no process alive for long.
    const { status } = await announce(tenant, id, options, true);
    if (ENDED.includes(status)) return true;
    const run = await attachedJob(tenant, id, { ...options, elsewhereSeconds: 0 });
    run.end({ how: 'cancelled' });
    await run.recorded;
    return true;
  } catch (error) {
    if (error instanceof Refused && error.code === 'ended') return true;
    if (error instanceof Refused && error.code === 'elsewhere') return false;
    throw error;
  }
}

/** Attaches a job, and waits for another process that has it. Rejects with `Refused` or `Lost`. */
export async function attachedJob(tenant: string, id: string, options: JobOptions): Promise<Run> {
  const session = options.session ?? sharedSession();
  const began = performance.now();
  for (let pause = 200; ; pause = Math.min(1_000, pause * 2)) {
    const run = attachJob(tenant, id, { ...options, session });
    try {
      await run.attached;
      return run;
    } catch (error) {
      const { elsewhereSeconds } = options;
      const limit = elsewhereSeconds === undefined ? session.reattach + BEYOND_REATTACH : elsewhereSeconds * 1_000;
      const elsewhere = error instanceof Refused && error.code === 'elsewhere';
      if (!elsewhere || performance.now() - began >= limit) throw error;
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }
}

/** Attaches a job. Throws a `TypeError` for an id that Wheelhouse does not take. */
export function attachJob(tenant: string, id: string, options: JobOptions): Run {
  return (options.session ?? sharedSession()).attach(describe(tenant, id, options));
}

function describe(tenant: string, id: string, options: JobOptions): Omit<AttachMessage, 'type' | 'ref' | 'run'> {
  checkId('tenant', tenant);
  checkId('job', id);
  if (options.campaign !== undefined) checkId('campaign', options.campaign);
  return {
    tenant_id: tenant,
    job_id: id,
    job_type: options.type?.slice(0, 255) || 'node',
    title: options.title?.slice(0, 500),
    campaign_id: options.campaign,
    parameters: fitting(options.parameters),
    timeout_seconds: options.timeoutSeconds,
    max_retries: options.maxRetries,
    created_by: options.createdBy?.slice(0, 255) || undefined,
  };
}

function checkId(what: string, id: unknown): void {
  if (typeof id === 'string' && ID.test(id)) return;
  throw new TypeError(
    `"${id}" is no ${what} id: it takes 1 to 128 of A-Z, a-z, 0-9, ".", "_" and "-", and begins with a letter or digit.`,
  );
}

const MOST_PARAMETERS = 64 * 1024;

/** Parameters are shown to people; what is no JSON, very large or very deep is left out rather than the job refused. */
function fitting(parameters: unknown): unknown {
  try {
    const text = JSON.stringify(parameters);
    return text === undefined || text.length > MOST_PARAMETERS || isTooDeep(text) ? undefined : JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** What has become of a run. `status` is the row's, where the end was recorded. */
export type Outcome<T> = { ok: true; result: T; status?: Status } | { ok: false; error: unknown; status?: Status };

/** How an error that the work threw by itself ends the run. */
export type Classify = (error: unknown) => Ending | Promise<Ending>;

/**
 * Waits for the attach, runs the work, and waits until its end is recorded. Rejects with `Refused` if it was not begun; all
 * else is in the outcome.
 */
export async function perform<T, Point>(
  run: Run,
  work: Work<T, Point>,
  classify: Classify = failure,
): Promise<Outcome<T>> {
  const attached = await run.attached;
  const control = new Control<Point>(run, attached.resume_point as Point | null);
  let outcome: Outcome<T>;
  try {
    // Attached as paused, the work begins when it is resumed, and never if it is cancelled before.
    await control.checkpoint();
    outcome = { ok: true, result: await work(control) };
  } catch (error) {
    outcome = { ok: false, error };
  }
  const ending = await endingOf(run, control, outcome, classify);
  if (ending.how !== 'completed' && outcome.ok) outcome = { ok: false, error: run.stop ?? new Cancelled() };
  run.end(ending);
  try {
    const status = await run.recorded;
    return { ...outcome, status };
  } catch (lost) {
    return outcome.ok || lost instanceof Lost ? { ok: false, error: lost } : outcome;
  }
}

async function endingOf<T>(
  run: Run,
  control: Control<never> | Control<unknown>,
  outcome: Outcome<T>,
  classify: Classify,
): Promise<Ending> {
  const { stop } = run;
  if (outcome.ok) {
    // Work that has had the signal may have returned early because of it; work that only has checkpoints has not.
    const early = control.signalTaken && (stop instanceof Cancelled || stop instanceof TimedOut);
    if (!early) return { how: 'completed', result: outcome.result };
  }
  const error = outcome.ok ? stop : outcome.error;
  if (stop instanceof Cancelled || error instanceof Cancelled) return { how: 'cancelled' };
  if (stop instanceof TimedOut) return { how: 'failed', error: stop.message, permanent: true };
  if (error instanceof HandedBack) return { how: 'handed_back', runAfter: error.runAfter };
  return classify(error);
}

function failure(error: unknown): Ending {
  return { how: 'failed', error: errorText(error), permanent: false };
}
