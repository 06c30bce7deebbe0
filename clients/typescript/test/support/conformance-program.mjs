// The program that `python -m wheelhouse_client.conformance` checks: one small job, with the built package.
import { appendFileSync } from 'node:fs';
import { setTimeout as elapse } from 'node:timers/promises';
import { job, sharedSession } from '../../dist/worker/index.js';

const { WHEELHOUSE_TENANT, WHEELHOUSE_JOB, WHEELHOUSE_STEPS, WHEELHOUSE_FILE } = process.env;

try {
  await job(WHEELHOUSE_TENANT, WHEELHOUSE_JOB, async (ctl) => {
    for (let step = ctl.resumePoint ?? 0; step < Number(WHEELHOUSE_STEPS); step++) {
      await ctl.checkpoint();
      appendFileSync(WHEELHOUSE_FILE, `${step}\n`);
      await elapse(20);
      await ctl.save(step + 1);
    }
  });
} catch (error) {
  console.error(String(error));
  process.exitCode = 1;
}
await sharedSession().close();
