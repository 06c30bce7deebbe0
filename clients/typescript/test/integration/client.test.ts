import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { createClient, type Wheelhouse } from '../../src/client/index.js';
import { Session } from '../../src/worker/index.js';
import { job } from '../support/job.js';
import { elapse, gate, until } from '../support/wait.js';
import { Fleet, type Process } from '../support/wheelhouse.js';

let fleet: Fleet;
let gateway: Process;
let worker: Process;
let session: Session;
let wh: Wheelhouse;
let number = 0;

beforeAll(async () => {
  fleet = await Fleet.start();
  [gateway, worker] = await Promise.all([fleet.gateway(), fleet.worker()]);
  session = new Session({ url: worker.url, token: await fleet.workerToken('acme'), onWarning: () => {} });
  const token = await fleet.token('acme');
  wh = createClient({ url: gateway.url, WebSocket: WebSocket as never, getToken: () => token });
});

afterEach(async () => {
  for (const { id, status } of (await wh.jobs().page()).jobs) {
    if (['running', 'paused', 'pending'].includes(status))
      await wh
        .job(id)
        .cancel()
        .catch(() => {});
  }
});

afterAll(async () => {
  wh?.close();
  await session?.close();
  await fleet?.stop();
});

/** A job of this process that runs until it is cancelled, and counts. */
async function running(): Promise<{ id: string; ticks: () => number; done: Promise<unknown> }> {
  number += 1;
  const id = `job-${number}`;
  let ticks = 0;
  const done = job('acme', id, { session, type: 'ticks' }, async (ctl) => {
    for (;;) {
      await ctl.checkpoint();
      ticks += 1;
      ctl.progress({ done: ticks });
      await elapse(5);
    }
  }).catch((error: unknown) => error);
  await until(() => ticks > 0, 'the job runs');
  return { id, ticks: () => ticks, done };
}

