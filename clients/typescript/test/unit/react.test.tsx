// @vitest-environment happy-dom
import { get } from 'node:http';
import { StrictMode } from 'react';
import { createRoot, hydrateRoot } from 'react-dom/client';
import { renderToString } from 'react-dom/server';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { createClient, type JobNow, type Wheelhouse } from '../../src/client/index.js';
import { useConnection, useJob, useJobs, useWebSocket, WheelhouseProvider } from '../../src/react/index.js';
import { FakeGateway, row } from '../support/fake-gateway.js';
import { until } from '../support/wait.js';

(globalThis as { IS_REACT_ACT_ENVIRONMENT?: boolean }).IS_REACT_ACT_ENVIRONMENT = false;

/** Node's, over a plain connection: the page's own would ask for CORS, and this is about React. */
const nodeFetch = (async (address: string, init: RequestInit) =>
  new Promise((resolve, reject) => {
    const headers = init.headers as Record<string, string>;
    get(address, { headers }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('end', () => {
        const status = response.statusCode ?? 0;
        const text = async () => Buffer.concat(chunks).toString();
        resolve({ status, ok: status < 400, text } as Response);
      });
    }).on('error', reject);
  })) as typeof fetch;

let gateway: FakeGateway;
let wh: Wheelhouse;
let page: HTMLElement;

beforeEach(async () => {
  gateway = await FakeGateway.start();
  wh = createClient({ url: gateway.url, WebSocket: WebSocket as never, getToken: () => 'token', fetch: nodeFetch });
  page = document.createElement('main');
  document.body.append(page);
});

afterEach(async () => {
  page.remove();
  wh.close();
  await gateway.stop();
});

const shows = (text: string) => until(() => page.textContent === text, `the page shows "${text}"`);

function Monitor({ id, initial }: { id: string; initial?: JobNow }) {
  const { data, status, pause } = useJob(id, { initial });
  return (
    <button type="button" onClick={() => void pause({ requestId: 'r1' })}>
      {`${data?.status} ${data?.progress_percent} ${status}`}
    </button>
  );
}

function Own() {
  const ws = useWebSocket('/api/v1/realtime/ws/jobs/j1');
  return (
    <button type="button" onClick={() => ws.send({ type: 'cancel_job' })}>
      {`${ws.data?.status} ${ws.data?.type} ${ws.status}`}
    </button>
  );
}

function List() {
  const { status } = useConnection();
  const list = useJobs({ campaignId: 'c1', limit: 2 });
  return <p>{`${status} ${list.status} ${list.jobs.map((job) => `${job.id}:${job.status}`)}`}</p>;
}

