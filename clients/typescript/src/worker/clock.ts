import { uptime } from 'node:os';

/** Between two looks whether the machine has slept: a look reads a file. */
const LOOK_MILLISECONDS = 50;
/** Less is no sleep: what the system says of itself is rounded. */
const LEAST_SLEEP_MILLISECONDS = 500;

/**
 * Milliseconds that go on while the machine sleeps, as the worker's do. Linux's monotonic clock, which `performance.now()` reads, stands
 * still then, so that work would be taken for in touch for longer here than there; the time since the machine was started does not.
 * Other systems' monotonic clocks go on. The wall clock is not asked: it may be set.
 */
export function clockThatGoesOn(
  monotonic: () => number = () => performance.now(),
  sinceStart: (() => number) | null = process.platform === 'linux' ? () => uptime() * 1_000 : null,
): () => number {
  if (sinceStart === null) return monotonic;
  let slept = 0;
  let lookedAt = Number.NEGATIVE_INFINITY;
  let ahead: number | undefined;
  return () => {
    const now = monotonic();
    if (now - lookedAt >= LOOK_MILLISECONDS) {
      lookedAt = now;
      const found = readOr(sinceStart, now + (ahead ?? 0)) - now;
      ahead ??= found;
      if (found - ahead >= LEAST_SLEEP_MILLISECONDS) {
        slept += found - ahead;
        ahead = found;
      }
    }
    return now + slept;
  };
}

/** A sandbox may not tell. */
function readOr(read: () => number, otherwise: number): number {
  try {
    return read();
  } catch {
    return otherwise;
  }
}
