import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { job, Session } from '../../src/worker/index.js';
import { Chromium } from '../support/chromium.js';
import { elapse } from '../support/wait.js';
import { Fleet, type Process } from '../support/wheelhouse.js';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

let fleet: Fleet;
let gateway: Process;
let session: Session;
let browser: Chromium;
let done: Promise<unknown>;

async function post(token: string, path: string, body: object): Promise<void> {
  const headers = { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' };
  const answer = await fetch(`${gateway.url}/api/v1/${path}`, { method: 'POST', headers, body: JSON.stringify(body) });
  if (!answer.ok) throw new Error(`${path}: ${await answer.text()}`);
}

beforeAll(async () => {
  fleet = await Fleet.start();
  let worker: Process;
  [gateway, worker] = await Promise.all([fleet.gateway(), fleet.worker()]);
  const token = await fleet.token('acme');
  session = new Session({ url: worker.url, token: await fleet.workerToken('acme'), onWarning: () => {} });
  done = job('acme', 'running', { session, title: 'Work to watch' }, async (ctl) => {
    ctl.failedItem('row 7', 'no such city');
    for (let n = 0; ; n++) {
      await ctl.checkpoint();
      ctl.progress({ done: n, total: 1_000_000, failed: 1 });
      await elapse(20);
    }
  }).catch((error: unknown) => error);
  await job('acme', 'broken', { session, title: 'Work that fails' }, async () => {
    throw new Error('The file has no such column, and this line is long enough to be cut off somewhere in a list');
  }).catch(() => {});
  await post(token, 'jobs', { id: 'waits', job_type: 'nobody-knows', title: 'Work that waits', parameters: { a: 1 } });
  await post(token, 'campaigns', { id: 'many', name: 'Some of it', jobs: [{ id: 'm1', job_type: 'nobody-knows' }] });
  await post(token, 'jobs/running/pause?wait=30', { reason: 'lunch' });
  await post(token, 'jobs/running/resume?wait=30', {});
  await post(token, 'jobs/waits/cancel', { delay_seconds: 3600, reason: 'night' });
  browser = await Chromium.open(`${gateway.url}/#/overview?token=${token}`);
  await browser.shows('Live');
}, 180_000);

afterAll(async () => {
  await browser?.close();
  await session?.close();
  await fleet?.stop();
  await done;
});

describe('the console is usable by everybody', () => {
  it.each([
    ['#/overview', 'What waits'],
    ['#/jobs', 'Work that fails'],
    ['#/jobs/running', 'lunch'],
    ['#/jobs/broken', 'no such column'],
    ['#/jobs/nobody', 'There is no job nobody'],
    ['#/campaigns', 'Some of it'],
    ['#/campaigns/many', 'Its jobs are handed to workers'],
    ['#/schedules', 'night'],
    ['#/failed', 'No command has failed'],
    ['#/workers', 'worker'],
    ['#/audit', 'lunch'],
  ])('axe finds nothing serious on %s, in light and dark, on a phone and on a screen', async (page, text) => {
    await browser.eval(`location.hash = ${JSON.stringify(page)}`);
    await browser.shows(text);
    await browser.eval(`if (!window.axe) { ${axe} }`);
    for (const [width, scheme] of [
      [1400, 'light'],
      [1400, 'dark'],
      [390, 'dark'],
      [390, 'light'],
    ] as const) {
      await browser.looks(width, scheme);
      const { passed, found } = await browser.eval<{ passed: number; found: object[] }>(`(async () => {
        const { violations, passes } = await axe.run(document);
        const found = violations.filter(({ impact }) => ['serious', 'critical'].includes(impact))
          .map(({ id, impact, nodes }) => ({ id, impact, nodes: nodes.map((node) => node.html + ' ' + node.failureSummary) }));
        return { passed: passes.length, found };
      })()`);
      expect(passed, 'rules that were tried').toBeGreaterThan(15);
      expect(found, `${page}, ${width} px, ${scheme}`).toEqual([]);
      const wider = await browser.eval<number>('document.documentElement.scrollWidth - innerWidth');
      expect(wider, `${page} is wider than ${width} px`).toBeLessThanOrEqual(0);
    }
  });
});
