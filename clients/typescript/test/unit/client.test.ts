import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { CommandError, createClient, type Message, type Wheelhouse } from '../../src/client/index.js';
import { FakeGateway, row } from '../support/fake-gateway.js';
import { elapse, until } from '../support/wait.js';

let gateway: FakeGateway;
let wh: Wheelhouse;
const asked: string[] = [];

beforeEach(async () => {
  asked.length = 0;
  gateway = await FakeGateway.start();
  wh = createClient({
    url: gateway.url,
    WebSocket: WebSocket as never,
    getToken: ({ reason }) => {
      asked.push(reason);
      return `token-${asked.length}`;
    },
  });
});

afterEach(async () => {
  wh.close();
  await gateway.stop();
});

const base = { job_id: 'j1', tenant_id: 'acme' };
const ack = ({ request_id }: Message) => ({ type: 'pause_requested', ...base, command_id: 'c1', request_id });
const succeeded = { type: 'pause_succeeded', ...base, command_id: 'c1', status: 'paused' };

describe('commands', () => {
  it('settle with the result, not with the ack', async () => {
    let settled = false;
    const pause = wh.job('j1').pause({ reason: 'lunch', requestId: 'r1' });
    void pause.then(() => {
      settled = true;
    });
    const sent = await gateway.next('pause_job');
    expect(sent).toEqual({ type: 'pause_job', job_id: 'j1', request_id: 'r1', reason: 'lunch' });
    gateway.send(ack(sent));
    await elapse(50);
    expect(settled).toBe(false);
    gateway.send(succeeded);
    expect(await pause).toMatchObject({ type: 'pause_succeeded', status: 'paused' });
  });

  it('are sent again under the same name over any number of lost connections, and settle once', async () => {
    let settled = 0;
    const pause = wh.job('j1').pause();
    void pause.then(() => {
      settled += 1;
    });
    const first = await gateway.next('pause_job');
    gateway.send(ack(first));
    gateway.socket.terminate();
    const second = await gateway.next('pause_job', 2);
    expect(second).toEqual(first);
    gateway.socket.close(1012, 'reconnect in 30 ms');
    const third = await gateway.next('pause_job', 3);
    expect(third).toEqual(first);
    gateway.send(ack(third));
    gateway.send(succeeded);
    gateway.send(succeeded);
    await pause;
    await elapse(30);
    expect(settled).toBe(1);
  });

  it('throw with the code and the wait', async () => {
    const pause = wh
      .job('j1')
      .pause()
      .catch((error: unknown) => error);
    const { request_id } = await gateway.next('pause_job');
    gateway.send({ type: 'error', error: 'rate_limit_exceeded', message: 'Rate limit', retry_after: 7, request_id });
    expect(await pause).toBeInstanceOf(CommandError);
    expect(await pause).toMatchObject({ code: 'rate_limit_exceeded', retryAfter: 7 });

    const cancel = wh
      .job('j1')
      .cancel()
      .catch((error: unknown) => error);
    const sent = await gateway.next('cancel_job');
    gateway.send({ ...ack(sent), type: 'cancel_requested', command_id: 'c2' });
    gateway.send({ type: 'cancel_failed', ...base, command_id: 'c2', error: 'Job not found or already completed' });
    expect(await cancel).toMatchObject({ code: 'failed', message: 'Job not found or already completed' });
  });

  it('ask again when the outcome is unknown', async () => {
    const pause = wh.job('j1').pause();
    const first = await gateway.next('pause_job');
    gateway.send({ type: 'error', error: 'outcome_unknown', message: '?', request_id: first.request_id });
    const again = await gateway.next('pause_job', 2);
    expect(again).toEqual(first);
    gateway.send(ack(again));
    gateway.send(succeeded);
    await pause;
  });

  it('can be left alone, and can be scheduled', async () => {
    const leave = new AbortController();
    const pause = wh
      .job('j1')
      .pause({ signal: leave.signal })
      .catch((error: unknown) => error);
    await gateway.next('pause_job');
    leave.abort(new Error('changed my mind'));
    expect(await pause).toMatchObject({ message: 'changed my mind' });

    const cancel = wh.job('j1').cancel({ in: '8h' });
    const { delay_seconds, request_id } = await gateway.next('cancel_job');
    expect(delay_seconds).toBe(28_800);
    gateway.send({ type: 'cancel_scheduled', ...base, schedule_id: 's1', run_at: '2030-01-01T00:00:00Z', request_id });
    const schedule = await cancel;
    expect(schedule).toMatchObject({ id: 's1', runAt: new Date('2030-01-01T00:00:00Z') });
    await expect(wh.job('j1').cancel({ in: 'soon' })).rejects.toThrow('is no length of time');
  });

  it('keep to the pace that a socket allows', async () => {
    const all = Array.from({ length: 60 }, (_, i) =>
      wh
        .job(`j${i}`)
        .pause()
        .catch(() => {}),
    );
    await gateway.next('pause_job', 1);
    const first = Date.now();
    await gateway.next('pause_job', 60);
    // Thirty at once, then fifteen a second.
    expect(Date.now() - first).toBeGreaterThan(1_500);
    wh.close();
    await Promise.all(all);
  });
});

