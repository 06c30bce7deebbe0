// A process of its own whose job blocks the event loop for good, for tests that see it end.
import { job, Session } from '../../src/worker/index.js';

const [url] = process.argv.slice(2) as [string];
const session = new Session({ url, token: 'secret', onKill: 'exit', onWarning: () => {} });

await job('acme', 'blocks', { session }, async (ctl) => {
  await ctl.checkpoint();
  for (;;);
});
