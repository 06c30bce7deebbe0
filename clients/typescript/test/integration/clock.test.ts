import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, expect, it } from 'vitest';
import { FakeWorker } from '../support/fake-worker.js';
import { elapse, until } from '../support/wait.js';

const DAY = 86_400;
const path = (relative: string) => fileURLToPath(new URL(relative, import.meta.url));
const cleanup: (() => unknown)[] = [];

afterEach(async () => {
  for (const undo of cleanup.splice(0).reverse()) await undo();
});

it('does not depend on the wall clock: a job is held, goes on and ends while the clock is set forward and back', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'wheelhouse-clock-'));
  cleanup.push(() => rmSync(folder, { recursive: true, force: true }));
  const [library, offset, file] = [join(folder, 'clock.so'), join(folder, 'offset'), join(folder, 'steps')];
  // The clock of the other tests of this project: it adds the seconds in a file to the wall clock of a program.
  execFileSync('cc', ['-O1', '-shared', '-fPIC', '-o', library, path('../../../../tests/support/clock.c')]);
  const set = (seconds: number) => {
    writeFileSync(`${offset}.new`, String(seconds));
    renameSync(`${offset}.new`, offset);
  };
  set(0);
  const worker = await FakeWorker.start({ reattach_seconds: 6 });
  cleanup.push(() => worker.stop());
  const child = spawn(process.execPath, ['--import', 'tsx', path('../support/ticking-process.ts'), file], {
    env: {
      ...process.env,
      LD_PRELOAD: library,
      CLOCK_OFFSET_FILE: offset,
      WHEELHOUSE_URL: worker.url,
      WHEELHOUSE_TOKEN: 'secret',
    },
  });
  const exited = new Promise<number | null>((resolve) => child.once('exit', resolve));
  cleanup.push(() => child.kill('SIGKILL'));
  const steps = () => (existsSync(file) ? statSync(file).size : 0);
  const goesOn = async () => {
    const before = steps();
    await until(() => steps() > before + 3, 'the work goes on');
  };
  const ref = await worker.attach();
  await goesOn();
  let order = 0;
  for (const jump of [DAY, -DAY, 0]) {
    worker.send({ type: 'order', ref, order: ++order, do: 'pause', by: 'ann' });
    await until(() => worker.all('reached').some((reached) => reached.order === order), 'it stands still');
    const at = steps();
    set(jump);
    await elapse(700);
    expect(steps()).toBe(at);
    worker.send({ type: 'order', ref, order: ++order, do: 'resume', by: 'ann' });
    await goesOn();
    set(-jump);
    await goesOn();
  }
  // Unheard, it is held after two thirds of reattach_seconds, as the clock that cannot be set counts them.
  worker.refuseWith = 503;
  worker.socket?.terminate();
  set(-DAY);
  await goesOn();
  set(DAY);
  const stands = async () => {
    const at = steps();
    await elapse(500);
    return steps() === at;
  };
  await until(stands, 'it is held');
  worker.refuseWith = undefined;
  await worker.attach(2);
  await goesOn();
  worker.send({ type: 'order', ref, order: ++order, do: 'cancel', by: 'ann' });
  await until(() => worker.all('reached').some((reached) => reached.order === order), 'it has ended');
  worker.send({ type: 'ended', ref, status: 'cancelled' });
  expect(await exited).toBe(0);
  expect(worker.faults).toEqual([]);
});
