import * as bullmq6 from 'bullmq';
import * as bullmq5 from 'bullmq5';
import { Redis as IoRedis } from 'ioredis';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  type ControlledOptions,
  type ControlledProcessor,
  controlled,
  published,
  publishedFlow,
  Session,
  wheelhouseId,
} from '../../src/bullmq/index.js';
import { FakeWorker } from '../support/fake-worker.js';
import { type Redis, startRedis } from '../support/redis.js';
import { elapse, gate, until } from '../support/wait.js';

let redis: Redis;

beforeAll(async () => {
  redis = await startRedis();
});
afterAll(() => redis.stop());

// Both versions have what is used here; their types differ in what is not.
const versions: [string, typeof bullmq6][] = [
  ['6', bullmq6],
  ['5', bullmq5 as unknown as typeof bullmq6],
];

describe.each(versions)('BullMQ %s', (version, bullmq) => {
  let wheelhouse: FakeWorker;
  let session: Session;
  let queue: bullmq6.Queue;
  let number = 0;
  const workers: bullmq6.Worker[] = [];

  beforeEach(async () => {
    number += 1;
    wheelhouse = await FakeWorker.start();
    session = new Session({ url: wheelhouse.url, token: 'secret', onWarning: () => {} });
    queue = new bullmq.Queue(`mail${version}-${number}`, { connection: { port: redis.port } });
  });

  afterEach(async () => {
    expect(wheelhouse.faults).toEqual([]);
    await session.close();
    for (const worker of workers.splice(0)) await worker.close(true);
    await queue.close();
    await wheelhouse.stop();
  });

  type AnyWork = ControlledProcessor<bullmq6.Job, unknown>;

  function startWorker(work: AnyWork, options: Partial<bullmq6.WorkerOptions> = {}, more: ControlledOptions = {}) {
    const worker = new bullmq.Worker(queue.name, controlled(work, { session, ...more }), {
      connection: { port: redis.port },
      concurrency: 5,
      stalledInterval: 100,
      ...options,
    });
    worker.on('error', () => {});
    workers.push(worker);
    return worker;
  }

  const data = { tenantId: 'acme', to: 'ann' };
  const inState = (id: string, state: string) =>
    until(async () => (await queue.getJobState(id)) === state, `job ${id} is ${state}`);

  it('runs a job under its id and type, and completes it in both', async () => {
    startWorker(async (job, ctl) => `${job.data.to} by ${ctl.tenant}`);
    const { id } = await queue.add('welcome', data);
    const attach = await wheelhouse.next('attach');
    expect(attach).toMatchObject({
      tenant_id: 'acme',
      job_id: `${queue.name}.${id}`,
      job_type: `bullmq:${queue.name}`,
      title: 'welcome',
      parameters: data,
    });
    const ref = await wheelhouse.attach();
    expect(await wheelhouse.next('end')).toMatchObject({ how: 'completed', result: 'ann by acme' });
    // BullMQ is told only when the end is recorded.
    await elapse(50);
    expect(await queue.getJobState(id!)).toBe('active');
    wheelhouse.send({ type: 'ended', ref, status: 'completed' });
    await inState(id!, 'completed');
    expect((await queue.getJob(id!))?.returnvalue).toBe('ann by acme');
  });

  it('keeps the lock through a pause that is longer than the lock, makes no step, and goes on', async () => {
    let ticks = 0;
    let done = false;
    startWorker(
      async (_job, ctl) => {
        while (!done) {
          await ctl.checkpoint();
          ticks += 1;
          await elapse(2);
        }
      },
      // BullMQ's own renewal is off, so that it is this package that keeps the lock.
      { lockDuration: 600, stalledInterval: 200, skipLockRenewal: true },
    );
    const { id } = await queue.add('welcome', data);
    const ref = await wheelhouse.attach();
    await until(() => ticks > 3, 'the work began');
    wheelhouse.send({ type: 'order', ref, order: 1, do: 'pause', by: 'ann' });
    await wheelhouse.next('reached');
    const at = ticks;
    await elapse(2_000);
    expect(ticks).toBe(at);
    expect(await queue.getJobState(id!)).toBe('active');
    wheelhouse.send({ type: 'order', ref, order: 2, do: 'resume', by: 'ann' });
    await until(() => ticks > at, 'the work went on');
    done = true;
    await wheelhouse.next('end');
    wheelhouse.send({ type: 'ended', ref, status: 'completed' });
    await inState(id!, 'completed');
    expect(wheelhouse.all('attach')).toHaveLength(1);
  });

  it('fails a cancelled job once, whatever attempts it has left', async () => {
    let begun = 0;
    startWorker(async (_job, ctl) => {
      begun += 1;
      for (;;) {
        await ctl.checkpoint();
        await elapse(2);
      }
    });
    const { id } = await queue.add('welcome', data, { attempts: 5 });
    const ref = await wheelhouse.attach();
    await until(() => begun > 0, 'the work began');
    wheelhouse.send({ type: 'order', ref, order: 1, do: 'cancel', by: 'ann', reason: 'wrong list' });
    expect(await wheelhouse.next('reached')).toMatchObject({ state: 'ended' });
    wheelhouse.send({ type: 'ended', ref, status: 'cancelled' });
    await inState(id!, 'failed');
    const job = await queue.getJob(id!);
    expect(job?.failedReason).toBe('Cancelled by ann: wrong list');
    expect([begun, job?.attemptsMade]).toEqual([1, 1]);
  });

  it('hands a job back while BullMQ tries it again, and fails it with the last attempt', async () => {
    let tries = 0;
    startWorker(async () => {
      tries += 1;
      throw new Error(`no answer ${tries}`);
    });
    const before = Date.now();
    const { id } = await queue.add('welcome', data, { attempts: 2, backoff: { type: 'fixed', delay: 300 } });
    const first = await wheelhouse.attach();
    const end = await wheelhouse.next('end');
    expect(end.how).toBe('handed_back');
    expect(Date.parse(end.run_after ?? '')).toBeGreaterThanOrEqual(before + 300);
    wheelhouse.send({ type: 'ended', ref: first, status: 'pending' });
    const second = await wheelhouse.attach(2, { run: 2 });
    expect(await wheelhouse.next('end', 2)).toMatchObject({ how: 'failed', error: 'no answer 2', permanent: true });
    wheelhouse.send({ type: 'ended', ref: second, status: 'failed' });
    await inState(id!, 'failed');
    expect((await queue.getJob(id!))?.failedReason).toBe('no answer 2');
  });

  it('takes the word of the application for whether it is tried again, and asks once', async () => {
    let asked = 0;
    const backoffStrategy = () => {
      asked += 1;
      return -1;
    };
    startWorker(() => Promise.reject(new Error('hopeless')), { settings: { backoffStrategy } });
    const { id } = await queue.add('welcome', data, { attempts: 5, backoff: { type: 'custom' } });
    const ref = await wheelhouse.attach();
    expect(await wheelhouse.next('end')).toMatchObject({ how: 'failed', permanent: true });
    wheelhouse.send({ type: 'ended', ref, status: 'failed' });
    await inState(id!, 'failed');
    expect(asked).toBe(1);
  });

  it('does not try again what was cancelled while it was handed back', async () => {
    startWorker(() => Promise.reject(new Error('no answer')));
    const { id } = await queue.add('welcome', data, { attempts: 5 });
    const ref = await wheelhouse.attach();
    await wheelhouse.next('end');
    wheelhouse.send({ type: 'ended', ref, status: 'cancelled' });
    await inState(id!, 'failed');
    expect(wheelhouse.all('attach')).toHaveLength(1);
  });

  it('puts a job that is elsewhere back, and runs it when it is free', async () => {
    let begun = 0;
    startWorker(async () => {
      begun += 1;
    });
    const { id } = await queue.add('welcome', data);
    const { ref } = await wheelhouse.next('attach');
    wheelhouse.send({ type: 'refused', ref, error: 'elsewhere', message: 'another session has it', retry_after: 1 });
    await inState(id!, 'delayed');
    expect(begun).toBe(0);
    const again = await wheelhouse.attach(2);
    await wheelhouse.next('end');
    wheelhouse.send({ type: 'ended', ref: again, status: 'completed' });
    await inState(id!, 'completed');
    const job = await queue.getJob(id!);
    expect([begun, job?.attemptsMade]).toEqual([1, 1]);
  });

  it('tells of jobs when they are added, of delayed ones when they are due, and adds them also where it cannot', async () => {
    published(queue, { session });
    const before = Date.now();
    const { id } = await queue.add('welcome', data);
    const [later] = await queue.addBulk([{ name: 'later', data, opts: { delay: 60_000, attempts: 3 } }]);
    const repeated = await queue.upsertJobScheduler('hourly', { every: 3_600_000 }, { name: 'tick', data });
    const expected = [await wheelhouse.next('expect', 1), await wheelhouse.next('expect', 2)];
    expect(expected[0]).toMatchObject({ tenant_id: 'acme', job_id: `${queue.name}.${id}`, title: 'welcome' });
    expect(expected[1]?.job_id).toBe(`${queue.name}.${later?.id}`);
    expect(Date.parse(expected[1]?.run_after ?? '')).toBeGreaterThanOrEqual(before + 60_000);
    expect((await wheelhouse.next('expect', 3)).job_id).toBe(wheelhouseId(queue.name, repeated?.id ?? ''));
    // Without a tenant there is nobody to tell; the job is in the queue all the same.
    const warned = new Promise((resolve) => process.once('warning', resolve));
    const without = await queue.add('welcome', {});
    expect(String(await warned)).toContain('has no tenant');
    await inState(without.id!, 'waiting');
    for (const { ref } of wheelhouse.all('expect')) wheelhouse.send({ type: 'expected', ref, status: 'pending' });
  });

  it('tells of every job of a flow, and runs the parent when its children have ended', async () => {
    const flows = publishedFlow(new bullmq.FlowProducer({ connection: { port: redis.port } }), { session });
    const child = { name: 'part', queueName: queue.name, data };
    await flows.add({ name: 'whole', queueName: queue.name, data, children: [child, child] });
    await wheelhouse.next('expect', 3);
    const titles = wheelhouse.all('expect').map((message) => message.title);
    expect(titles).toEqual(['whole', 'part', 'part']);
    for (const { ref } of wheelhouse.all('expect')) wheelhouse.send({ type: 'expected', ref, status: 'pending' });
    const order: string[] = [];
    startWorker(async (job) => {
      order.push(job.name);
    });
    for (let n = 1; n <= 3; n++) {
      const ref = await wheelhouse.attach(n);
      await wheelhouse.next('end', n);
      wheelhouse.send({ type: 'ended', ref, status: 'completed' });
    }
    await until(() => order.length === 3, 'all have run');
    expect(order).toEqual(['part', 'part', 'whole']);
    await flows.close();
  });

  it('fails in Wheelhouse what BullMQ gives up because it has stalled too often', async () => {
    startWorker(async () => 'sent', { stalledInterval: 100, maxStalledCount: 0 });
    await queue.add('first', data);
    const first = await wheelhouse.attach();
    await wheelhouse.next('end');
    wheelhouse.send({ type: 'ended', ref: first, status: 'completed' });
    // Another process takes a job and dies: its lock runs out.
    const other = new bullmq.Worker(queue.name, null, { connection: { port: redis.port }, skipStalledCheck: true });
    await workers[0]?.pause();
    const { id } = await queue.add('second', data);
    const taken = await other.getNextJob('token-of-the-dead');
    expect(taken?.id).toBe(id);
    await other.close(true);
    const client = new IoRedis(redis.port);
    await client.del(`bull:${queue.name}:${id}:lock`);
    client.disconnect();
    workers[0]?.resume();
    const attach = await wheelhouse.next('attach', 2);
    expect(attach.job_id).toBe(`${queue.name}.${id}`);
    const ref = await wheelhouse.attach(2, { run: 2 });
    expect(await wheelhouse.next('end', 2)).toMatchObject({ how: 'failed', permanent: true });
    wheelhouse.send({ type: 'ended', ref, status: 'failed' });
    await inState(id!, 'failed');
  });

  it('leaves it to BullMQ when a job is rate limited, moved to delayed or waits for its children', async () => {
    const worker = startWorker(async (job, _ctl, token) => {
      if (job.name === 'limited' && job.attemptsStarted === 1) {
        await worker.rateLimit(50);
        throw bullmq.Worker.RateLimitError();
      }
      if (job.name === 'delayed' && job.attemptsStarted === 1) {
        await job.moveToDelayed(Date.now() + 50, token);
        throw new bullmq.DelayedError();
      }
      return job.name;
    });
    let n = 0;
    for (const name of ['limited', 'delayed']) {
      const { id } = await queue.add(name, data);
      const first = await wheelhouse.attach(n + 1);
      const back = await wheelhouse.next('end', n + 1);
      expect([back.how, back.error]).toEqual(['handed_back', undefined]);
      wheelhouse.send({ type: 'ended', ref: first, status: 'pending' });
      const second = await wheelhouse.attach(n + 2, { run: 2 });
      expect(await wheelhouse.next('end', n + 2)).toMatchObject({ how: 'completed', result: name });
      wheelhouse.send({ type: 'ended', ref: second, status: 'completed' });
      await inState(id!, 'completed');
      expect((await queue.getJob(id!))?.attemptsMade).toBe(1);
      n += 2;
    }
  });

  it('never runs what has ended', async () => {
    let begun = 0;
    startWorker(async () => {
      begun += 1;
    });
    const cancelled = await queue.add('welcome', data, { attempts: 5 });
    const first = await wheelhouse.next('attach');
    wheelhouse.send({ type: 'refused', ref: first.ref, error: 'ended', status: 'cancelled', message: 'by ann' });
    await inState(cancelled.id!, 'failed');
    expect((await queue.getJob(cancelled.id!))?.failedReason).toContain('Not run: the job is cancelled in Wheelhouse');
    const completed = await queue.add('welcome', data);
    const second = await wheelhouse.next('attach', 2);
    wheelhouse.send({ type: 'refused', ref: second.ref, error: 'ended', status: 'completed', message: 'it is' });
    await inState(completed.id!, 'completed');
    expect((await queue.getJobLogs(completed.id!)).logs[0]).toContain('Completed by an earlier delivery');
    expect(begun).toBe(0);
  });

  it('runs a job once that BullMQ took for stalled and delivered twice, and keeps its result', async () => {
    const middle = gate();
    let begun = 0;
    const work: AnyWork = async () => {
      begun += 1;
      await middle.wait();
      return 'sent';
    };
    startWorker(work, { lockDuration: 30_000 });
    const { id } = await queue.add('welcome', data);
    const ref = await wheelhouse.attach();
    await middle.entered;
    // The lock is lost as it is when a process hangs for longer than its lock.
    const client = new IoRedis(redis.port);
    expect(await client.del(`bull:${queue.name}:${id}:lock`)).toBe(1);
    client.disconnect();
    startWorker(work, { stalledInterval: 100 });
    const second = await wheelhouse.next('attach', 2);
    wheelhouse.send({ type: 'refused', ref: second.ref, error: 'elsewhere', message: 'another run', retry_after: 1 });
    await inState(id!, 'delayed');
    middle.open();
    await wheelhouse.next('end');
    wheelhouse.send({ type: 'ended', ref, status: 'completed' });
    const third = await wheelhouse.next('attach', 3);
    wheelhouse.send({ type: 'refused', ref: third.ref, error: 'ended', status: 'completed', message: 'it is' });
    await inState(id!, 'completed');
    expect((await queue.getJob(id!))?.returnvalue).toBe('sent');
    expect(begun).toBe(1);
  });

  it('closes a worker whose job is paused, and hands the job back', async () => {
    const worker = startWorker(async (_job, ctl) => {
      for (;;) {
        await ctl.checkpoint();
        await elapse(2);
      }
    });
    const { id } = await queue.add('welcome', data);
    const ref = await wheelhouse.attach();
    wheelhouse.send({ type: 'order', ref, order: 1, do: 'pause', by: 'ann' });
    await wheelhouse.next('reached');
    const closed = worker.close();
    expect(await wheelhouse.next('end')).toMatchObject({ how: 'handed_back' });
    wheelhouse.send({ type: 'ended', ref, status: 'paused' });
    await closed;
    expect(['delayed', 'waiting']).toContain(await queue.getJobState(id!));
  });

  it('aborts a job that is cancelled in BullMQ itself, and lets BullMQ decide', async () => {
    const worker = startWorker(async (_job, ctl) => {
      for (;;) {
        await ctl.checkpoint();
        await elapse(2);
      }
    });
    if (typeof worker.cancelJob !== 'function') return;
    const { id } = await queue.add('welcome', data);
    const ref = await wheelhouse.attach();
    await until(() => worker.cancelJob(id!, 'by hand'), 'BullMQ knows the job');
    expect(await wheelhouse.next('end')).toMatchObject({ how: 'failed', error: 'by hand' });
    wheelhouse.send({ type: 'ended', ref, status: 'failed' });
    await inState(id!, 'failed');
  });

  it('takes the tenant from an option, and fails a job that has none with words', async () => {
    startWorker(async () => 'ok', {}, { tenant: (job) => job.data.customer });
    const good = await queue.add('welcome', { customer: 'globex' });
    expect((await wheelhouse.next('attach')).tenant_id).toBe('globex');
    const ref = await wheelhouse.attach();
    await wheelhouse.next('end');
    wheelhouse.send({ type: 'ended', ref, status: 'completed' });
    await inState(good.id!, 'completed');
    const bad = await queue.add('welcome', {}, { attempts: 5 });
    await inState(bad.id!, 'failed');
    expect((await queue.getJob(bad.id!))?.failedReason).toContain('has no tenant: put tenantId into its data');
  });

  it('gives repeated jobs, whose ids have colons, ids that Wheelhouse takes', async () => {
    startWorker(async () => 'ok');
    await queue.upsertJobScheduler('nightly', { every: 60_000 }, { name: 'welcome', data });
    const attach = await wheelhouse.next('attach');
    expect(attach.job_id).toMatch(new RegExp(`^${queue.name}\\.repeat-nightly-\\d+\\.[0-9a-f]{12}$`));
    await queue.removeJobScheduler('nightly');
    const ref = await wheelhouse.attach();
    await wheelhouse.next('end');
    wheelhouse.send({ type: 'ended', ref, status: 'completed' });
  });
});

describe('controlled()', () => {
  it('refuses a sandboxed processor with words', () => {
    expect(() => controlled('./processor.js' as never)).toThrow(/takes a function. A sandboxed processor/);
    expect(() => controlled(new URL('file:///processor.js') as never)).toThrow(TypeError);
  });

  it('maps ids in one way, and never two to one', () => {
    expect(wheelhouseId('mail', '17')).toBe('mail.17');
    const ids = ['a:b', 'a-b', 'a b', 'a.b', `${'x'.repeat(200)}1`, `${'x'.repeat(200)}2`, 'ä', '-', ''].map((id) =>
      wheelhouseId('{q}', id),
    );
    expect(new Set(ids).size).toBe(ids.length);
    for (const id of ids) expect(id).toMatch(/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/);
  });
});
