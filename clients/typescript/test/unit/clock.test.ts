import { uptime } from 'node:os';
import { expect, test } from 'vitest';
import { clockThatGoesOn } from '../../src/worker/clock.js';

test('time goes on while the machine sleeps, and rounding is no sleep', () => {
  let [monotonic, slept] = [1_000, 0];
  // Rounded to hundredths of a second, as the system gives it, and never in step with the other.
  const now = clockThatGoesOn(
    () => monotonic,
    () => Math.round((monotonic + slept + 12_345) / 10) * 10,
  );
  const began = now();
  for (let step = 0; step < 10_000; step += 1) {
    monotonic += 7;
    expect(now() - began).toBe(monotonic - 1_000);
  }
  slept = 60_000;
  monotonic += 50;
  expect(now() - began).toBeGreaterThanOrEqual(monotonic - 1_000 + 59_990);
  const before = now();
  slept += 3_600_000;
  monotonic += 49;
  expect(now() - before, 'it is looked at each 50 ms').toBe(49);
  monotonic += 1;
  expect(now() - before).toBeGreaterThanOrEqual(3_600_000 - 20);
});

test('where the system does not tell, it is the monotonic clock', () => {
  let monotonic = 5;
  const refused = clockThatGoesOn(
    () => monotonic,
    () => {
      throw new Error('EPERM');
    },
  );
  const none = clockThatGoesOn(() => monotonic, null);
  for (monotonic of [10, 100, 5_000]) expect([refused(), none()]).toEqual([monotonic, monotonic]);
});

test('the clock of this machine goes on', () => {
  const now = clockThatGoesOn();
  const before = now();
  expect(now()).toBeGreaterThanOrEqual(before);
  expect(uptime()).toBeGreaterThan(0);
});
