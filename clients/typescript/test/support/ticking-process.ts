// A process of its own with one job that writes a line for each step, for tests that set its clock.
import { appendFileSync } from 'node:fs';
import { setTimeout as elapse } from 'node:timers/promises';
import { job } from '../../src/worker/index.js';

const [file] = process.argv.slice(2) as [string];

await job('acme', 'ticks', async (ctl) => {
  for (;;) {
    await ctl.checkpoint();
    appendFileSync(file, 'x');
    await elapse(10);
  }
}).catch(() => {});
