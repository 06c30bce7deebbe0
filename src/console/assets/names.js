// Links that are called as their job or campaign is: lists of commands know only ids, which tell nobody anything.

import { el, link, setText } from "./dom.js";
import { live } from "./live.js";
import { href } from "./router.js";

const MOST = 2_000;
const AT_ONCE = 4;
// Names change seldom, and what could not be read may be readable later.
const KNOWN_FOR = 600_000;

const known = new Map();
const queue = [];
let reading = 0;

function next() {
  while (reading < AT_ONCE && queue.length > 0) {
    const read = queue.shift();
    reading += 1;
    read().finally(() => {
      reading -= 1;
      next();
    });
  }
}

// The name, or null where there is none or it may not be read.
function nameOf(kind, id) {
  const key = `${kind}:${id}`;
  const found = known.get(key);
  if (found && Date.now() - found.at < KNOWN_FOR) return found.name;
  if (known.size > MOST) known.clear();
  const name = new Promise((resolve) => {
    queue.push(async () => {
      try {
        const row = await live.handle(kind, id).load();
        resolve(row.title ?? row.name ?? null);
      } catch (error) {
        // Read again another time, unless there is nothing to be had.
        if (!["not_found", "permission_denied", "forbidden"].includes(error.code)) known.delete(key);
        resolve(null);
      }
    });
  });
  known.set(key, { at: Date.now(), name });
  next();
  return name;
}

export function named(kind, id) {
  const title = link(href(`${kind}s`, id), id);
  const below = el("span", { class: "faint id", hidden: true }, id);
  nameOf(kind, id).then((name) => {
    if (!name) return;
    setText(title, name);
    below.hidden = false;
  });
  return el("span", { class: "named" }, title, below);
}

export function forgetNames() {
  known.clear();
  queue.length = 0;
}
