import { hasLock } from './lock.js';
import type { AnyJob } from './options.js';

const MOST = 1_000;
const results = new Map<string, unknown>();

/**
 * Keeps the result of a job whose lock was lost while it ran. BullMQ will not take the result from this delivery; it delivers
 * the job again, and that delivery gives the result without running the job a second time, if it comes to this process.
 */
export async function rememberResult(
  job: AnyJob,
  token: string | undefined,
  id: string,
  result: unknown,
): Promise<void> {
  if (await hasLock(job, token)) return;
  results.set(id, result);
  for (const oldest of results.keys()) {
    if (results.size <= MOST) break;
    results.delete(oldest);
  }
}

/** The result of an earlier delivery to this process, if there was one. */
export function takeResult(id: string): [known: boolean, result: unknown] {
  const known = results.has(id);
  const result = results.get(id);
  results.delete(id);
  return [known, result];
}
