// JSON without losing a digit. A number of JavaScript has some 16 digits: 9007199254740993 read by JSON.parse is shown as
// …992. What a number cannot hold exactly is kept as the text that came.

export class ExactNumber {
  constructor(source) {
    this.source = source;
  }

  // For JSON.stringify: a text that nobody else can have written, so that `pretty` knows it again.
  toJSON() {
    return MARK + this.source;
  }
}

const MARK = `number ${crypto.getRandomValues(new Uint32Array(4)).join(" ")} `;
const MARKED = new RegExp(`"${MARK}([^"]*)"`, "g");

// Most texts have only numbers that are short: those need no second look.
const PERHAPS_LONG = /[\d.]{16}|\d[.eE][\d+-]/;
const NUMBER = /-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/y;

export function parse(text) {
  if (!PERHAPS_LONG.test(text)) return JSON.parse(text);
  const marked = marking(text);
  if (marked === text) return JSON.parse(text);
  return JSON.parse(marked, (_, value) =>
    (typeof value === "string" && value.startsWith(MARK) ? new ExactNumber(value.slice(MARK.length)) : value));
}

// As JSON.stringify with lines and indents.
export const pretty = (value) => JSON.stringify(value, null, 2).replace(MARKED, "$1");

// The text with every number that JavaScript would change as a marked string.
function marking(text) {
  const parts = [];
  let kept = 0;
  let at = 0;
  while (at < text.length) {
    const char = text[at];
    if (char === '"') {
      at = endOfString(text, at);
    } else if (char === "-" || (char >= "0" && char <= "9")) {
      NUMBER.lastIndex = at;
      const number = NUMBER.exec(text)?.[0] ?? char;
      if (String(Number(number)) !== number) {
        parts.push(text.slice(kept, at), `"${MARK}${number}"`);
        kept = at + number.length;
      }
      at += number.length;
    } else {
      at += 1;
    }
  }
  return kept === 0 ? text : parts.join("") + text.slice(kept);
}

// Behind the quote that ends the string which begins here.
function endOfString(text, begin) {
  let end = begin;
  for (;;) {
    end = text.indexOf('"', end + 1);
    if (end < 0) return text.length;
    let backslashes = 0;
    while (text[end - 1 - backslashes] === "\\") backslashes += 1;
    if (backslashes % 2 === 0) return end + 1;
  }
}
