import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Session } from '../../src/worker/index.js';
import { Chromium } from '../support/chromium.js';
import { job } from '../support/job.js';
import { elapse, until } from '../support/wait.js';
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

const PAGES: [string, string][] = [
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
];

async function open(page: string, text: string): Promise<void> {
  await browser.eval(`location.hash = ${JSON.stringify(page)}`);
  await browser.shows(text);
}

/**
 * Expects nothing serious of what is shown now, or of a part of it, in each light, on a phone and on a screen, and nothing wider
 * than that. Only colours differ from light to light; of many lines of output the first are as all others.
 */
async function isAccessible(what: string, part = 'body'): Promise<void> {
  await browser.eval(`if (!window.axe) { ${axe} }`);
  for (const [width, scheme, forced] of [
    [1400, 'light', false],
    [1400, 'dark', false],
    [1400, 'light', true],
    [390, 'dark', true],
    [390, 'dark', false],
    [390, 'light', false],
  ] as const) {
    await browser.looks(width, scheme, forced);
    const rules = scheme === 'light' && !forced ? '' : "runOnly: ['color-contrast', 'link-in-text-block'], ";
    const { passed, found } = await browser.eval<{ passed: number; found: object[] }>(`(async () => {
      const { violations, passes } = await axe.run(${JSON.stringify({ include: [part], exclude: ['.output > :nth-child(n + 40)'] })}, { ${rules}resultTypes: ['violations'] });
      const found = violations.filter(({ impact }) => ['serious', 'critical'].includes(impact))
        .map(({ id, impact, nodes }) => ({ id, impact, nodes: nodes.map((node) => node.html + ' ' + node.failureSummary) }));
      return { passed: passes.length, found };
    })()`);
    expect(passed, 'rules that were tried').toBeGreaterThan(rules === '' ? 5 : 0);
    expect(found, `${what}, ${width} px, ${forced ? 'forced colours' : scheme}`).toEqual([]);
    const wider = await browser.eval<number>('document.documentElement.scrollWidth - innerWidth');
    expect(wider, `${what} is wider than ${width} px`).toBeLessThanOrEqual(0);
  }
  await browser.looks(1400, 'light');
}

describe('the console is usable by everybody', () => {
  it.each(PAGES)(
    'axe finds nothing serious on %s, in every light, on a phone and on a screen',
    async (page, text) => {
      await open(page, text);
      await isAccessible(page);
    },
    300_000,
  );

  it.each([
    ['the sheet of keys', '#/overview', 'What waits', '?', 'Next and previous row'],
    ['a command for later', '#/jobs/running', 'lunch', 'Later…', 'Schedule it'],
    ['another time for it', '#/schedules', 'night', 'Change…', 'Another time'],
    ['the question before a cancel', '#/jobs/running', 'lunch', 'Cancel', 'It cannot be undone'],
    ['many at once', '#/jobs', 'Work that fails', 'All that match…', 'of your commands per minute'],
    [
      'many, of which some are refused',
      '#/jobs?selected=broken,running',
      'Work that fails',
      'Pause…',
      '1 more has ended already, and is left out.',
    ],
  ])('nor in %s', async (what, page, text, button, asks) => {
    await open(page, text);
    await browser.press(button);
    await browser.shows(asks);
    await isAccessible(what, button === 'Cancel' ? '.resource' : 'dialog[open]');
    await browser.eval("document.querySelector('dialog[open]')?.close()");
    const keep = "[...document.querySelectorAll('.confirm:not([hidden]) button')].find((b) => b.innerText === 'Keep')";
    await browser.eval(`${keep}?.click()`);
  });

  it('nor where a link brings the token of somebody else', async () => {
    await browser.eval(`location.hash = ${JSON.stringify(`/jobs?token=${await fleet.token('acme', 'ben')}`)}`);
    await browser.shows('A link wants to sign you in anew');
    await isAccessible('a link with a token', 'dialog[open]');
    await browser.press('Stay signed in');
  });
});

