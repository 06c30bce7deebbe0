import { createHash } from 'node:crypto';
import { ID } from '../worker/settings.js';

/**
 * The Wheelhouse id of a BullMQ job: `QUEUE.ID`. BullMQ allows characters in both that Wheelhouse does not (the ids of
 * repeated jobs have colons), and any length. Such an id keeps its readable part, with `-` for each other character, and gets
 * twelve hexadecimal digits of the SHA-256 of `QUEUE.ID` at its end, so that two different jobs never share an id.
 */
export function wheelhouseId(queue: string, jobId: string): string {
  const id = `${queue}.${jobId}`;
  if (ID.test(id)) return id;
  const digest = createHash('sha256').update(id).digest('hex').slice(0, 12);
  const readable = id.replace(/[^A-Za-z0-9._-]/g, '-').replace(/^[^A-Za-z0-9]+/, '');
  return `${readable.slice(0, 128 - 1 - digest.length) || 'job'}.${digest}`;
}
