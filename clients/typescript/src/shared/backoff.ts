/**
 * How long to wait before the next try, in milliseconds: anything up to a limit that doubles with every failure ("full
 * jitter"), so that a thousand processes that lost the same worker do not come back in the same moment.
 */
export class Backoff {
  #failures = 0;

  constructor(
    private readonly first: number,
    private readonly most: number,
    private readonly random: () => number = Math.random,
  ) {}

  next(): number {
    const limit = Math.min(this.most, this.first * 2 ** Math.min(this.#failures, 30));
    this.#failures += 1;
    return Math.round(this.random() * limit);
  }

  /** A connection has worked: the next failure is the first again. */
  reset(): void {
    this.#failures = 0;
  }
}
