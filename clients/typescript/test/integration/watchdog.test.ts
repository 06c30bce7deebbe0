import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { FakeWorker } from '../support/fake-worker.js';

it('kills a process whose event loop is blocked for longer than its jobs may go unheard', async () => {
  const wheelhouse = await FakeWorker.start({ reattach_seconds: 1.5 });
  const program = fileURLToPath(new URL('../support/blocking-process.ts', import.meta.url));
  const child = fork(program, [wheelhouse.url], { execArgv: ['--import', 'tsx'] });
  const ended = new Promise((resolve) => child.once('exit', (_code, signal) => resolve(signal)));
  await wheelhouse.attach();
  expect(await ended).toBe('SIGKILL');
  await wheelhouse.stop();
});
