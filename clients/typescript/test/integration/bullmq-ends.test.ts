import * as bullmq6 from 'bullmq';
import * as bullmq5 from 'bullmq5';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type ControlledProcessor, controlled, published, Session } from '../../src/bullmq/index.js';
import { elapse, gate, until } from '../support/wait.js';
import { Fleet, Operator } from '../support/wheelhouse.js';

let fleet: Fleet;
let operator: Operator;
let session: Session;

beforeAll(async () => {
  fleet = await Fleet.start();
  const [gateway, worker] = await Promise.all([fleet.gateway(), fleet.worker()]);
  operator = new Operator(gateway, await fleet.token('acme'));
  session = new Session({ url: worker.url, token: await fleet.workerToken('acme'), onWarning: () => {} });
});

afterAll(async () => {
  await session?.close();
  await fleet?.stop();
});

// Both versions have what is used here; their types differ in what is not.
const versions: [string, typeof bullmq6][] = [
  ['6', bullmq6],
  ['5', bullmq5 as unknown as typeof bullmq6],
];
let queues = 0;

describe.each(versions)('what BullMQ %s itself does with jobs', (version, bullmq) => {
  const cleanup: (() => Promise<unknown>)[] = [];

  afterEach(async () => {
    for (const undo of cleanup.splice(0).reverse()) await undo();
  });

  function setUp(work?: ControlledProcessor<bullmq6.Job, unknown>) {
    queues += 1;
    const name = `ends${version}-${queues}`;
    const connection = { port: fleet.redis.port };
    const open = () => {
      const queue = new bullmq.Queue(name, { connection });
      cleanup.push(() => queue.close());
      return queue;
    };
    const start = () => {
      if (!work) return;
      const worker = new bullmq.Worker(name, controlled(work, { session }), { connection, stalledInterval: 300 });
      worker.on('error', () => {});
      cleanup.push(() => worker.close(true));
    };
    const queue = published(open(), { session });
    const row = (id: string | undefined) => `${name}.${id}`;
    const inState = (id: string | undefined, state: string) =>
      until(async () => (await queue.getJobState(id!)) === state, `job ${id} is ${state}`);
    return { queue, open, start, row, inState };
  }

  const data = { tenantId: 'acme' };

  it('a job that is removed before it has begun is cancelled, whoever removes it', async () => {
    const { queue, open, row } = setUp();
    const [removed, byId, fetched, added, elsewhere, kept] = await queue.addBulk(
      ['removed', 'byId', 'fetched', 'added', 'elsewhere', 'kept'].map((name) => ({
        name,
        data,
        opts: { jobId: name },
      })),
    );
    for (const job of [removed, byId, fetched, added, elsewhere, kept])
      await operator.inStatus(row(job?.id), 'pending');
    await removed?.remove();
    await queue.remove('byId');
    await (await queue.getJob('fetched'))?.remove();
    // Removed and added again at once, as those do who want the newest data: it is the same job, and still to be done.
    await added?.remove();
    await queue.add('added', { ...data, newer: true }, { jobId: 'added' });
    for (const id of ['removed', 'byId', 'fetched']) await operator.inStatus(row(id), 'cancelled');
    expect(await operator.row(row('added'))).toMatchObject({ status: 'pending' });
    // Another process, which knows nothing of Wheelhouse.
    await open().remove('elsewhere');
    await operator.inStatus(row('elsewhere'), 'cancelled');
    expect(await operator.row(row('kept'))).toMatchObject({ status: 'pending' });
    await queue.obliterate();
    await operator.inStatus(row('kept'), 'cancelled');
  });

  it('a program that empties its queue and ends leaves no job that waits', async () => {
    const { queue, row } = setUp();
    const waiting = await queue.add('waiting', data);
    const delayed = await queue.add('delayed', data, { delay: 60_000 });
    for (const { id } of [waiting, delayed]) await operator.inStatus(row(id), 'pending');
    await queue.drain(true);
    await queue.close();
    for (const { id } of [waiting, delayed]) expect(await operator.row(row(id))).toMatchObject({ status: 'cancelled' });
  });

  it.each([
    ['throws nothing', {}, () => Promise.reject(undefined), 'The work threw undefined'],
    ['throws what has no text', {}, () => Promise.reject(Object.create(null)), 'unknown error'],
    ['gives what is no JSON', {}, () => 10n, 'TypeError: Do not know how to serialize a BigInt'],
    [
      'throws, and BullMQ knows no such backoff',
      { attempts: 3, backoff: { type: 'no-such' } },
      () => Promise.reject(new Error('mine')),
      'mine (not tried again: ',
    ],
  ])('a job that %s has failed in both', async (_what, opts, work, text) => {
    const { queue, start, row, inState } = setUp(work);
    start();
    const { id } = await queue.add('odd', data, opts);
    await inState(id, 'failed');
    expect(await operator.row(row(id))).toMatchObject({
      status: 'failed',
      error_message: expect.stringContaining(text),
    });
  });

  it('an active job goes on when its queue is obliterated, and ends as it ends', async () => {
    const middle = gate();
    const { queue, start, row } = setUp(async () => {
      await middle.wait();
      return 'done';
    });
    start();
    const { id } = await queue.add('active', data);
    await middle.entered;
    await expect(queue.remove(id!)).resolves.toBe(0); // BullMQ does not remove what is locked.
    await queue.pause();
    await queue.obliterate({ force: true });
    await elapse(1_500);
    expect(await operator.row(row(id))).toMatchObject({ status: 'running' });
    middle.open();
    await operator.inStatus(row(id), 'completed');
  });

  it('an active job that is obliterated is still cancelled', async () => {
    let ticks = 0;
    const { queue, start, row } = setUp(async (_job, ctl) => {
      for (;;) {
        await ctl.checkpoint();
        ticks += 1;
        await elapse(2);
      }
    });
    start();
    const { id } = await queue.add('active', data);
    await until(() => ticks > 3, 'the work began');
    await queue.pause();
    await queue.obliterate({ force: true });
    expect(await operator.command(row(id), 'cancel')).toMatchObject({ type: 'cancel_succeeded' });
    const at = ticks;
    await elapse(200);
    expect(ticks).toBe(at);
    await operator.inStatus(row(id), 'cancelled');
  });

  it('DelayedError: pending until it is due, without a try more, and a cancel in between holds', async () => {
    let begun = 0;
    const { queue, start, row, inState } = setUp(async (job, _ctl, token) => {
      begun += 1;
      if (job.attemptsStarted > 1) return 'second time';
      await job.moveToDelayed(Date.now() + job.data.delay, token);
      throw new bullmq.DelayedError();
    });
    start();
    const cancelled = await queue.add('long', { ...data, delay: 60_000 }, { attempts: 3 });
    await inState(cancelled.id, 'delayed');
    await operator.inStatus(row(cancelled.id), 'pending');
    const waits = (await operator.row(row(cancelled.id))) as { run_after?: string; retry_count?: number };
    expect(Date.parse(waits.run_after ?? '')).toBeGreaterThan(Date.now() + 30_000);
    expect(waits.retry_count).toBe(0);
    expect(await operator.command(row(cancelled.id), 'cancel')).toMatchObject({ type: 'cancel_succeeded' });
    await (await queue.getJob(cancelled.id!))?.promote();
    await inState(cancelled.id, 'failed');
    expect(begun).toBe(1);
    const short = await queue.add('short', { ...data, delay: 200 }, { attempts: 3 });
    await operator.inStatus(row(short.id), 'completed');
    await inState(short.id, 'completed');
    expect((await queue.getJob(short.id!))?.attemptsMade).toBe(1);
  });

  it('WaitingChildrenError: pending while its children run, and then it goes on', async () => {
    const { queue, start, row, inState } = setUp(async (job, _ctl, token) => {
      if (job.name === 'child') return 'part';
      if (!job.data.asked) {
        await job.updateData({ ...job.data, asked: true });
        const parent = { id: job.id!, queue: job.queueQualifiedName };
        await queue.add('child', { tenantId: 'acme' }, { parent, delay: 700, jobId: 'child' });
        if (await job.moveToWaitingChildren(token!)) throw new bullmq.WaitingChildrenError();
      }
      return Object.values(await job.getChildrenValues());
    });
    start();
    const { id } = await queue.add('parent', data, { attempts: 3 });
    await inState(id, 'waiting-children');
    await operator.inStatus(row(id), 'pending');
    await operator.inStatus(row(id), 'completed');
    expect(await operator.row(row(id))).toMatchObject({ result: ['part'], retry_count: 0 });
    expect(await operator.row(row('child'))).toMatchObject({ status: 'completed' });
    await inState(id, 'completed');
  });

  it('RateLimitError: it waits again, without a try more', async () => {
    let begun = 0;
    const { queue, start, row, inState } = setUp(async () => {
      begun += 1;
      if (begun > 1) return 'now';
      await queue.rateLimit(300);
      throw new bullmq.RateLimitError();
    });
    start();
    const { id } = await queue.add('limited', data, { attempts: 1 });
    await operator.inStatus(row(id), 'completed');
    await inState(id, 'completed');
    expect([begun, (await queue.getJob(id!))?.attemptsMade]).toEqual([2, 1]);
    expect(await operator.row(row(id))).toMatchObject({ retry_count: 0 });
  });

  it('UnrecoverableError, and a class of it: failed at once in both', async () => {
    class WrongFile extends bullmq.UnrecoverableError {}
    const { queue, start, row, inState } = setUp(async (job) => {
      throw job.name === 'own' ? new WrongFile('wrong file') : new bullmq.UnrecoverableError('hopeless');
    });
    start();
    for (const [name, error] of [
      ['plain', 'hopeless'],
      ['own', 'wrong file'],
    ] as const) {
      const { id } = await queue.add(name, data, { attempts: 5 });
      await inState(id, 'failed');
      expect((await queue.getJob(id!))?.attemptsMade).toBe(1);
      const failed = await operator.row(row(id));
      expect(failed?.status).toBe('failed');
      expect(failed?.error_message).toContain(error);
    }
  });
});
