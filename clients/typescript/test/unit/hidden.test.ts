import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { createClient, type Wheelhouse } from '../../src/client/index.js';
import { row } from '../support/fake-gateway.js';

/** A socket that answers as a gateway does, for as long as the network lives; without a network of its own, so that time can be made. */
class FakeSocket {
  static all: FakeSocket[] = [];
  readyState = 0;
  /** Nothing that is sent arrives, and nobody is told. */
  isDead = false;
  readonly sent: { type: string; request_id?: string }[] = [];
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: string }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  onerror = null;

  constructor(
    readonly url: string,
    readonly protocols: string[],
  ) {
    FakeSocket.all.push(this);
    setTimeout(() => {
      this.onopen?.();
      this.give({ type: 'subscribed', tenant_id: 'acme', workers_online: 1 });
    }, 5);
  }

  give(message: object): void {
    if (!this.isDead) this.onmessage?.({ data: JSON.stringify(message) });
  }

  send(text: string): void {
    const message = JSON.parse(text);
    this.sent.push(message);
    if (message.type === 'ping') setTimeout(() => this.give({ type: 'pong' }), 5);
    if (message.type === 'subscribe') {
      setTimeout(() => {
        this.give({ type: 'subscription', filter: message.filter, request_id: message.request_id });
        this.give({ type: 'job_snapshot', ...row('j1', { progress_percent: now }) });
      }, 5);
    }
  }

  close(): void {}
}

const TEN_MINUTES = 600_000;
const page = Object.assign(new EventTarget(), { visibilityState: 'visible' });
const token = (seconds: number) =>
  `h.${Buffer.from(JSON.stringify({ exp: Date.now() / 1_000 + seconds })).toString('base64url')}.s`;
let lifetime: number;
let now: number;
let wh: Wheelhouse;
let reasons: string[];

function look(state: 'hidden' | 'visible'): void {
  page.visibilityState = state;
  page.dispatchEvent(new Event('visibilitychange'));
}

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal('document', page);
  [FakeSocket.all, reasons, now, lifetime] = [[], [], 10, 3_600];
  wh = createClient({
    url: 'http://gateway.test',
    WebSocket: FakeSocket as never,
    getToken: ({ reason }) => {
      reasons.push(reason);
      return token(lifetime);
    },
    fetch: async () => Response.json(row('j1', { progress_percent: now })),
  });
});

afterEach(() => {
  wh.close();
  page.visibilityState = 'visible';
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

it('a tab that is hidden for ten minutes stays on its socket, and is right all the while', async () => {
  const job = wh.job('j1');
  job.subscribe(() => {});
  await vi.advanceTimersByTimeAsync(50);
  expect(job.get()).toMatchObject({ status: 'live', data: { progress_percent: 10 } });
  look('hidden');
  await vi.advanceTimersByTimeAsync(TEN_MINUTES);
  const [socket] = FakeSocket.all;
  socket?.give({ type: 'job_progress', job_id: 'j1', status: 'running', progress_percent: 70, seq: 9 });
  expect(FakeSocket.all).toHaveLength(1);
  expect(job.get()).toMatchObject({ status: 'live', data: { progress_percent: 70 } });
  // It asked after each silence, so that a gateway does not take it for gone; no more often than that.
  const pings = socket?.sent.filter(({ type }) => type === 'ping').length ?? 0;
  expect(pings).toBeGreaterThanOrEqual(20);
  expect(pings).toBeLessThanOrEqual(25);
  look('visible');
  await vi.advanceTimersByTimeAsync(100);
  expect(FakeSocket.all).toHaveLength(1);
  expect(reasons).toEqual(['connect']);
});

it('a computer that slept for ten minutes with a tab does not trust its socket, nor its token', async () => {
  lifetime = 300;
  const job = wh.job('j1');
  const states: string[] = [];
  job.subscribe(({ status }) => states.push(status));
  const list = wh.jobs();
  list.subscribe(() => {});
  await vi.advanceTimersByTimeAsync(50);
  look('hidden');
  // No timer runs meanwhile, and nobody tells that the connection is gone.
  vi.setSystemTime(Date.now() + TEN_MINUTES);
  for (const socket of FakeSocket.all) socket.isDead = true;
  now = 90;
  look('visible');
  // Without an answer within ten seconds it is given up.
  await vi.advanceTimersByTimeAsync(12_000);
  expect(states).toContain('stale');
  expect(job.get()).toMatchObject({ status: 'live', data: { progress_percent: 90 } });
  expect(states.at(-1)).toBe('live');
  expect(FakeSocket.all).toHaveLength(2);
  // The one from before has ended: it is not even shown.
  expect(reasons).toEqual(['connect', 'expired']);
  expect(FakeSocket.all[1]?.protocols).not.toEqual(FakeSocket.all[0]?.protocols);
});

it('a hidden tab without a connection does not hurry, and comes back at once when it is looked at', async () => {
  const job = wh.job('j1');
  job.subscribe(() => {});
  await vi.advanceTimersByTimeAsync(50);
  look('hidden');
  FakeSocket.all[0]?.onclose?.({ code: 1012, reason: 'reconnect in 590000 ms' });
  await vi.advanceTimersByTimeAsync(TEN_MINUTES - 60_000);
  expect(FakeSocket.all).toHaveLength(1);
  expect(job.get().status).toBe('stale');
  look('visible');
  await vi.advanceTimersByTimeAsync(50);
  expect(FakeSocket.all).toHaveLength(2);
  expect(job.get().status).toBe('live');
});
