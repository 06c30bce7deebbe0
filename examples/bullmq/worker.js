// A BullMQ worker whose jobs can be paused, resumed and cancelled while they run. Only `controlled` is Wheelhouse's.
import { setTimeout as elapse } from 'node:timers/promises';
import { Queue, Worker } from 'bullmq';
import { controlled } from 'wheelhouse-client/bullmq';

const connection = { port: Number(process.env.REDIS_PORT ?? 6379) };

const worker = new Worker(
  'letters',
  controlled(async (job, ctl) => {
    const { count } = job.data;
    for (let number = ctl.resumePoint ?? 0; number < count; number++) {
      await ctl.checkpoint(); // A pause holds here, a cancel throws here.
      // A letter is sent whole or not at all.
      await ctl.critical(async () => {
        console.log(`letter ${number + 1} of ${count}`);
        await elapse(200);
      });
      ctl.progress({ done: number + 1, total: count, item: `letter ${number + 1}` });
      if (number % 10 === 9) await ctl.save(number + 1);
    }
    return { sent: count };
  }),
  { connection, concurrency: 2 },
);
worker.on('failed', (job, error) => console.log(`job ${job?.id} has failed: ${error.message}`));
worker.on('completed', (job) => console.log(`job ${job.id} is completed`));

const queue = new Queue('letters', { connection });
const job = await queue.add('Letters of spring', { tenantId: 'acme', count: 3_000 }, { attempts: 3 });
for (const action of ['pause', 'resume', 'cancel']) console.log(`  wheelhouse job ${action} letters.${job.id} --wait`);

process.once('SIGINT', async () => {
  await worker.close(true);
  process.exit(0);
});