describe('a page at a real gateway', () => {
  it('watches a job, pauses, resumes and cancels it, each when it is true', async () => {
    const { id, ticks, done } = await running();
    const handle = wh.job(id);
    const statuses: (string | undefined)[] = [];
    const end = handle.subscribe(({ data }) => statuses.push(data?.status));
    await until(() => (handle.get().data?.items_processed ?? 0) > 0, 'progress is shown');
    expect(handle.get()).toMatchObject({ status: 'live', data: { control: 'live' } });
    expect(await handle.pause({ reason: 'lunch' })).toMatchObject({ type: 'pause_succeeded', status: 'paused' });
    const at = ticks();
    await elapse(300);
    expect(ticks()).toBe(at);
    await until(() => handle.get().data?.status === 'paused', 'it is shown as paused');
    expect(await handle.resume()).toMatchObject({ status: 'running' });
    expect(await handle.cancel()).toMatchObject({ status: 'cancelled' });
    await done;
    await until(() => handle.get().data?.status === 'cancelled', 'it is shown as cancelled');
    end();
    await expect(handle.cancel()).rejects.toMatchObject({
      code: 'failed',
      message: 'Job not found or already completed',
    });
    await expect(wh.job('nobody').pause()).rejects.toMatchObject({ code: 'not_found' });
    expect([...new Set(statuses.filter(Boolean))]).toEqual(['running', 'paused', 'cancelled']);
  });

  it('settles a pause once, though its gateway is killed while it waits', async () => {
    number += 1;
    const id = `job-${number}`;
    const middle = gate();
    const done = job('acme', id, { session }, async (ctl) => {
      await middle.wait();
      for (;;) {
        await ctl.checkpoint();
        await elapse(5);
      }
    }).catch((error: unknown) => error);
    await middle.entered;
    const states: string[] = [];
    const unsubscribe = wh.connection.subscribe(() => states.push(wh.connection.get().status));
    let settled = 0;
    const pause = wh.job(id).pause();
    void pause.finally(() => {
      settled += 1;
    });
    await until(async () => (await wh.job(id).load()).desired === 'paused', 'the pause is under way');
    await gateway.kill();
    await until(() => states.includes('waiting'), 'the loss is noticed');
    middle.open();
    gateway = await fleet.gateway(Number(new URL(gateway.url).port));
    expect(await pause).toMatchObject({ type: 'pause_succeeded', status: 'paused' });
    await elapse(300);
    expect(settled).toBe(1);
    unsubscribe();
    await wh.job(id).cancel();
    await done;
    // Workers carry the trail into SQL in its order, a moment later.
    const trail = async () => (await fleet.call('audit', '--resource', id, '--json')).split('\n');
    const has = (line: string, action: string, event: string) => line.includes(action) && line.includes(event);
    await until(async () => (await trail()).some((line) => has(line, 'cancel', 'succeeded')), 'the trail is in SQL');
    expect((await trail()).filter((line) => has(line, 'pause', 'accepted'))).toHaveLength(1);
  });

  it('lists jobs and keeps the list, and pauses and cancels many at once', async () => {
    const jobs = [await running(), await running(), await running()];
    const ids = jobs.map(({ id }) => id);
    const list = wh.jobs({ jobType: 'ticks', limit: 50 });
    const end = list.subscribe(() => {});
    const shown = () => list.get().jobs.filter(({ id }) => ids.includes(id));
    await until(() => shown().length === 3, 'the list has all three');
    expect(await wh.batch('pause', { jobIds: ids }).preview()).toMatchObject({ accepted: 3 });
    expect(await wh.batch('pause', { jobIds: ids }).run()).toMatchObject({ succeeded: 3, failed: 0 });
    await until(() => shown().every(({ status }) => status === 'paused'), 'the list shows them paused');
    const fourth = await running();
    await until(() => list.get().jobs.some(({ id }) => id === fourth.id), 'a new job comes into the list');
    end();
    const all = await wh.batch('cancel', { jobs: { jobType: 'ticks' } }).run({ reason: 'tidy up' });
    expect(all.succeeded).toBe(4);
    await Promise.all([...jobs, fourth].map(({ done }) => done));
  });

  it('schedules a cancel and takes it back', async () => {
    const { id } = await running();
    const schedule = await wh.job(id).cancel({ in: '8h', reason: 'night' });
    expect(schedule.runAt.getTime()).toBeGreaterThan(Date.now() + 7 * 3_600_000);
    expect((await wh.schedules()).map(({ schedule_id }) => schedule_id)).toContain(schedule.id);
    await schedule.withdraw();
    expect((await wh.schedules()).map(({ schedule_id }) => schedule_id)).not.toContain(schedule.id);
    await expect(schedule.withdraw()).rejects.toMatchObject({ code: 'not_found' });
  });

  it('comes back with a new token when the old one has expired, and keeps its commands', async () => {
    const { id } = await running();
    const asked: string[] = [];
    const mine = createClient({
      url: gateway.url,
      WebSocket: WebSocket as never,
      getToken: ({ reason }) => {
        asked.push(reason);
        // Who issues tokens is away when the first one is to be replaced in time.
        if (reason === 'expiring') throw new Error('no token just now');
        return fleet.token('acme', 'bob', '*', asked.length === 1 ? '2s' : '1h');
      },
    });
    const states: (number | undefined)[] = [];
    const handle = mine.job(id);
    handle.subscribe(() => {});
    mine.connection.subscribe(() => states.push(mine.connection.get().code));
    // A socket is closed five seconds after its token's end, which is how far clocks may differ.
    await until(() => states.includes(4401), 'the token has expired');
    expect(await handle.pause()).toMatchObject({ status: 'paused' });
    expect(asked).toEqual(['connect', 'expiring', 'expired']);
    mine.close();
  });

  it('says what a user may not do', async () => {
    const { id } = await running();
    const token = await fleet.token('acme', 'eve', 'jobs.read');
    const eve = createClient({ url: gateway.url, WebSocket: WebSocket as never, getToken: () => token });
    await expect(eve.job(id).cancel()).rejects.toMatchObject({
      code: 'permission_denied',
      message: 'Insufficient permissions to cancel job',
    });
    eve.close();
  });
});
