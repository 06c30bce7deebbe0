import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { WebSocket } from 'ws';
import {
  expect as announce,
  Cancelled,
  type Control,
  HandedBack,
  Lost,
  Refused,
  Session,
  type SessionOptions,
  TimedOut,
} from '../../src/worker/index.js';
import { FakeWorker } from '../support/fake-worker.js';
import { job } from '../support/job.js';
import { elapse, gate, until } from '../support/wait.js';

let worker: FakeWorker;
let session: Session;
const warnings: string[] = [];

async function start(welcome = {}, options: SessionOptions = {}) {
  worker = await FakeWorker.start(welcome);
  session = new Session({
    url: worker.url,
    token: 'secret',
    onWarning: (text) => warnings.push(text),
    ...options,
  });
}

beforeEach(() => {
  warnings.length = 0;
});

afterEach(async () => {
  expect(worker.faults).toEqual([]);
  await worker.stop();
  await session.close();
});

/** Counts up at every checkpoint until it is told to stop. */
function ticker() {
  const state = { ticks: 0, done: false };
  const work = async (ctl: Control) => {
    while (!state.done) {
      await ctl.checkpoint();
      state.ticks += 1;
      await elapse(1);
    }
    return state.ticks;
  };
  return { state, work };
}

const order = (ref: number, n: number, what: 'pause' | 'resume' | 'cancel' | 'leave' | 'time_out', kill = false) =>
  worker.send({ type: 'order', ref, order: n, do: what, by: 'ann', reason: 'wrong file', ...(kill ? { kill } : {}) });

