import { readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Session } from '../../src/worker/index.js';
import { Chromium } from '../support/chromium.js';
import { job } from '../support/job.js';
import { elapse, until } from '../support/wait.js';
import { Fleet, type Process } from '../support/wheelhouse.js';

const PUBLIC = new URL('../../../../examples/react/public/', import.meta.url);

let fleet: Fleet;
let gateway: Process;
let session: Session;
let pages: Server;
let browser: Chromium;

beforeAll(async () => {
  pages = createServer((request, response) => {
    const name = request.url?.startsWith('/main.js') ? 'main.js' : 'index.html';
    response.setHeader('Content-Type', name === 'main.js' ? 'text/javascript' : 'text/html');
    response.end(readFileSync(new URL(name, PUBLIC)));
  });
  await new Promise<void>((resolve) => pages.listen(0, '127.0.0.1', resolve));
  fleet = await Fleet.start();
});

afterAll(async () => {
  await browser?.close();
  pages?.close();
  await session?.close();
  await fleet?.stop();
});

it('is a page of another origin that watches a job, commands it, and comes back when its gateway does', async () => {
  const origin = `http://127.0.0.1:${(pages.address() as AddressInfo).port}`;
  const settings = { WHEELHOUSE__SERVER__PUBLIC_ORIGINS: origin };
  const worker = await fleet.worker();
  gateway = await fleet.gateway(undefined, settings);
  session = new Session({ url: worker.url, token: await fleet.workerToken('acme'), onWarning: () => {} });
  const work = job('acme', 'example', { session, title: 'Work to watch' }, async (ctl) => {
    for (;;) {
      await ctl.checkpoint();
      await elapse(5);
    }
  }).catch((error: unknown) => error);
  browser = await Chromium.open(
    `${origin}/?gateway=${encodeURIComponent(gateway.url)}&job=example#token=${await fleet.token('acme')}`,
  );
  await browser.shows('Work to watch');
  await browser.shows('Connection: open');
  await browser.shows('Status: running');

  await browser.press('Pause');
  await browser.shows('Done: paused');
  await browser.shows('Status: paused');
  await browser.press('Resume');
  await browser.shows('Done: running');

  await gateway.kill();
  await browser.shows('(as last heard of)');
  gateway = await fleet.gateway(Number(new URL(gateway.url).port), settings);
  await browser.shows('Connection: open');
  await until(() => browser.eval<boolean>("!document.body.innerText.includes('as last heard')"), 'it is live');

  await browser.press('Cancel Job');
  await browser.shows('Status: cancelled');
  await work;
  await browser.press('Pause');
  await browser.shows('Refused: Job not found or already completed');
  expect(await browser.eval("document.querySelector('progress').max")).toBe(100);
});
