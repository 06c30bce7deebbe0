import { job as clientJob } from '../../src/worker/index.js';

/**
 * The client's `job`, for a test that looks at the end of the work later. Between a rejection and the test's look at it other
 * promises are waited for, and a rejection that nobody handles yet would fail the whole run.
 */
export const job = ((...parameters: Parameters<typeof clientJob>) => {
  const ended = clientJob(...parameters);
  ended.catch(() => {});
  return ended;
}) as typeof clientJob;
