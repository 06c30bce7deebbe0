import type { LogMessage } from '../generated/worker.js';

/** What lines are shown as. */
export type OutputStream = NonNullable<LogMessage['stream']>;

interface Line {
  stream: OutputStream;
  text: string;
}

const STREAMS: readonly string[] = ['stdout', 'stderr', 'log'];
/** Lines that wait to be sent: of a job 1,000 are kept, so that the line which says how many were left out is kept, too. */
const MOST_WAITING = 990;
/** Longer lines are cut, as Wheelhouse does it. */
const MOST_CHARACTERS = 4_000;
const EVERY_MILLISECONDS = 250;
/** Room for what a message has beside its lines. */
const FRAME_BYTES = 512;

/**
 * What a job says into its output, on its way to Wheelhouse: sent four times a second at most, and bounded. Of more lines than
 * may wait the oldest are left out, and a line says how many.
 */
export class Output {
  #lines: Line[] = [];
  #leftOut = 0;
  #unsure = false;
  #sentAt = Number.NEGATIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;

  /** `send` gives whether the message was sent; what was not waits on. `last`: there is no later. */
  constructor(
    private readonly ref: number,
    private readonly send: (message: LogMessage, last: boolean) => boolean,
    private readonly mostBytes: () => number,
  ) {}

  /** Adds the text's lines. Throws a `TypeError` for a stream that there is not. */
  add(text: string, stream: OutputStream): void {
    if (!STREAMS.includes(stream)) throw new TypeError(`"${stream}" is no stream: it takes ${STREAMS.join(', ')}.`);
    const texts = text.split(/\r?\n/);
    if (texts.length > 1 && texts.at(-1) === '') texts.pop();
    for (const line of texts.slice(-MOST_WAITING)) this.#lines.push({ stream, text: shorten(line) });
    this.#leftOut += Math.max(0, texts.length - MOST_WAITING);
    // Taken off in one go, and not with each line: that would copy all of them each time.
    if (this.#lines.length >= 2 * MOST_WAITING) this.#leaveOut();
    this.#flushSoon();
  }

  #flushSoon(): void {
    if (this.#timer) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.flush();
    }, EVERY_MILLISECONDS);
    this.#timer.unref();
  }

  /** Sends what waits; `last`: the job has ended, so what cannot be sent now never is. */
  flush(last = false): void {
    this.#leaveOut();
    const notes: Line[] = [];
    if (this.#unsure) notes.push({ stream: 'log', text: '… the connection broke off: lines may be missing here' });
    if (this.#leftOut > 0) notes.push({ stream: 'log', text: `… ${this.#leftOut} lines left out` });
    const lines = [...notes, ...this.#lines];
    let from = 0;
    while (from < lines.length) {
      const to = this.#endOfMessage(lines, from);
      const stream = (lines[from] as Line).stream;
      const texts = lines.slice(from, to).map((line) => line.text);
      if (!this.send({ type: 'log', ref: this.ref, stream, lines: texts }, last)) break;
      this.#sentAt = performance.now();
      from = to;
    }
    if (from < lines.length) this.#flushSoon();
    if (from === 0) return;
    this.#unsure = false;
    this.#leftOut = 0;
    this.#lines.splice(0, Math.max(0, from - notes.length));
  }

  /** The connection is gone. Nobody knows whether what was sent in the last so many milliseconds has arrived. */
  brokeOff(milliseconds: number): void {
    if (performance.now() - this.#sentAt < milliseconds) this.#unsure = true;
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#lines = [];
  }

  #leaveOut(): void {
    const tooMany = this.#lines.length - MOST_WAITING;
    if (tooMany <= 0) return;
    this.#lines.splice(0, tooMany);
    this.#leftOut += tooMany;
  }

  /** Lines of one stream that fit into one message. */
  #endOfMessage(lines: Line[], from: number): number {
    const { stream } = lines[from] as Line;
    let size = FRAME_BYTES;
    let to = from;
    while (to < lines.length && to - from < MOST_WAITING) {
      const line = lines[to] as Line;
      size += Buffer.byteLength(JSON.stringify(line.text)) + 1;
      if (to > from && (line.stream !== stream || size > this.mostBytes())) break;
      to += 1;
    }
    return to;
  }
}

function shorten(line: string): string {
  if (line.length <= MOST_CHARACTERS) return line;
  const kept = MOST_CHARACTERS - 40;
  return `${line.slice(0, kept)} … [${line.length - kept} characters left out]`;
}
