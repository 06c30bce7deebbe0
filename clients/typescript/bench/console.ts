// `make bench-console`: the page "Jobs" in headless Chromium with 10,000 jobs of which 200 change in each second, beside what
// it is to keep to. docs/performance.md has the figures.
import { ManyJobs, UPDATES_PER_SECOND } from '../test/support/many-jobs.js';

const FRAMES = Number(process.env.FRAMES ?? 600);
const OPENED = 5;

const many = await ManyJobs.start();
try {
  const firstRows: number[] = [];
  for (let n = 0; n < OPENED; n++) firstRows.push(Math.round(await many.open()));
  firstRows.sort((a, b) => a - b);
  await many.loadAll();
  const still = await many.scroll(FRAMES);
  many.update();
  const [begun, before] = [Date.now(), await many.received()];
  const busy = await many.scroll(FRAMES);
  const rate = Math.round(((await many.received()) - before) / ((Date.now() - begun) / 1_000));
  const among = await many.scroll(FRAMES, 600);
  const { heapBytes, nodes } = await many.browser.memory();

  const line = (what: string, figure: string, target = '', met?: boolean) =>
    console.log(`| ${what} | ${figure} | ${target}${met === undefined ? '' : met ? ': met' : ': missed'} |`);
  const frame = (what: string, { cpu, script, work }: typeof busy) => {
    line(`${what}: processor time of a frame`, `${cpu} ms, ${script} of it scripts`, '≤ 16 ms', cpu <= 16);
    line(`${what}: a frame by the clock`, `p50 ${work.p50}, p95 ${work.p95}, p99 ${work.p99} ms`);
  };
  const median = firstRows[Math.floor(OPENED / 2)] as number;
  console.log('| 10,000 jobs | figure | target |\n|---|---|---|');
  line('first row', `${firstRows.join(', ')} ms`, '≤ 1 s', median <= 1_000);
  frame('scrolling, nothing changes', still);
  frame(`scrolling, ${rate} of ${UPDATES_PER_SECOND} updates/s arrive`, busy);
  frame('the same among the rows that change', among);
  const megabytes = heapBytes / 1024 / 1024;
  line('JavaScript heap', `${megabytes.toFixed(1)} MB, ${nodes} nodes`, '≤ 150 MB', megabytes <= 150);
  line('rows in the page; drawn in one frame', `${busy.rows}; ${busy.drawn}`);
} finally {
  await many.stop();
}
