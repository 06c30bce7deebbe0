/** Arrays and objects inside one another that Wheelhouse takes in one value: readers further on would give more up. */
const DEEPEST = 127;
/** The brackets alone of what is deeper. */
const SHORTEST_TOO_DEEP = 2 * (DEEPEST + 1);
const LATEST = Date.UTC(9998, 11, 31);

/**
 * A value as it goes over the wire. Half a character (a text that was cut in the middle of an emoji) becomes U+FFFD, as
 * Wheelhouse refuses it. Throws what `JSON.stringify` throws, also for what is too deep for it.
 */
export function toText(value: unknown): string {
  const text = JSON.stringify(value);
  // JSON.stringify writes halves alone as such escapes. The backslash of another escape takes the one behind it along.
  if (!text?.includes('\\ud')) return text;
  return text.replace(/\\(?:(ud[89a-f][0-9a-f]{2})|.)/g, (all, half) => (half ? '\\ufffd' : all));
}

/** Whether a value of this text lies deeper than Wheelhouse takes it; `beside`: so many levels are those of the message. */
export function isTooDeep(text: string, beside = 0): boolean {
  if (text.length < SHORTEST_TOO_DEEP) return false;
  let depth = -beside;
  for (let at = 0; at < text.length; at += 1) {
    const character = text[at];
    if (character === '"') {
      at += 1;
      while (text[at] !== '"') at += text[at] === '\\' ? 2 : 1;
    } else if (character === '[' || character === '{') {
      depth += 1;
      if (depth > DEEPEST) return true;
    } else if (character === ']' || character === '}') {
      depth -= 1;
    }
  }
  return false;
}

/** A time as the protocol writes it; one beyond its years becomes the next that it has. Nothing for what is no time. */
export function moment(time: Date | undefined): string | undefined {
  const milliseconds = time?.getTime() ?? Number.NaN;
  if (Number.isNaN(milliseconds)) return undefined;
  return new Date(Math.min(LATEST, Math.max(0, milliseconds))).toISOString();
}