describe('the keyboard alone', () => {
  const focused = () => browser.eval<string>('document.activeElement.innerText || document.activeElement.tagName');
  const focus = (button: string) =>
    browser.eval(
      `[...document.querySelectorAll('button')].find((b) => b.innerText === ${JSON.stringify(button)} && b.checkVisibility()).focus()`,
    );

  const KINDS = ['#/overview', '#/jobs', '#/jobs/running', '#/schedules', '#/workers', '#/audit'];
  it.each(PAGES.filter(([page]) => KINDS.includes(page)))(
    'reaches everything on %s, and sees where it is',
    async (page, text) => {
      await open(page, text);
      await browser.eval(`window.reached = new Set(); window.unseen = [];
      document.addEventListener('focusin', window.onReach = ({ target }) => {
        window.reached.add(target);
        const { outlineStyle, outlineWidth } = getComputedStyle(target);
        if (outlineStyle === 'none' || parseFloat(outlineWidth) < 1) window.unseen.push(target.outerHTML.slice(0, 120));
      }); document.getElementById('skip').focus(); window.reached.clear(); window.unseen = [];`);
      const rest = `[...document.querySelectorAll('a[href], button, input, select, textarea, [tabindex="0"]')].filter((node) => !node.disabled
      && node.tabIndex >= 0 && node.checkVisibility({ visibilityProperty: true }) && !window.reached.has(node)).map((node) => node.outerHTML.slice(0, 120))`;
      // The page may be drawn anew meanwhile; what is new comes further down, or with the next round.
      for (let presses = 0; presses < 400; presses += 1) {
        if (presses % 20 === 0 && (await browser.eval<string[]>(rest)).length === 0) break;
        await browser.key('Tab');
      }
      expect(await browser.eval(rest), `not reached on ${page}`).toEqual([]);
      expect(await browser.eval('window.unseen'), `not seen on ${page}`).toEqual([]);
      await browser.eval("document.removeEventListener('focusin', window.onReach)");
    },
  );

  it.each([
    ['#/overview', 'What waits', '?'],
    ['#/jobs/running', 'lunch', 'Later…'],
    ['#/schedules', 'night', 'Change…'],
    ['#/jobs', 'Work that fails', 'All that match…'],
    ['#/jobs?selected=running', '1 selected', 'Pause…'],
  ])('opens what %s asks, leaves it, and is where it was', async (page, text, button) => {
    await open(page, text);
    await focus(button);
    await browser.key('Enter');
    await until(
      () => browser.eval("Boolean(document.querySelector('dialog[open]')?.contains(document.activeElement))"),
      'asked',
    );
    await browser.key('Escape');
    await until(async () => (await focused()) === button, `the focus is back on ${button}`);
  });

  it('pauses, resumes and begins to cancel, and stays where it is', async () => {
    await open('#/jobs/running', 'lunch');
    await focus('Pause');
    await browser.key('Enter');
    await browser.shows('Paused by you');
    expect(await focused(), 'though it cannot be pressed again').toBe('Pause');
    await browser.key('Enter');
    await browser.key('r');
    await browser.shows('Resumed by you');
    await browser.key('c');
    await browser.shows('It cannot be undone');
    expect(await focused()).toBe('INPUT');
    await browser.key('Escape');
    await until(async () => (await focused()) === 'Cancel', 'the focus is back');
    // How long it ran, and how long it stood, go on by themselves and apart.
    const fact = (label: string) =>
      browser.eval<string>(
        `[...document.querySelectorAll('.fact')].find((fact) => fact.innerText.startsWith(${JSON.stringify(label)}))?.innerText ?? ''`,
      );
    const before = await fact('Running time');
    expect(before).toMatch(/\d+ s/);
    await until(async () => (await fact('Running time')) !== before, 'the running time goes on');
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

describe('a page that is not live', () => {
  it('is right at once when somebody looks at it after ten minutes', async () => {
    // A hidden tab's timers may stand still; here they do for good, so that nothing else can bring what is new.
    await browser.before(`window.setInterval = () => 0; window.shift = 0; const now = Date.now.bind(Date);
      Date.now = () => now() + window.shift; Object.defineProperty(document, 'hidden', { get: () => window.shift > 0 && !window.looked });`);
    await browser.navigate(`${gateway.url}/?hidden#/schedules`);
    await browser.shows('night');
    await browser.eval("window.shift = 600_000; document.dispatchEvent(new Event('visibilitychange'))");
    const token = await fleet.token('acme', 'ben');
    await post(token, 'jobs/running/cancel', { delay_seconds: 7200, reason: 'written while nobody looked' });
    expect(await browser.eval("document.body.innerText.includes('written while nobody looked')")).toBe(false);
    await browser.eval("window.looked = true; document.dispatchEvent(new Event('visibilitychange'))");
    await browser.shows('written while nobody looked');
  });

  it('says so in words, in every light', async () => {
    await browser.navigate(`${gateway.url}/?lost#/jobs`);
    await browser.shows('Work that fails');
    await browser.shows('Live');
    await gateway.kill();
    await browser.shows('Not live');
    await isAccessible('a list that is not live');
    await open('#/overview', 'The last hour');
    await isAccessible('an overview that is not live');
    await open('#/schedules', 'There is no connection: this is read when it is back');
  });

  it('asks who is there, and says what is wrong with what it is given', async () => {
    await browser.eval("document.getElementById('sign-out').click()");
    await browser.shows('You are signed out.');
    await browser.eval(
      "document.getElementById('token').value = 'nonsense'; document.querySelector('#sign-in button[type=submit]').click()",
    );
    await browser.shows('This is not a token: it has three parts with two dots between.');
    await isAccessible('signing in', '#sign-in');
  });
});
