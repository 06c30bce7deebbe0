import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Control, HandedBack, Session } from '../../src/worker/index.js';
import { isTooDeep, moment, toText } from '../../src/worker/text.js';
import { FakeWorker } from '../support/fake-worker.js';
import { job } from '../support/job.js';
import { gate } from '../support/wait.js';

const HALF = '\ud83d';
const CUT = `${'x'.repeat(499)}😀`;

function nested(depth: number): unknown {
  let value: unknown = 1;
  for (let i = 0; i < depth; i++) value = [value];
  return value;
}

describe('the text of a message', () => {
  it('has a whole character in place of each half, and everything else as it is', () => {
    expect(JSON.parse(toText({ [HALF]: [HALF, `😀${HALF}a`, '\udc00'] }))).toEqual({
      '\ufffd': ['\ufffd', '😀\ufffda', '\ufffd'],
    });
    for (const text of ['\\ud83d', '\\\\ud83d', '"\\', '\n\u0000', '😀']) {
      expect(JSON.parse(toText([text, HALF]))).toEqual([text, '\ufffd']);
      expect(toText(text)).toBe(JSON.stringify(text));
    }
  });

  it('is too deep from 128 arrays and objects inside one another on', () => {
    expect(isTooDeep(toText(nested(127)))).toBe(false);
    expect(isTooDeep(toText(nested(128)))).toBe(true);
    expect(isTooDeep('['.repeat(128) + ']'.repeat(128))).toBe(true);
    expect(isTooDeep(toText({ rows: nested(127) }))).toBe(true);
    expect(isTooDeep(toText({ rows: nested(127) }), 1)).toBe(false);
    expect(isTooDeep(toText(['['.repeat(300), `\\"${'{'.repeat(300)}`]))).toBe(false);
    expect(isTooDeep(toText(Array.from({ length: 300 }, () => [])))).toBe(false);
  });

  it('has a time of the years of the protocol', () => {
    expect(moment(new Date(8.64e15))).toBe('9998-12-31T00:00:00.000Z');
    expect(moment(new Date(-1))).toBe('1970-01-01T00:00:00.000Z');
    expect(moment(new Date(Number.NaN))).toBeUndefined();
    expect(moment(undefined)).toBeUndefined();
  });
});

describe('a job with values that Wheelhouse cannot keep', () => {
  let worker: FakeWorker;
  let session: Session;

  beforeEach(async () => {
    worker = await FakeWorker.start();
    session = new Session({ url: worker.url, token: 'secret', onWarning: () => {} });
  });

  afterEach(async () => {
    expect(worker.faults).toEqual([]);
    await worker.stop();
    await session.close();
  });

  it('has texts of whole characters only, wherever they were cut', async () => {
    const ended = job(
      'acme',
      'j1',
      { session, title: CUT, type: CUT, createdBy: CUT, parameters: { a: HALF } },
      (ctl) => {
        ctl.progress({ done: 1, item: `${'x'.repeat(999)}😀` });
        ctl.failedItem(`${'x'.repeat(999)}😀`, `${'x'.repeat(3_999)}😀`);
        ctl.log(`${'x'.repeat(3_959)}😀${'x'.repeat(100)}`);
        throw new Error(`${'x'.repeat(15_999)}😀`);
      },
    );
    const ref = await worker.attach();
    const end = await worker.next('end');
    worker.send({ type: 'ended', ref, status: 'failed' });
    await expect(ended).rejects.toThrow();
    expect(end.error).toMatch(/\ufffd$/);
    expect(worker.received.map((message) => message.type)).toEqual(
      expect.arrayContaining(['progress', 'failed_item', 'log']),
    );
    // JSON.stringify writes a half alone as an escape.
    expect(worker.received.map((message) => JSON.stringify(message)).join()).not.toContain('\\ud');
  });

  it.each([
    ['too deep', nested(200)],
    ['too deep for the JSON writer', nested(50_000)],
    [
      'of code that throws',
      {
        toJSON: () => {
          throw new Error('mine');
        },
      },
    ],
    ['no JSON', 10n],
  ])('completes without a result that is %s', async (_what, result) => {
    const ended = job('acme', 'j1', { session, parameters: result }, () => result);
    expect(await worker.next('attach')).not.toHaveProperty('parameters');
    const ref = await worker.attach();
    expect(await worker.next('end')).toEqual({ type: 'end', ref, how: 'completed' });
    worker.send({ type: 'ended', ref, status: 'completed' });
    await expect(ended).resolves.toBe(result);
  });

  it.each([
    ['with a connection', false],
    ['without one', true],
  ])('hears at once that a resume point cannot be stored, %s', async (_what, isAway) => {
    const begun = gate();
    const ended = job('acme', 'j1', { session }, async (ctl: Control) => {
      await begun.wait();
      await expect(ctl.save(nested(200))).rejects.toThrow(RangeError);
      await expect(ctl.save('x'.repeat(300_000))).rejects.toThrow(RangeError);
      await expect(ctl.save(10n)).rejects.toThrow(TypeError);
      return 1;
    });
    let ref = await worker.attach();
    await begun.entered;
    if (isAway) {
      const former = worker.socket;
      former?.terminate();
      await worker.connected(2);
    }
    begun.open();
    if (isAway) {
      ref = await worker.attach(2);
    }
    expect(await worker.next('end')).toMatchObject({ ref, how: 'completed', result: 1 });
    worker.send({ type: 'ended', ref, status: 'completed' });
    await expect(ended).resolves.toBe(1);
    expect(worker.all('save')).toEqual([]);
  });

  it('waits for no answer that cannot come: what the worker could not use is not said again', async () => {
    const ended = job('acme', 'j1', { session }, async (ctl: Control) => {
      await expect(ctl.save('odd')).rejects.toThrow('save: point: no such values');
      await ctl.save('good');
      return 'odd';
    });
    const ref = await worker.attach();
    await worker.next('save');
    worker.send({ type: 'error', ref, error: 'invalid', message: 'save: point: no such values' });
    expect(await worker.next('save', 2)).toMatchObject({ n: 2, point: 'good' });
    worker.send({ type: 'saved', ref, n: 2 });
    expect(await worker.next('end')).toMatchObject({ result: 'odd' });
    worker.send({ type: 'error', ref, error: 'invalid', message: 'end: result: no such values' });
    expect(await worker.next('end', 2)).toEqual({ type: 'end', ref, how: 'completed' });
    worker.send({ type: 'ended', ref, status: 'completed' });
    await expect(ended).resolves.toBe('odd');
  });

  it.each([
    ['has none of', new Date(8.64e15), '9998-12-31T00:00:00.000Z'],
    ['is none', new Date(Number.NaN), undefined],
  ])('is handed back for a time that the protocol %s', async (_what, time, told) => {
    const ended = job('acme', 'j1', { session }, () => {
      throw new HandedBack('later', time);
    });
    const ref = await worker.attach();
    expect((await worker.next('end')).run_after).toBe(told);
    worker.send({ type: 'ended', ref, status: 'pending' });
    await expect(ended).rejects.toThrow(HandedBack);
  });
});
