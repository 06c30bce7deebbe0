import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { Queue, Worker, type WorkerOptions } from 'bullmq';
import { Redis as IoRedis } from 'ioredis';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { controlled, published, Session } from '../../src/bullmq/index.js';
import { expect as announce, Cancelled, Refused } from '../../src/worker/index.js';
import { job } from '../support/job.js';
import { elapse, until } from '../support/wait.js';
import { Fleet, Operator, type Process } from '../support/wheelhouse.js';

let fleet: Fleet;
let gateway: Process;
let worker: Process;
let operator: Operator;
let token: string;
let session: Session;
const cleanup: (() => unknown)[] = [];

beforeAll(async () => {
  fleet = await Fleet.start();
  [gateway, worker] = await Promise.all([fleet.gateway(), fleet.worker()]);
  operator = new Operator(gateway, await fleet.token('acme'));
  token = await fleet.workerToken('acme');
  session = new Session({ url: worker.url, token, onWarning: () => {} });
});

afterEach(async () => {
  for (const undo of cleanup.splice(0).reverse()) await undo();
});

afterAll(async () => {
  await session?.close();
  await fleet?.stop();
});

let queues = 0;

/** A queue, and a worker whose jobs tick until `data.ticks` are done. */
function ticking(options: Partial<WorkerOptions> = {}) {
  queues += 1;
  const name = `ticks${queues}`;
  const connection = { port: fleet.redis.port };
  const queue = new Queue(name, { connection });
  const state = { ticks: 0, begun: 0 };
  const work = controlled(
    async (job, ctl) => {
      state.begun += 1;
      for (let i = 0; i < job.data.ticks; i++) {
        await ctl.checkpoint();
        state.ticks += 1;
        ctl.progress({ done: i + 1, total: job.data.ticks });
        await elapse(5);
      }
      return 'all';
    },
    { session },
  );
  const start = (more: Partial<WorkerOptions> = {}) => {
    const started = new Worker(name, work, { connection, stalledInterval: 200, concurrency: 5, ...options, ...more });
    started.on('error', () => {});
    cleanup.push(() => started.close(true));
    return started;
  };
  cleanup.push(() => queue.close());
  return { queue, name, state, start };
}

const data = { tenantId: 'acme', ticks: 100_000 };