describe('the connection', () => {
  it('waits as long as a gateway that leaves says', async () => {
    wh.job('j1').subscribe(() => {});
    await gateway.connected(1);
    const before = Date.now();
    gateway.socket.close(1012, 'reconnect in 300 ms');
    await until(() => wh.connection.get().status === 'waiting', 'it waits');
    expect(wh.connection.get()).toMatchObject({ code: 1012 });
    await gateway.connected(2);
    expect(Date.now() - before).toBeGreaterThanOrEqual(290);
  });

  it('asks for a token once, however many need it, and for a new one when it has expired', async () => {
    gateway.rows.set('j1', row('j1'));
    for (const id of ['j1', 'j2', 'j3']) wh.job(id).subscribe(() => {});
    const pause = wh.job('j1').pause();
    await gateway.next('pause_job');
    expect(asked).toEqual(['connect']);
    gateway.refused.add('token-1');
    gateway.socket.close(4401, 'token expired');
    const loads = [wh.job('j1').load(), wh.job('j1').load(), wh.job('j1').load()];
    await gateway.next('pause_job', 2);
    await Promise.all(loads);
    expect(asked).toEqual(['connect', 'expired']);
    expect(gateway.tokens).toEqual(['token-1', 'token-2']);
    gateway.send(ack(await gateway.next('pause_job', 2)));
    gateway.send(succeeded);
    await pause;
  });

  it('asks for another token when a socket is refused for the first, and never seems to be open meanwhile', async () => {
    gateway.refused.add('token-1');
    const states: string[] = [];
    wh.connection.subscribe(() => states.push(wh.connection.get().status));
    wh.job('j1').subscribe(() => {});
    await gateway.connected(1);
    await until(() => states.includes('open'), 'it is open');
    expect(states).toEqual(['connecting', 'waiting', 'connecting', 'open']);
    expect(gateway.tokens).toEqual(['token-2']);
    expect(asked).toEqual(['connect', 'expired']);
  });

  it.each([4403, 4404])('does not try again after a refusal with %i', async (code) => {
    gateway.refuse = code;
    const pause = wh
      .job('j1')
      .pause()
      .catch((error: unknown) => error);
    expect(await pause).toMatchObject({ code: 'closed', message: 'refused' });
    expect(wh.connection.get()).toMatchObject({ status: 'closed', code });
    await elapse(700);
    expect(gateway.refusals).toBe(1);
  });

  it.each([4429, 4503])('tries again after a refusal with %i', async (code) => {
    gateway.refuse = code;
    gateway.rows.set('j1', row('j1'));
    const job = wh.job('j1');
    job.subscribe(() => {});
    await until(() => wh.connection.get().code === code, 'it waits');
    gateway.refuse = undefined;
    await until(() => job.get().status === 'live', 'it is live');
  });

  it('gives its socket a newer token before the old one ends, and goes on without a break', async () => {
    gateway.rows.set('j1', row('j1'));
    const states: string[] = [];
    wh.connection.subscribe(() => states.push(wh.connection.get().status));
    wh.job('j1').subscribe(() => {});
    await until(() => wh.job('j1').get().status === 'live', 'it is live');
    gateway.send({ type: 'token_expiring', expires_at: 1, expires_in: 60 });
    expect(await gateway.next('refresh_token')).toEqual({ type: 'refresh_token', token: 'token-2' });
    await wh.job('j1').load();
    expect(asked).toEqual(['connect', 'expiring']);
    expect(gateway.sockets).toHaveLength(1);
    expect(states).toEqual(['connecting', 'open']);
  });

  it.each([
    ['the token that there is', () => 'token-1'],
    ['none', () => Promise.reject(new Error('the issuer is away'))],
  ])('sends nothing where it is given %s, and goes on with the old one', async (_, answer) => {
    gateway.rows.set('j1', row('j1'));
    const reasons: string[] = [];
    const mine = createClient({
      url: gateway.url,
      WebSocket: WebSocket as never,
      getToken: ({ reason }) => {
        reasons.push(reason);
        return reason === 'connect' ? 'token-1' : answer();
      },
    });
    mine.job('j1').subscribe(() => {});
    await until(() => mine.job('j1').get().status === 'live', 'it is live');
    gateway.send({ type: 'token_expiring', expires_at: 1, expires_in: 60 });
    await until(() => reasons.length === 2, 'it was asked');
    await mine.job('j1').load();
    expect(reasons).toEqual(['connect', 'expiring']);
    expect(gateway.received.filter(({ type }) => type === 'refresh_token')).toEqual([]);
    mine.close();
  });

  it('asks again for a token when it was given something that is none', async () => {
    const tokens = ['no token, surely', 'token'];
    const mine = createClient({
      url: gateway.url,
      WebSocket: WebSocket as never,
      getToken: () => tokens.shift() as string,
    });
    mine.job('j1').subscribe(() => {});
    await gateway.connected(1);
    expect(gateway.tokens).toEqual(['token']);
    mine.close();
  });

  it('does not come back when access is revoked, and says so to those who wait', async () => {
    const pause = wh
      .job('j1')
      .pause()
      .catch((error: unknown) => error);
    await gateway.next('pause_job');
    gateway.socket.close(4403, 'access revoked');
    expect(await pause).toMatchObject({ code: 'closed', message: 'access revoked' });
    expect(wh.connection.get()).toMatchObject({ status: 'closed', code: 4403 });
    await elapse(700);
    expect(gateway.sockets).toHaveLength(1);
    await expect(wh.job('j1').pause()).rejects.toMatchObject({ code: 'closed' });
  });

  it('asks for tokens that say themselves that they are over', async () => {
    const token = (exp: number) => `h.${Buffer.from(JSON.stringify({ exp })).toString('base64url')}.s`;
    const tokens = [token(Date.now() / 1000 + 1), token(Date.now() / 1000 + 3600)];
    const mine = createClient({
      url: gateway.url,
      WebSocket: WebSocket as never,
      getToken: () => tokens.shift() as string,
    });
    mine.job('j1').subscribe(() => {});
    await gateway.connected(1);
    await elapse(1_100);
    gateway.socket.terminate();
    await gateway.connected(2);
    expect(gateway.tokens[1]).not.toBe(gateway.tokens[0]);
    mine.close();
  });
});