describe.each([
  ['the built-in WebSocket', {}],
  ['the class of the package ws', { WebSocket }],
])('a job over %s', (_name, options: SessionOptions) => {
  beforeEach(() => start({}, options));

  it('says who it is, waits for its attach, and gives its result when the end is recorded', async () => {
    const result = job('acme', 'j1', { session, type: 'import', title: 'Import', parameters: { file: 'a' } }, () => ({
      rows: 3,
    }));
    const hello = await worker.next('hello');
    expect(hello).toMatchObject({ v: 1, session: session.id, pid: process.pid });
    expect(worker.protocols[0]?.replaceAll(' ', '')).toBe('wheelhouse-worker.1,bearer.secret');
    const attach = await worker.next('attach');
    expect(attach).toMatchObject({ tenant_id: 'acme', job_id: 'j1', job_type: 'import', parameters: { file: 'a' } });
    const ref = await worker.attach();
    expect(await worker.next('end')).toMatchObject({ ref, how: 'completed', result: { rows: 3 } });
    worker.send({ type: 'ended', ref, status: 'completed' });
    await expect(result).resolves.toEqual({ rows: 3 });
  });

  it('stands still before it says so, makes no step while paused, and goes on when resumed', async () => {
    const { state, work } = ticker();
    const result = job('acme', 'j1', { session }, work);
    const ref = await worker.attach();
    await until(() => state.ticks > 3, 'the work began');
    order(ref, 1, 'pause');
    expect(await worker.next('reached')).toEqual({ type: 'reached', ref, order: 1, state: 'still' });
    const at = state.ticks;
    await elapse(100);
    expect(state.ticks).toBe(at);
    order(ref, 2, 'resume');
    await until(() => state.ticks > at, 'the work went on');
    state.done = true;
    await worker.next('end');
    worker.send({ type: 'ended', ref, status: 'completed' });
    await result;
  });

  it('ends where it is cancelled, answers the order, and rejects with who and why', async () => {
    const { state, work } = ticker();
    const result = job('acme', 'j1', { session }, work);
    const ref = await worker.attach();
    await until(() => state.ticks > 3, 'the work began');
    order(ref, 1, 'cancel');
    expect(await worker.next('reached')).toMatchObject({ order: 1, state: 'ended' });
    const at = state.ticks;
    worker.send({ type: 'ended', ref, status: 'cancelled' });
    const error = await result.catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(Cancelled);
    expect(error).toMatchObject({ by: 'ann', reason: 'wrong file', message: 'Cancelled by ann: wrong file' });
    await elapse(30);
    expect(state.ticks).toBe(at);
    expect(worker.all('end')).toEqual([]);
  });

  it('says lines without waiting, leaves the oldest out where they come too fast, and says so', async () => {
    const result = job('acme', 'j1', { session }, (ctl) => {
      expect(() => ctl.log('x', 'loud' as 'log')).toThrow(/stdout/);
      for (let n = 0; n < 5_000; n++) ctl.log(`line ${n} ${'\u0001'.repeat(50)}`);
      ctl.log('y'.repeat(9_000), 'stderr');
    });
    const ref = await worker.attach();
    await worker.next('end');
    const logs = worker.all('log');
    expect(worker.received.indexOf(logs.at(-1)!)).toBeLessThan(worker.received.findIndex(({ type }) => type === 'end'));
    for (const log of logs) expect(Buffer.byteLength(JSON.stringify(log))).toBeLessThan(262_144);
    const lines = logs.flatMap(({ lines }) => lines);
    expect(lines).toHaveLength(991);
    expect(lines[0]).toBe('… 4011 lines left out');
    expect(lines[1]).toMatch(/^line 4011 /);
    expect(lines.at(-1)).toMatch(/^y+ … \[5040 characters left out\]$/);
    worker.send({ type: 'ended', ref, status: 'completed' });
    await result;
  });

  it('keeps what is said while there is no connection, and tells of a doubt', async () => {
    const middle = gate();
    const result = job('acme', 'j1', { session }, async (ctl) => {
      ctl.log('before');
      await middle.wait();
      ctl.log('meanwhile');
    });
    await worker.attach();
    await worker.next('log');
    worker.refuseWith = 503;
    worker.socket?.terminate();
    await until(() => warnings.length > 0, 'the loss is seen');
    middle.open();
    await elapse(300);
    worker.refuseWith = undefined;
    const ref = await worker.attach(2);
    expect((await worker.next('log', 2)).lines).toEqual([
      '… the connection broke off: lines may be missing here',
      'meanwhile',
    ]);
    await worker.next('end');
    worker.send({ type: 'ended', ref, status: 'completed' });
    await result;
  });

  it('goes on without its lines at a worker that is older than they are', async () => {
    const middle = gate();
    const result = job('acme', 'j1', { session }, async (ctl) => {
      ctl.log('one');
      await middle.wait();
      ctl.log('two');
    });
    await worker.attach();
    await worker.next('log');
    worker.socket?.close(4400, 'There is no message "log"');
    const ref = await worker.attach(2);
    middle.open();
    await worker.next('end');
    expect(worker.all('log')).toHaveLength(1);
    expect(warnings.join()).toContain('older');
    worker.send({ type: 'ended', ref, status: 'completed' });
    await result;
  });

  it('attaches its run again after the connection broke, and says again what was not confirmed', async () => {
    const middle = gate();
    const result = job('acme', 'j1', { session }, async (ctl) => {
      const saved = ctl.save({ at: 7 });
      ctl.progress({ done: 7, total: 9 });
      await saved;
      await middle.wait();
      return 'done';
    });
    const ref = await worker.attach(1, { run: 4 });
    await worker.next('save');
    worker.socket?.terminate();
    expect(await worker.next('attach', 2)).toMatchObject({ ref, run: 4 });
    await worker.attach(2, { run: 4 });
    expect(await worker.next('save', 2)).toMatchObject({ ref, n: 1, point: { at: 7 } });
    expect(await worker.next('progress', 2)).toMatchObject({ items_processed: 7, items_total: 9 });
    worker.send({ type: 'saved', ref, n: 1 });
    middle.open();
    await worker.next('end');
    worker.socket?.close(1012);
    await worker.attach(3, { run: 4 });
    expect(await worker.next('end', 2)).toMatchObject({ ref, how: 'completed', result: 'done' });
    worker.send({ type: 'ended', ref, status: 'completed' });
    await expect(result).resolves.toBe('done');
  });
});

