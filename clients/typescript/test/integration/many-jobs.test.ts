import { afterAll, beforeAll, expect, it } from 'vitest';
import { ManyJobs } from '../support/many-jobs.js';
import { until } from '../support/wait.js';

let many: ManyJobs;

beforeAll(async () => {
  many = await ManyJobs.start();
}, 300_000);

afterAll(() => many?.stop());

/** What the row of a job says, wherever it is in the list; nothing where it is not in view. */
const rowOf = (id: string) =>
  many.browser.eval<string>(
    `[...document.querySelectorAll('.rows .row')].find((row) => row.row.item.id === ${JSON.stringify(id)})?.innerText ?? ''`,
  );

// How fast it is depends on the machine: that is printed here, and compared with what it should be by `make bench-console`.
// That it does not depend on how many jobs there are is tested: what is in the page, what one frame draws, what is kept.
it('ten thousand jobs of which two hundred a second change cost a page no more than those in view', async () => {
  const { browser } = many;
  const firstRow = await many.open();
  const inView = await browser.eval<number>("document.querySelectorAll('.rows .row').length");
  expect(inView).toBeGreaterThan(5);
  expect(inView).toBeLessThan(50);
  const small = await browser.memory();
  await many.loadAll();
  // The last page has come; its rows are drawn a frame later.
  const last = async () => {
    await browser.eval('scrollTo(0, document.documentElement.scrollHeight)');
    return (await rowOf('waits-0-0')).includes('Import of part 0 of 0');
  };
  await until(last, 'the oldest of those that wait is the last');

  many.update();
  await until(async () => (await many.received()) > 200, 'updates come');
  const before = await many.received();
  const through = await many.scroll(100);
  expect(through.frames).toBe(100);
  expect(await many.received(), 'updates came meanwhile').toBeGreaterThan(before);
  // Those in view, and a few beyond on either side: of the place before and of this one.
  expect(through.rows).toBeLessThanOrEqual(inView + 20);
  // Once for the place that was scrolled to, and once for what came meanwhile.
  expect(through.drawn).toBeLessThanOrEqual(3 * (inView + 20));

  // While somebody scrolls, what another operator does is seen at once, and the row beside it goes on to count.
  await browser.eval('scrollTo(0, 0)');
  // What was in view before stands in the page until the next frame is drawn.
  const top = `document.querySelector('.rows .row[aria-posinset="1"]')?.innerText ?? ''`;
  await until(async () => (await browser.eval<string>(top)).includes('Running'), 'the first row is in view');
  const [one, other] = (await many.first()) as [string, string];
  const scrolling = many.scroll(Number.MAX_SAFE_INTEGER, 600);
  const counted = await rowOf(other);
  await many.command(one, 'pause');
  await until(async () => (await rowOf(one)).includes('Paused'), 'the row says that it is paused', 20_000);
  await until(async () => {
    const now = await rowOf(other);
    return now !== '' && now !== counted;
  }, 'the row beside it goes on');
  await many.command(one, 'resume');
  await until(async () => (await rowOf(one)).includes('Running'), 'the row says that it runs again', 20_000);
  await many.enough();
  const among = await scrolling;

  const { heapBytes, nodes } = await browser.memory();
  expect(nodes).toBeLessThan(small.nodes + 2_000);
  expect(heapBytes).toBeLessThan(150 * 1024 * 1024);
  console.log(
    `first row after ${Math.round(firstRow)} ms; ${(heapBytes / 1024 / 1024).toFixed(1)} MB of heap, ${nodes} nodes`,
  );
  console.log(`processor time of a frame: ${through.cpu} ms through all, ${among.cpu} ms among the first rows`);
}, 600_000);
