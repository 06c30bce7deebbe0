import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { job, Session } from '../../src/worker/index.js';
import { Chromium } from '../support/chromium.js';
import { elapse } from '../support/wait.js';
import { Fleet, type Process } from '../support/wheelhouse.js';

/** Prints as real programs do, says how far it is, and warns now and then. */
const PROGRAM = `i=0; while [ $i -lt 640 ]; do i=$((i+1))
  echo "page $i of 1000: 24 rows from orders-2026.csv"
  if [ $((i % 9)) = 0 ]; then echo "page $i: 2 rows without a postcode are left out" >&2; fi
  if [ $((i % 20)) = 0 ]; then echo "{\\"items_total\\":1000,\\"items_processed\\":$i,\\"progress\\":$((i / 10))}"; fi
  sleep 0.02; done; sleep 600`;

const PICTURES = fileURLToPath(new URL('../../../../docs/images/', import.meta.url));

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
  fleet.program('nightly', 'Nightly report', PROGRAM);
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
    ['#/jobs/nightly', 'page 640 of 1000'],
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
    for (const [width, scheme, forced] of [
      [1400, 'light', false],
      [1400, 'dark', false],
      [390, 'dark', true],
      [390, 'dark', false],
      [390, 'light', false],
    ] as const) {
      await browser.looks(width, scheme, forced);
      const { passed, found } = await browser.eval<{ passed: number; found: object[] }>(`(async () => {
        const { violations, passes } = await axe.run(document);
        const found = violations.filter(({ impact }) => ['serious', 'critical'].includes(impact))
          .map(({ id, impact, nodes }) => ({ id, impact, nodes: nodes.map((node) => node.html + ' ' + node.failureSummary) }));
        return { passed: passes.length, found };
      })()`);
      expect(passed, 'rules that were tried').toBeGreaterThan(15);
      expect(found, `${page}, ${width} px, ${forced ? 'forced colours' : scheme}`).toEqual([]);
      const wider = await browser.eval<number>('document.documentElement.scrollWidth - innerWidth');
      expect(wider, `${page} is wider than ${width} px`).toBeLessThanOrEqual(0);
    }
  });
});

describe("the console in colours of the reader's own", () => {
  const colour = (selector: string, property: string, pseudo = '') =>
    browser.eval<string>(
      `getComputedStyle(document.querySelector(${JSON.stringify(selector)}), ${JSON.stringify(pseudo)})[${JSON.stringify(property)}]`,
    );

  it('tells by lines and words what it tells by colours elsewhere', { timeout: 300_000 }, async () => {
    await browser.looks(1400, 'light', true);
    await browser.eval("location.hash = '#/jobs/nightly'");
    await browser.shows('without a postcode');
    await browser.shows('Progress over the last');
    expect(await browser.eval("matchMedia('(forced-colors: active)').matches")).toBe(true);
    // How far it is, which page is open, what is an error, and where a status has its mark.
    expect(await colour('.bar', 'backgroundColor')).not.toBe(await colour('.progress', 'backgroundColor'));
    expect(await colour('.progress', 'borderTopStyle')).toBe('solid');
    expect(await colour('nav a[aria-current]', 'borderBottomColor')).not.toBe(
      await colour('nav a:not([aria-current])', 'borderBottomColor'),
    );
    expect(await colour('.output [data-stream=stderr]', 'borderLeftColor')).not.toBe(
      await colour('.output [data-stream=stdout]', 'borderLeftColor'),
    );
    expect(await colour('.resource .status', 'borderTopStyle', '::before')).toBe('solid');
    expect(await colour('.chart polyline', 'stroke')).not.toBe(await colour('body', 'backgroundColor'));
    // Every status says itself in words.
    await browser.eval("location.hash = '#/jobs'");
    await browser.shows('Work that fails');
    const unsaid = await browser.eval<string[]>(
      "[...document.querySelectorAll('.rows .row')].filter((row) => !row.querySelector('.status').innerText).map((row) => row.innerText)",
    );
    expect(unsaid).toEqual([]);
    // A button with the focus shows it.
    await browser.eval("document.querySelector('.acts button:not(:disabled)').focus({ focusVisible: true })");
    expect(await colour(':focus', 'outlineStyle')).not.toBe('none');
    await browser.looks(1400, 'light');
  });
});

describe('the pictures of the documentation', () => {
  it.each([
    ['overview', '#/overview', 'Work that waits'],
    ['jobs', '#/jobs', 'Work that fails'],
    ['job', '#/jobs/nightly', 'page 640 of 1000'],
  ])('can be made: %s (kept with `make pictures`)', async (name, page, text) => {
    await browser.looks(1200, 'light');
    await browser.eval(`location.hash = ${JSON.stringify(page)}`);
    await browser.shows(text);
    // The heading has the focus, as after each change of page.
    await browser.eval('document.activeElement.blur()');
    const picture = await browser.picture();
    expect(picture.subarray(1, 4).toString()).toBe('PNG');
    expect(picture.length).toBeGreaterThan(10_000);
    expect(picture.length).toBeLessThan(400 * 1024);
    const path = `${PICTURES}console-${name}.png`;
    if (process.env.WHEELHOUSE_PICTURES) {
      mkdirSync(PICTURES, { recursive: true });
      writeFileSync(path, picture);
    }
    const kept = readFileSync(path);
    expect(kept.subarray(1, 4).toString()).toBe('PNG');
    expect(kept.length).toBeLessThan(150 * 1024);
  });
});