describe('BullMQ under a real worker', () => {
  it('pauses, makes no step while it is paused, and goes on', async () => {
    const { queue, name, state, start } = ticking({ lockDuration: 1_000 });
    start();
    const { id } = await queue.add('t', { ...data, ticks: 200 });
    const row = `${name}.${id}`;
    await until(() => state.ticks > 5, 'the work began');
    expect(await operator.row(row)).toMatchObject({ status: 'running', control: 'live' });
    expect(await operator.command(row, 'pause')).toMatchObject({ type: 'pause_succeeded' });
    const at = state.ticks;
    await elapse(3_000);
    expect(state.ticks).toBe(at);
    expect(await queue.getJobState(id!)).toBe('active');
    expect(await operator.row(row)).toMatchObject({ status: 'paused', control: 'live' });
    expect(await operator.command(row, 'resume')).toMatchObject({ type: 'resume_succeeded' });
    await operator.inStatus(row, 'completed');
    expect(await operator.row(row)).toMatchObject({ result: 'all', items_processed: 200 });
    await until(async () => (await queue.getJobState(id!)) === 'completed', 'BullMQ has it completed');
    expect([state.begun, state.ticks]).toEqual([1, 200]);
  });

  it('cancels: nothing runs afterwards, and BullMQ fails the job once', async () => {
    const { queue, name, state, start } = ticking();
    start();
    const { id } = await queue.add('t', data, { attempts: 5 });
    await until(() => state.ticks > 5, 'the work began');
    expect(await operator.command(`${name}.${id}`, 'cancel')).toMatchObject({ type: 'cancel_succeeded' });
    const at = state.ticks;
    await until(async () => (await queue.getJobState(id!)) === 'failed', 'BullMQ has it failed');
    await elapse(500);
    expect([state.begun, state.ticks]).toEqual([1, at]);
    const failed = await queue.getJob(id!);
    expect(failed?.failedReason).toContain('Cancelled by ann');
    expect(failed?.attemptsMade).toBe(1);
    expect(await operator.row(`${name}.${id}`)).toMatchObject({ status: 'cancelled' });
  });

  it('shows what a job says, from outside', async () => {
    const name = 'says';
    const connection = { port: fleet.redis.port };
    const queue = new Queue(name, { connection });
    const says = controlled(
      async (_job, ctl) => {
        ctl.log('begun');
        ctl.log('one\ntwo\n', 'stdout');
        await ctl.checkpoint();
        ctl.log('last');
      },
      { session },
    );
    const started = new Worker(name, says, { connection });
    cleanup.push(
      () => queue.close(),
      () => started.close(true),
    );
    const { id } = await queue.add('t', data);
    await operator.inStatus(`${name}.${id}`, 'completed');
    const said = (await operator.said(`${name}.${id}`, 'last')).map(({ stream, text }) => `${stream}: ${text}`);
    expect(said).toEqual(['log: begun', 'stdout: one', 'stdout: two', 'log: last']);
  });

  it('never runs what was cancelled before any worker was up, and runs what was paused after its resume alone', async () => {
    const { queue, name, state, start } = ticking();
    published(queue, { session });
    const cancelled = await queue.add('t', { ...data, ticks: 10 });
    await operator.inStatus(`${name}.${cancelled.id}`, 'pending');
    expect(await operator.command(`${name}.${cancelled.id}`, 'cancel')).toMatchObject({ type: 'cancel_succeeded' });
    const paused = await queue.add('t', { ...data, ticks: 10 }, { delay: 50 });
    await operator.inStatus(`${name}.${paused.id}`, 'pending');
    expect(await operator.command(`${name}.${paused.id}`, 'pause')).toMatchObject({ type: 'pause_succeeded' });
    start();
    await until(async () => (await queue.getJobState(cancelled.id!)) === 'failed', 'BullMQ has it failed');
    await until(async () => (await queue.getJobState(paused.id!)) === 'active', 'BullMQ has delivered it');
    await elapse(1_000);
    expect([state.begun, state.ticks]).toEqual([0, 0]);
    expect(await operator.command(`${name}.${paused.id}`, 'resume')).toMatchObject({ type: 'resume_succeeded' });
    await operator.inStatus(`${name}.${paused.id}`, 'completed');
    expect([state.begun, state.ticks]).toEqual([1, 10]);
  });

  it('runs a job once that two workers were given', async () => {
    const { queue, name, state, start } = ticking({ lockDuration: 600, skipLockRenewal: true, maxStalledCount: 100 });
    start();
    const { id } = await queue.add('t', { ...data, ticks: 600 });
    await until(() => state.ticks > 5, 'the work began');
    const redis = new IoRedis(fleet.redis.port);
    cleanup.push(() => redis.disconnect());
    // The first delivery loses its lock again and again, as it does in a process that hangs.
    start({ skipLockRenewal: false, lockDuration: 30_000 });
    for (let i = 0; i < 20; i++) {
      await redis.del(`bull:${name}:${id}:lock`);
      await elapse(50);
    }
    await operator.inStatus(`${name}.${id}`, 'completed');
    await until(async () => (await queue.getJobState(id!)) === 'completed', 'BullMQ has it completed');
    expect([state.begun, state.ticks]).toEqual([1, 600]);
  });

  it('never runs what was cancelled before any worker was up, and holds what was paused', async () => {
    const { queue, name, state, start } = ticking();
    const cancelled = await queue.add('t', { ...data, ticks: 3 });
    const paused = await queue.add('t', { ...data, ticks: 3 });
    for (const { id } of [cancelled, paused]) {
      expect(await announce('acme', `${name}.${id}`, { type: `bullmq:${name}`, session })).toBe('pending');
    }
    expect(await operator.command(`${name}.${cancelled.id}`, 'cancel')).toMatchObject({ type: 'cancel_succeeded' });
    expect(await operator.command(`${name}.${paused.id}`, 'pause')).toMatchObject({ type: 'pause_succeeded' });
    start();
    await until(async () => (await queue.getJobState(cancelled.id!)) === 'failed', 'the cancelled one is refused');
    await elapse(500);
    expect(state).toEqual({ begun: 0, ticks: 0 });
    expect(await operator.command(`${name}.${paused.id}`, 'resume')).toMatchObject({ type: 'resume_succeeded' });
    await operator.inStatus(`${name}.${paused.id}`, 'completed');
    expect(state).toEqual({ begun: 1, ticks: 3 });
  });

  it('goes on from the last save after its process was killed, and does every step', async () => {
    queues += 1;
    const name = `killed${queues}`;
    const queue = new Queue(name, { connection: { port: fleet.redis.port } });
    cleanup.push(() => queue.close());
    const start = () => {
      const child: ChildProcess = fork(
        fileURLToPath(new URL('../support/bullmq-process.ts', import.meta.url)),
        [name, String(fleet.redis.port)],
        {
          execArgv: ['--import', 'tsx'],
          env: { ...process.env, WHEELHOUSE_URL: worker.url, WHEELHOUSE_TOKEN: token },
        },
      );
      cleanup.push(() => child.kill('SIGKILL'));
      return child;
    };
    const first = start();
    const { id } = await queue.add('t', { tenantId: 'acme', steps: 60, milliseconds: 20 });
    const redis = new IoRedis(fleet.redis.port);
    cleanup.push(() => redis.disconnect());
    await until(async () => (await redis.llen(`steps:${id}`)) > 15, 'the work began');
    first.kill('SIGKILL');
    start();
    await operator.inStatus(`${name}.${id}`, 'completed');
    const steps = (await redis.lrange(`steps:${id}`, 0, -1)).map(Number);
    expect([...new Set(steps)].sort((a, b) => a - b)).toEqual(Array.from({ length: 60 }, (_, i) => i));
    // Only the step after the last save can be there twice.
    expect(steps.length).toBeLessThanOrEqual(61);
    await until(async () => (await queue.getJobState(id!)) === 'completed', 'BullMQ has it completed');
  });
});