describe('orders', () => {
  beforeEach(() => start());

  it('does not begin a job that is attached as paused, and never if it is cancelled then', async () => {
    let begun = false;
    const result = job('acme', 'j1', { session }, () => {
      begun = true;
    });
    const ref = await worker.attach(1, { status: 'paused' });
    await elapse(50);
    order(ref, 1, 'cancel');
    expect(await worker.next('reached')).toMatchObject({ state: 'ended' });
    worker.send({ type: 'ended', ref, status: 'cancelled' });
    await expect(result).rejects.toBeInstanceOf(Cancelled);
    expect(begun).toBe(false);
  });

  it('hears a pause in a loop that awaits nothing but checkpoints', async () => {
    let ticks = 0;
    const result = job('acme', 'j1', { session }, async (ctl) => {
      for (;;) {
        await ctl.checkpoint();
        ticks += 1;
      }
    });
    const ref = await worker.attach();
    await until(() => ticks > 0, 'the work began');
    order(ref, 1, 'pause');
    await worker.next('reached');
    const at = ticks;
    await elapse(30);
    expect(ticks).toBe(at);
    order(ref, 2, 'cancel');
    await worker.next('reached', 2);
    worker.send({ type: 'ended', ref, status: 'cancelled' });
    await expect(result).rejects.toBeInstanceOf(Cancelled);
  });

  it('aborts the signal of a cancelled job, and takes an early return for its end', async () => {
    const result = job('acme', 'j1', { session }, async (ctl) => {
      await new Promise<void>((resolve) => ctl.signal.addEventListener('abort', () => resolve()));
    });
    const ref = await worker.attach();
    order(ref, 1, 'cancel');
    await worker.next('reached');
    worker.send({ type: 'ended', ref, status: 'cancelled' });
    await expect(result).rejects.toBeInstanceOf(Cancelled);
  });

  it('answers a cancel with the completed end of work that could not notice it', async () => {
    const middle = gate();
    const result = job('acme', 'j1', { session }, () => middle.wait().then(() => 'all'));
    const ref = await worker.attach();
    await middle.entered;
    order(ref, 1, 'cancel');
    await elapse(20);
    middle.open();
    expect(await worker.next('end')).toMatchObject({ how: 'completed', result: 'all' });
    worker.send({ type: 'ended', ref, status: 'completed' });
    await expect(result).resolves.toBe('all');
    expect(worker.all('reached')).toEqual([]);
  });

  it('shields a critical piece from pause and cancel', async () => {
    const steps: string[] = [];
    const middle = gate();
    const result = job('acme', 'j1', { session }, async (ctl) => {
      const { signal } = ctl;
      await ctl.critical(async () => {
        await middle.wait();
        await ctl.checkpoint();
        steps.push(`second half, aborted: ${signal.aborted}`);
      });
      steps.push(`after, aborted: ${signal.aborted}`);
      await ctl.checkpoint();
      steps.push('never');
    });
    const ref = await worker.attach();
    await middle.entered;
    order(ref, 1, 'pause');
    order(ref, 2, 'cancel');
    await elapse(30);
    middle.open();
    expect(await worker.next('reached')).toMatchObject({ order: 2, state: 'ended' });
    worker.send({ type: 'ended', ref, status: 'cancelled' });
    await expect(result).rejects.toBeInstanceOf(Cancelled);
    expect(steps).toEqual(['second half, aborted: false', 'after, aborted: true']);
  });

  it('confirms a pause of branches only when each of them stands still', async () => {
    const slow = gate();
    let ticks = 0;
    const result = job('acme', 'j1', { session }, (ctl) =>
      Promise.all([
        ctl.branch(async () => {
          for (let i = 0; i < 10_000; i++) {
            await ctl.checkpoint();
            ticks += 1;
            await elapse(1);
          }
        }),
        ctl.branch(async () => {
          await slow.wait();
          await ctl.checkpoint();
        }),
      ]),
    );
    const ref = await worker.attach();
    await until(() => ticks > 0, 'the work began');
    order(ref, 1, 'pause');
    await elapse(50);
    expect(worker.all('reached')).toEqual([]);
    slow.open();
    expect(await worker.next('reached')).toMatchObject({ order: 1, state: 'still' });
    order(ref, 2, 'cancel');
    await worker.next('reached', 2);
    worker.send({ type: 'ended', ref, status: 'cancelled' });
    await expect(result).rejects.toBeInstanceOf(Cancelled);
  });

  it('refuses with words to be killed, and ends as cancelled when it does come to a checkpoint', async () => {
    const middle = gate();
    const result = job('acme', 'j1', { session }, async (ctl) => {
      await middle.wait();
      await ctl.checkpoint();
    });
    const ref = await worker.attach();
    await middle.entered;
    order(ref, 1, 'cancel');
    await elapse(20);
    order(ref, 1, 'cancel', true);
    const refused = await worker.next('reached');
    expect(refused).toMatchObject({ order: 1, state: 'refused' });
    expect(refused.error).toContain('a Node process cannot end one job alone');
    middle.open();
    expect(await worker.next('end')).toMatchObject({ how: 'cancelled' });
    worker.send({ type: 'ended', ref, status: 'cancelled' });
    await expect(result).rejects.toBeInstanceOf(Cancelled);
  });

  it('fails a job that has timed out, and hands back one that is to leave', async () => {
    const first = job('acme', 'j1', { session, timeoutSeconds: 5 }, ticker().work);
    const ref = await worker.attach();
    expect((await worker.next('attach')).timeout_seconds).toBe(5);
    order(ref, 1, 'time_out');
    expect(await worker.next('reached')).toMatchObject({ ref, order: 1, state: 'ended' });
    worker.send({ type: 'ended', ref, status: 'failed' });
    await expect(first).rejects.toBeInstanceOf(TimedOut);

    const second = job('acme', 'j2', { session }, ticker().work);
    const other = await worker.attach(2);
    order(other, 1, 'leave');
    expect(await worker.next('end')).toMatchObject({ ref: other, how: 'handed_back' });
    worker.send({ type: 'ended', ref: other, status: 'pending' });
    await expect(second).rejects.toBeInstanceOf(HandedBack);
  });

  it('answers a repeated order again, and passes over an old one', async () => {
    const { state, work } = ticker();
    const result = job('acme', 'j1', { session }, work);
    const ref = await worker.attach();
    order(ref, 5, 'pause');
    await worker.next('reached');
    order(ref, 5, 'pause');
    expect(await worker.next('reached', 2)).toMatchObject({ order: 5, state: 'still' });
    order(ref, 4, 'resume');
    const at = state.ticks;
    await elapse(50);
    expect(state.ticks).toBe(at);
    worker.send({ type: 'lost', ref, message: 'another run has the job' });
    await expect(result).rejects.toBeInstanceOf(Lost);
  });
});

