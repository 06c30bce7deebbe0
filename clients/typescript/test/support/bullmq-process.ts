// A process of its own with a BullMQ worker, for tests that kill it. Counts its steps in Redis, one key each.
import { Worker } from 'bullmq';
import { Redis } from 'ioredis';
import { controlled } from '../../src/bullmq/index.js';

const [queue, port] = process.argv.slice(2) as [string, string];
const redis = new Redis(Number(port));

new Worker(
  queue,
  controlled(async (job, ctl) => {
    const { at } = (ctl.resumePoint ?? { at: 0 }) as { at: number };
    for (let i = at; i < job.data.steps; i++) {
      await ctl.checkpoint();
      await redis.rpush(`steps:${job.id}`, i);
      await ctl.save({ at: i + 1 });
      ctl.progress({ done: i + 1, total: job.data.steps });
      await new Promise((resolve) => setTimeout(resolve, job.data.milliseconds));
    }
    return job.data.steps;
  }),
  {
    connection: { port: Number(port) },
    concurrency: 5,
    lockDuration: 2_000,
    stalledInterval: 1_000,
    maxStalledCount: 5,
  },
);
process.send?.('ready');