describe('useJob', () => {
  it('shows a job under StrictMode, follows it, and lets go of it', async () => {
    gateway.rows.set('j1', row('j1'));
    const root = createRoot(page);
    root.render(
      <StrictMode>
        <WheelhouseProvider client={wh}>
          <Monitor id="j1" />
        </WheelhouseProvider>
      </StrictMode>,
    );
    await shows('running 0 live');
    expect(gateway.sockets).toHaveLength(1);
    gateway.send({ type: 'job_progress', job_id: 'j1', status: 'running', progress_percent: 40, seq: 6 });
    await shows('running 40 live');
    page.querySelector('button')?.click();
    expect(await gateway.next('pause_job')).toMatchObject({ job_id: 'j1', request_id: 'r1' });
    gateway.send({ type: 'pause_requested', job_id: 'j1', command_id: 'c', request_id: 'r1' });
    gateway.send({ type: 'pause_succeeded', job_id: 'j1', command_id: 'c', status: 'paused' });
    gateway.send({ type: 'job_status', job_id: 'j1', status: 'paused', seq: 7 });
    await shows('paused 40 live');
    root.unmount();
    await until(
      () => gateway.received.some(({ filter }) => JSON.stringify(filter) === '{"job_ids":["0"]}'),
      'the subscription ends with the component',
    );
  });

  it('shows that nothing is live while news may not come, in every hook', async () => {
    gateway.rows.set('j1', row('j1'));
    const root = createRoot(page);
    root.render(
      <WheelhouseProvider client={wh}>
        <Monitor id="j1" />
        <Own />
        <List />
      </WheelhouseProvider>,
    );
    await shows('running 0 liveundefined subscribed openopen live ');
    const word = { tenant_id: 'acme', reason: 'redis', since: '2026-01-31T22:00:00Z' };
    const tell = (message: object) => {
      for (const socket of gateway.sockets) socket.send(JSON.stringify(message));
    };
    tell({ type: 'feed_interrupted', ...word });
    await shows('running 0 staleundefined feed_interrupted interruptedinterrupted stale ');
    tell({ type: 'feed_resumed', tenant_id: 'acme' });
    await shows('running 0 liveundefined feed_resumed openopen live ');
    root.unmount();
  });

  it('renders on a server with what it was given, and goes live in the page without a difference', async () => {
    gateway.rows.set('j1', row('j1', { progress_percent: 60 }));
    const app = (
      <WheelhouseProvider client={wh}>
        <Monitor id="j1" initial={row('j1', { progress_percent: 50 }) as JobNow} />
      </WheelhouseProvider>
    );
    const html = renderToString(app);
    expect(html).toContain('running 50 loading');
    expect(gateway.sockets).toHaveLength(0);
    page.innerHTML = html;
    const differences: unknown[] = [];
    const root = hydrateRoot(page, app, { onRecoverableError: (error) => differences.push(error) });
    await shows('running 60 live');
    expect(differences).toEqual([]);
    root.unmount();
  });

  it('shares one socket and one subscription among a thousand components', async () => {
    const ids = Array.from({ length: 1_000 }, (_, i) => `j${i}`);
    for (const id of ids) gateway.rows.set(id, row(id));
    const root = createRoot(page);
    root.render(
      <WheelhouseProvider client={wh}>
        {ids.map((id) => (
          <Monitor key={id} id={id} />
        ))}
      </WheelhouseProvider>,
    );
    await until(() => page.textContent?.split('live').length === 1_001, 'all are live');
    expect(gateway.sockets).toHaveLength(1);
    expect(gateway.received.filter(({ type }) => type === 'subscribe')).toHaveLength(1);
    root.unmount();
  });
});

describe('the other hooks', () => {
  it('useWebSocket keeps the status while other messages come, and sends', async () => {
    const root = createRoot(page);
    root.render(
      <StrictMode>
        <WheelhouseProvider client={wh}>
          <Own />
        </WheelhouseProvider>
      </StrictMode>,
    );
    await shows('undefined subscribed open');
    gateway.send({ type: 'job_snapshot', job_id: 'j1', status: 'running', seq: 1 });
    gateway.send({ type: 'cancel_requested', job_id: 'j1' });
    await shows('running cancel_requested open');
    page.querySelector('button')?.click();
    expect(await gateway.next('cancel_job')).toEqual({ type: 'cancel_job' });
    root.unmount();
  });

  it('useConnection and useJobs say what is live', async () => {
    gateway.list = { jobs: [row('b'), row('a')], next: null };
    const root = createRoot(page);
    root.render(
      <WheelhouseProvider client={wh}>
        <List />
      </WheelhouseProvider>,
    );
    await shows('open live b:running,a:running');
    expect(gateway.requests).toContain('GET /api/v1/jobs?campaign_id=c1&limit=2');
    gateway.send({ type: 'job_status', job_id: 'a', status: 'completed', seq: 9 });
    await shows('open live b:running,a:completed');
    gateway.list = { jobs: [row('c'), row('b')], next: null };
    gateway.send({ type: 'job_status', job_id: 'c', status: 'running', seq: 1 });
    await shows('open live c:running,b:running');
    root.unmount();
  });

  it('say what is missing around them', () => {
    expect(() => renderToString(<Monitor id="j1" />)).toThrow('There is no <WheelhouseProvider');
  });
});