describe('the link', () => {
  it('holds the work when nothing has been heard for two thirds of reattach_seconds', async () => {
    await start({ reattach_seconds: 0.6 });
    const { state, work } = ticker();
    const result = job('acme', 'j1', { session }, work);
    const ref = await worker.attach();
    await until(() => state.ticks > 3, 'the work began');
    worker.socket?.pause();
    await elapse(550);
    const at = state.ticks;
    worker.refuseWith = 503;
    await elapse(200);
    expect(state.ticks).toBe(at);
    worker.refuseWith = undefined;
    await worker.attach(2);
    await until(() => state.ticks > at, 'the work went on after it was attached again');
    state.done = true;
    await worker.next('end');
    worker.send({ type: 'ended', ref, status: 'completed' });
    await result;
  });

  it('ends the work when the job was taken by another meanwhile', async () => {
    await start();
    const result = job('acme', 'j1', { session }, ticker().work);
    const ref = await worker.attach();
    worker.socket?.terminate();
    await worker.next('attach', 2);
    worker.send({ type: 'refused', ref, error: 'elsewhere', message: 'another session has it' });
    await expect(result).rejects.toBeInstanceOf(Lost);
    expect(worker.all('end')).toEqual([]);
  });

  it('takes the row for the answer when the end was recorded and only its confirmation was lost', async () => {
    await start();
    const result = job('acme', 'j1', { session }, () => 42);
    const ref = await worker.attach();
    await worker.next('end');
    worker.socket?.terminate();
    await worker.next('attach', 2);
    worker.send({ type: 'refused', ref, error: 'ended', status: 'completed', message: 'it is completed' });
    await expect(result).resolves.toBe(42);
  });

  it('does not begin what is refused', async () => {
    await start();
    let begun = 0;
    for (const [error, status] of [
      ['ended', 'cancelled'],
      ['elsewhere', undefined],
      ['denied', undefined],
      ['invalid', undefined],
    ] as const) {
      const result = job('acme', 'j1', { session, elsewhereSeconds: 0 }, () => {
        begun += 1;
      });
      const { ref } = await worker.next('attach', worker.all('attach').length + 1);
      worker.send({ type: 'refused', ref, error, ...(status ? { status } : {}), message: 'no', retry_after: 3 });
      const thrown = await result.catch((caught: unknown) => caught);
      expect(thrown).toBeInstanceOf(Refused);
      expect(thrown).toMatchObject({ code: error, status, retryAfter: 3 });
    }
    expect(begun).toBe(0);
  });

  it('waits for another process that has the job', async () => {
    await start();
    const result = job('acme', 'j1', { session }, () => 'mine now');
    const first = await worker.next('attach');
    worker.send({ type: 'refused', ref: first.ref, error: 'elsewhere', message: 'another session has it' });
    const ref = await worker.attach(2);
    expect(ref).not.toBe(first.ref);
    await worker.next('end');
    worker.send({ type: 'ended', ref, status: 'completed' });
    await expect(result).resolves.toBe('mine now');
  });

  it('ends all work when its token is revoked', async () => {
    await start();
    const result = job('acme', 'j1', { session }, ticker().work);
    await worker.attach();
    worker.socket?.close(4403, 'revoked');
    await expect(result).rejects.toBeInstanceOf(Lost);
  });

  it('says that a token is not taken, asks for a new one, and goes on', async () => {
    const tokens = ['old', 'new'];
    await start({}, { token: () => tokens.shift() ?? 'new' });
    worker.refuseWith = 401;
    const result = job('acme', 'j1', { session }, () => 'ok');
    await until(() => warnings.length > 0, 'a warning');
    expect(warnings[0]).toContain('does not take the token');
    worker.refuseWith = undefined;
    const ref = await worker.attach();
    expect(worker.protocols.at(-1)).toContain('bearer.new');
    await worker.next('end');
    worker.send({ type: 'ended', ref, status: 'completed' });
    await expect(result).resolves.toBe('ok');
  });

  it('reads its token anew from a file, for each connection', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'wheelhouse-token-'));
    const file = join(folder, 'token');
    vi.stubEnv('WHEELHOUSE_TOKEN_FILE', file);
    writeFileSync(file, 'first\n');
    await start({}, { token: undefined });
    const result = job('acme', 'j1', { session }, ticker().work);
    await worker.attach();
    writeFileSync(file, 'second\n');
    worker.socket?.close(1012);
    const { ref } = await worker.next('attach', 2);
    expect(worker.protocols.map((text) => /bearer\.(\w+)/.exec(text)?.[1])).toEqual(['first', 'second']);
    worker.send({ type: 'lost', ref, message: 'enough' });
    await expect(result).rejects.toBeInstanceOf(Lost);
    vi.unstubAllEnvs();
    rmSync(folder, { recursive: true });
  });

  it('carries many jobs over one socket', async () => {
    await start();
    const results = Array.from({ length: 50 }, (_, i) => job('acme', `j${i}`, { session }, () => i));
    for (let i = 1; i <= 50; i++) {
      const ref = await worker.attach(i);
      await worker.next('end', i);
      worker.send({ type: 'ended', ref, status: 'completed' });
    }
    expect(await Promise.all(results)).toEqual(Array.from({ length: 50 }, (_, i) => i));
    expect(worker.connections).toBe(1);
    expect(new Set(worker.all('attach').map(({ ref }) => ref)).size).toBe(50);
  });
});

