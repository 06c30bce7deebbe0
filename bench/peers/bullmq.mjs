// BullMQ: from queue.add to `completed` heard by the one who added, at a fixed rate, and as many as go through.
// Its nearest to a command with a result: it has no command that reaches a running job in another process.
import { Worker as Thread, isMainThread, workerData } from "node:worker_threads";
import { fileURLToPath } from "node:url";
import { Queue, QueueEvents, Worker } from "bullmq";

const connection = { host: "127.0.0.1", port: Number(process.env.REDIS_PORT) };
const name = isMainThread ? `peer-${process.pid}` : workerData;

if (!isMainThread) {
  new Worker(name, async () => "paused", { connection, concurrency: 100 });
} else {
  new Thread(fileURLToPath(import.meta.url), { workerData: name });
  const queue = new Queue(name, { connection });
  const events = new QueueEvents(name, { connection });
  await events.waitUntilReady();
  const begun = new Map();
  const early = new Set();
  let times = [];
  const over = (id, at) => { times.push(performance.now() - at); begun.delete(id); };
  events.on("completed", ({ jobId }) => (begun.has(jobId) ? over(jobId, begun.get(jobId)) : early.add(jobId)));
  const add = async (at) => {
    const { id } = await queue.add("pause", { job_id: "j", action: "pause" }, { removeOnComplete: true });
    if (early.delete(id)) over(id, at);
    else begun.set(id, at);
  };
  const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  const open = async (rate, seconds) => {
    times = [];
    const start = performance.now();
    const adding = [];
    for (let n = 0; n < rate * seconds; ) {
      const due = Math.min(rate * seconds, Math.floor(((performance.now() - start) / 1000) * rate));
      for (; n < due; n++) adding.push(add(start + (n / rate) * 1000));
      await sleep(1);
    }
    await Promise.all(adding);
    for (let n = 0; begun.size > 0 && n < 1000; n++) await sleep(10);
    times.sort((a, b) => a - b);
    return times;
  };
  await open(500, 1);
  const at = (sorted, part) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))];
  const paced = await open(1000, 4);
  const burst = [];
  times = [];
  const start = performance.now();
  for (let n = 0; n < 10_000; n++) burst.push(add(start));
  await Promise.all(burst);
  for (let n = 0; begun.size > 0 && n < 3000; n++) await sleep(10);
  const took = (performance.now() - start) / 1000;
  console.log(JSON.stringify({ p50: at(paced, 0.5), p99: at(paced, 0.99), sustained: times.length / took }));
  await queue.obliterate({ force: true });
  process.exit(0);
}