describe('watching', () => {
  it('follows a job: a snapshot, then what is newer, and nothing leaves an end', async () => {
    gateway.rows.set('j1', row('j1', { desired: 'paused' }));
    const job = wh.job('j1');
    job.subscribe(() => {});
    await until(() => job.get().status === 'live', 'it is live');
    expect(job.get().data).toMatchObject({ status: 'running', desired: 'paused' });
    gateway.send({ type: 'job_progress', ...base, status: 'running', progress_percent: 40, seq: 6 });
    gateway.send({ type: 'job_progress', ...base, status: 'running', progress_percent: 30, seq: 4 });
    await until(() => job.get().data?.progress_percent === 40, 'progress');
    gateway.send({ type: 'job_status', ...base, status: 'completed', seq: 7 });
    gateway.send({ type: 'job_progress', ...base, status: 'running', progress_percent: 50, seq: 8 });
    await until(() => job.get().data?.status === 'completed', 'the end');
    await elapse(30);
    expect(job.get().data).toMatchObject({ status: 'completed', progress_percent: 40 });
    expect(job.get().data).not.toHaveProperty('desired');
  });

  it('is stale while the connection is lost, and live again with what is true then', async () => {
    gateway.rows.set('j1', row('j1'));
    const states: string[] = [];
    const job = wh.job('j1');
    job.subscribe(({ status }) => states.push(status));
    await until(() => job.get().status === 'live', 'it is live');
    gateway.rows.set('j1', row('j1', { status: 'failed', seq: 9 }));
    gateway.socket.terminate();
    await until(() => job.get().data?.status === 'failed', 'the new state');
    expect(states).toEqual(['live', 'stale', 'live']);
  });

  it('is stale while the gateway says that news may not come, and live again with what is true then', async () => {
    gateway.rows.set('j1', row('j1'));
    gateway.list = { jobs: [row('j1')], next: null };
    const connection: string[] = [];
    wh.connection.subscribe(() => connection.push(wh.connection.get().status));
    const [job, list] = [wh.job('j1'), wh.jobs()];
    const states: string[] = [];
    job.subscribe(({ status }) => states.push(status));
    list.subscribe(() => {});
    await until(() => job.get().status === 'live' && list.get().status === 'live', 'both are live');
    const since = '2026-01-31T22:00:00Z';
    gateway.send({ type: 'feed_interrupted', tenant_id: 'acme', reason: 'redis', since });
    await until(() => job.get().status === 'stale' && list.get().status === 'stale', 'both are stale');
    expect(wh.connection.get()).toEqual({ status: 'interrupted', reason: 'redis', since });
    // What still comes does not make it look live.
    gateway.send({ type: 'job_progress', ...base, status: 'running', progress_percent: 40, seq: 6 });
    gateway.rows.set('j1', row('j1', { status: 'failed', seq: 9 }));
    gateway.list = { jobs: [row('j1', { status: 'failed', seq: 9 }), row('j2')], next: null };
    gateway.send({ type: 'feed_resumed', tenant_id: 'acme' });
    await until(() => job.get().data?.status === 'failed' && list.get().jobs.length === 2, 'the new state');
    expect(wh.connection.get()).toEqual({ status: 'open' });
    expect(states).toEqual(['live', 'stale', 'live']);
    expect(connection).toEqual(['connecting', 'open', 'interrupted', 'open']);
    expect(gateway.sockets).toHaveLength(1);
  });

  it('answers commands while it is interrupted, and sends those again that have no result when it goes on', async () => {
    wh.job('j1').subscribe(() => {});
    await gateway.next('subscribe');
    gateway.send({ type: 'feed_interrupted', tenant_id: 'acme', reason: 'redis', since: '2026-01-31T22:00:00Z' });
    await until(() => wh.connection.get().status === 'interrupted', 'it is interrupted');
    const refused = wh.job('j1').pause({ requestId: 'r1' });
    const asked = refused.catch((error: unknown) => error);
    const { request_id } = await gateway.next('pause_job');
    gateway.send({ type: 'error', error: 'unavailable', message: 'Redis is away', request_id });
    expect(await asked).toMatchObject({ code: 'unavailable' });
    const pause = wh.job('j1').pause({ requestId: 'r2' });
    gateway.send(ack(await gateway.next('pause_job', 2)));
    gateway.send({ type: 'feed_resumed', tenant_id: 'acme' });
    expect(await gateway.next('pause_job', 3)).toMatchObject({ request_id: 'r2' });
    gateway.send(succeeded);
    expect(await pause).toMatchObject({ status: 'paused' });
  });

  it('reads again what could not be read', async () => {
    gateway.rows.set('j1', row('j1'));
    gateway.away = true;
    const job = wh.job('j1');
    job.subscribe(() => {});
    await until(() => job.get().status === 'failed', 'it could not be read');
    expect(job.get().error).toMatchObject({ code: 'unavailable' });
    gateway.away = false;
    await until(() => job.get().status === 'live', 'it is live');
  });

  it('says what is missing', async () => {
    const job = wh.job('nobody');
    job.subscribe(() => {});
    await until(() => job.get().status === 'missing', 'it is missing');
    expect(job.get().error).toMatchObject({ code: 'not_found' });
    gateway.rows.set('nobody', row('nobody'));
    gateway.send({ type: 'job_status', job_id: 'nobody', tenant_id: 'acme', status: 'running', seq: 1 });
    await until(() => job.get().status === 'live', 'it is there now');
  });

  it('gets the state of a page of components over the one socket, and asks for nothing over HTTP', async () => {
    const ids = Array.from({ length: 100 }, (_, i) => `j${i}`);
    for (const id of ids) gateway.rows.set(id, row(id));
    for (const id of ids) wh.job(id).subscribe(() => {});
    await until(() => ids.every((id) => wh.job(id).get().status === 'live'), 'all are live');
    wh.job('nobody').subscribe(() => {});
    await until(() => wh.job('nobody').get().status === 'missing', 'it is missing');
    expect(gateway.sockets).toHaveLength(1);
    // One more than a hundred are read one by one: the last, and nobody else.
    expect(gateway.requests).toEqual(['GET /api/v1/jobs/nobody']);
  });

  it('puts an update that came before its snapshot after it', async () => {
    const job = wh.job('j1');
    job.subscribe(() => {});
    await gateway.next('subscribe');
    await until(() => job.get().status === 'missing', 'there is none yet');
    gateway.rows.set('j1', row('j1'));
    gateway.send({ type: 'resynchronize', tenant_id: 'acme' });
    await gateway.next('subscribe', 2);
    await until(() => job.get().status === 'live', 'it is live');
    expect(job.get().data).not.toHaveProperty('type');
  });

  it('serves many components over one socket and with one subscription', async () => {
    const jobs = Array.from({ length: 300 }, (_, i) => `j${i}`);
    for (const id of jobs) gateway.rows.set(id, row(id));
    const undo = jobs.flatMap((id) => [wh.job(id).subscribe(() => {}), wh.job(id).subscribe(() => {})]);
    await until(() => jobs.every((id) => wh.job(id).get().status === 'live'), 'all are live');
    expect(gateway.sockets).toHaveLength(1);
    const subscribed = gateway.received.filter(({ type }) => type === 'subscribe');
    expect(subscribed).toHaveLength(1);
    expect((subscribed[0]!.filter as { job_ids: string[] }).job_ids).toHaveLength(300);
    expect(gateway.requests.filter((path) => path.includes('/jobs/'))).toHaveLength(300);
    for (const end of undo) end();
    expect((await gateway.next('subscribe', 2)).filter).toEqual({ job_ids: ['0'] });
  });

  it('gives messages one after another, beginning with a snapshot', async () => {
    gateway.rows.set('j1', row('j1'));
    const seen: string[] = [];
    for await (const message of wh.job('j1').messages()) {
      seen.push(message.type);
      if (seen.length === 1) {
        gateway.send({ type: 'job_progress', ...base, status: 'running', progress_percent: 40, seq: 6 });
        gateway.send({ type: 'pause_failed', ...base, command_id: 'x', error: 'no' });
      }
      if (seen.length === 3) break;
    }
    expect(seen).toEqual(['job_snapshot', 'job_progress', 'pause_failed']);
  });

  it('gives a socket of its own', async () => {
    const socket = wh.socket('/api/v1/realtime/ws/jobs/j1');
    const messages: string[] = [];
    socket.subscribe(({ type }) => messages.push(type));
    socket.send({ type: 'cancel_job' });
    expect(await gateway.next('cancel_job')).toEqual({ type: 'cancel_job' });
    await until(() => messages.includes('subscribed'), 'its first message');
    socket.close();
  });
});

describe('createClient', () => {
  it('says what it lacks', () => {
    expect(() => createClient({ getToken: () => '', WebSocket: WebSocket as never })).toThrow(
      "needs the gateway's url",
    );
  });
});