describe('what the work tells', () => {
  beforeEach(() => start({ max_frame: 2048 }));

  it('folds progress, and leaves out what is no figure', async () => {
    const result = job('acme', 'j1', { session }, (ctl) => {
      for (let i = 0; i <= 1000; i++)
        ctl.progress({ done: i + 0.5, total: 1000, percent: Number.NaN, item: `row ${i}` });
      ctl.failedItem('row 3', new TypeError('no number'));
    });
    const ref = await worker.attach();
    await worker.next('end');
    expect(worker.all('progress')).toEqual([
      { type: 'progress', ref, items_processed: 0, items_total: 1000, current_item: 'row 0' },
      { type: 'progress', ref, items_processed: 1000, items_total: 1000, current_item: 'row 1000' },
    ]);
    expect(worker.all('failed_item')[0]).toMatchObject({ item: 'row 3', error: 'TypeError: no number' });
    worker.send({ type: 'ended', ref, status: 'completed' });
    await result;
  });

  it('gives the resume point, counts saves up, and refuses one that is too large', async () => {
    const large = 'x'.repeat(3000);
    const result = job<unknown, { at: number } | string>('acme', 'j1', { session }, async (ctl) => {
      await expect(ctl.save(large)).rejects.toBeInstanceOf(RangeError);
      await ctl.save({ at: 8 });
      const [second, third] = [ctl.save({ at: 9 }), ctl.save({ at: 10 })];
      await Promise.all([second, third]);
      return [ctl.resumePoint, large];
    });
    const ref = await worker.attach(1, { resume_point: { at: 7 } });
    expect(await worker.next('save')).toMatchObject({ n: 1, point: { at: 8 } });
    worker.send({ type: 'saved', ref, n: 1 });
    expect(await worker.next('save', 3)).toMatchObject({ n: 3, point: { at: 10 } });
    worker.send({ type: 'saved', ref, n: 3 });
    const end = await worker.next('end');
    expect(end).toEqual({ type: 'end', ref, how: 'completed' });
    worker.send({ type: 'ended', ref, status: 'completed' });
    await expect(result).resolves.toEqual([{ at: 7 }, large]);
  });

  it('fails with the error of the work, and rejects with that very error', async () => {
    const error = new RangeError('no such row');
    const result = job('acme', 'j1', { session }, () => Promise.reject(error));
    const ref = await worker.attach();
    expect(await worker.next('end')).toMatchObject({ how: 'failed', error: 'RangeError: no such row' });
    worker.send({ type: 'ended', ref, status: 'failed' });
    await expect(result).rejects.toBe(error);
  });

  it('announces a job that has been published', async () => {
    const status = announce('acme', 'j1', { session, type: 'bullmq:mail', runAfter: new Date('2030-01-01T00:00:00Z') });
    const { ref, run_after } = await worker.next('expect');
    expect(run_after).toBe('2030-01-01T00:00:00.000Z');
    worker.send({ type: 'expected', ref, status: 'pending' });
    await expect(status).resolves.toBe('pending');
  });

  it('refuses an id that Wheelhouse does not take', async () => {
    await expect(job('acme', 'a:b', { session }, () => 1)).rejects.toThrow('"a:b" is no job id');
    await expect(job('', 'j', { session }, () => 1)).rejects.toThrow('is no tenant id');
  });
});
