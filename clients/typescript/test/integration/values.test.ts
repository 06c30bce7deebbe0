import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Control, Session } from '../../src/worker/index.js';
import { job } from '../support/job.js';
import { Fleet, Operator } from '../support/wheelhouse.js';

const CUT = `${'x'.repeat(499)}😀`;

let fleet: Fleet;
let operator: Operator;
let session: Session;

beforeAll(async () => {
  fleet = await Fleet.start();
  const [gateway, worker] = await Promise.all([fleet.gateway(), fleet.worker()]);
  operator = new Operator(gateway, await fleet.token('acme'));
  session = new Session({ url: worker.url, token: await fleet.workerToken('acme'), onWarning: () => {} });
});

afterAll(async () => {
  await session?.close();
  await fleet?.stop();
});

it('a title that was cut in the middle of an emoji, and a result with half of one, are no reason to refuse a job', async () => {
  const result = { text: CUT.slice(0, 500), rows: 3 };
  await job('acme', 'half', { session, title: CUT, parameters: result }, () => result);
  expect(await operator.row('half')).toMatchObject({
    status: 'completed',
    title: `${'x'.repeat(499)}\ufffd`,
    result: { text: `${'x'.repeat(499)}\ufffd`, rows: 3 },
  });
});

it('a job fails with an error whose text was cut in the middle of an emoji', async () => {
  const failure = job('acme', 'half-error', { session }, () => {
    throw new Error(`${'x'.repeat(15_999)}😀`);
  });
  await expect(failure).rejects.toThrow('xxx');
  expect(await operator.row('half-error')).toMatchObject({ status: 'failed' });
});

it('a job whose result is too deep to be kept completes without it, and a resume point like that is refused', async () => {
  let deep: unknown = 1;
  for (let i = 0; i < 128; i++) deep = [deep];
  await job('acme', 'deep', { session, parameters: deep }, async (ctl: Control) => {
    await ctl.save('good');
    await expect(ctl.save(deep)).rejects.toThrow(RangeError);
    await ctl.save((deep as unknown[])[0]);
    return deep;
  });
  expect(await operator.row('deep')).toMatchObject({ status: 'completed', result: null });
});