describe('jobs of this process', () => {
  it('tells a cancel with who and why, and refuses a job that has ended', async () => {
    const running = job('acme', 'plain-1', { session }, async (ctl) => {
      for (;;) {
        await ctl.checkpoint();
        await elapse(2);
      }
    }).catch((error: unknown) => error);
    await operator.inStatus('plain-1', 'running');
    expect(await operator.command('plain-1', 'cancel')).toMatchObject({ type: 'cancel_succeeded' });
    expect(await running).toBeInstanceOf(Cancelled);
    expect(await running).toMatchObject({ by: 'ann', reason: 'a test' });
    const again = await job('acme', 'plain-1', { session }, () => 1).catch((error: unknown) => error);
    expect(again).toBeInstanceOf(Refused);
    expect(again).toMatchObject({ code: 'ended', status: 'cancelled' });
    await expect(job('globex', 'plain-2', { session }, () => 1)).rejects.toMatchObject({ code: 'denied' });
  });

  it('answers a cancel that is ignored as failed, with words', async () => {
    let go = false;
    const running = job('acme', 'plain-3', { session }, async (ctl) => {
      while (!go) await elapse(10);
      await ctl.checkpoint();
    }).catch((error: unknown) => error);
    await operator.inStatus('plain-3', 'running');
    const result = await operator.command('plain-3', 'cancel');
    expect(result).toMatchObject({ type: 'cancel_failed' });
    expect(result.error).toContain('a Node process cannot end one job alone');
    go = true;
    expect(await running).toBeInstanceOf(Cancelled);
  });
});

describe('a worker that goes', () => {
  async function runsThrough(name: string, end: (worker: Process) => Promise<void>): Promise<void> {
    const mine = await fleet.worker();
    const port = Number(new URL(mine.url).port);
    const own = new Session({ url: mine.url, token, onWarning: () => {} });
    cleanup.push(() => own.close());
    const steps: Record<string, number[]> = {};
    const ids = Array.from({ length: 10 }, (_, i) => `${name}-${i}`);
    const jobs = ids.map((id) => {
      steps[id] = [];
      return job('acme', id, { session: own }, async (ctl) => {
        for (let i = 0; i < 300; i++) {
          await ctl.checkpoint();
          steps[id]!.push(i);
          await elapse(10);
        }
        return id;
      });
    });
    await until(() => ids.every((id) => steps[id]!.length > 20), 'all are running');
    await end(mine);
    await fleet.worker(port);
    const paused = await operator.command(ids[0]!, 'pause');
    expect(paused).toMatchObject({ type: 'pause_succeeded' });
    const at = steps[ids[0]!]!.length;
    await elapse(300);
    expect(steps[ids[0]!]!.length).toBe(at);
    await operator.command(ids[0]!, 'resume');
    expect(await Promise.all(jobs)).toEqual(ids);
    for (const id of ids) {
      expect(steps[id]).toEqual(Array.from({ length: 300 }, (_, i) => i));
      expect(await operator.row(id)).toMatchObject({ status: 'completed' });
    }
  }

  it('killed and started again: every job goes on, each step once', () => runsThrough('killed', (mine) => mine.kill()));
  it('ended by a deployment: every job goes on, each step once', () =>
    runsThrough('deployed', (mine) => mine.terminate()));
});
