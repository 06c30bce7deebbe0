// Links that are called as their job or campaign is: commands and messages know only ids, which tell nobody anything. Names that
// are wanted at about the same time are asked for together, however many rows want them.

import { el, link, setText } from "./dom.js";
import { live, path } from "./live.js";
import { href } from "./router.js";

const MOST = 2_000;
// No more than the gateway tells at once, and no longer an address than what stands before a gateway may take.
const AT_ONCE = 100;
const LONGEST = 4_000;
const TOGETHER = 50;
const AGAIN = 5_000;
// Names change seldom, and what could not be read may be readable later.
const KNOWN_FOR = 600_000;

const known = new Map();
const wanted = new Map();
let timer = null;

const keyOf = (kind, id) => `${kind}:${id}`;

function keep(kind, id, name) {
  if (known.size >= MOST) known.clear();
  known.set(keyOf(kind, id), { at: Date.now(), name });
}

// A page that has read a row knows its name.
export function learn(kind, row) {
  const name = row.title ?? row.name ?? null;
  if (name !== null) keep(kind, row.id, name);
}

function take() {
  const some = [];
  let length = 0;
  for (const [key, one] of wanted) {
    length += one.id.length + 1;
    if (some.length === AT_ONCE || length > LONGEST) break;
    some.push(one);
    wanted.delete(key);
  }
  return some;
}

async function ask() {
  timer = null;
  const some = take();
  if (some.length === 0) return;
  const ids = (kind) => some.filter((one) => one.kind === kind).map(({ id }) => id).join();
  try {
    const named = await live.ask(path("/api/v1/names", { jobs: ids("job"), campaigns: ids("campaign") }));
    for (const { kind, id, tell } of some) {
      const name = named[`${kind}s`]?.[id] ?? null;
      keep(kind, id, name);
      for (const one of tell) one(name);
    }
  } catch (error) {
    if (["permission_denied", "forbidden"].includes(error.code)) return;
    for (const { kind, id, tell } of some) for (const one of tell) want(kind, id, one, AGAIN);
  }
  if (wanted.size > 0) soon(TOGETHER);
}

function soon(wait) {
  timer ??= setTimeout(ask, wait);
}

// Calls `tell` with the name, at once where it is known; with null where there is none or it may not be read.
function want(kind, id, tell, wait = TOGETHER) {
  const key = keyOf(kind, id);
  const found = known.get(key);
  if (found && Date.now() - found.at < KNOWN_FOR) return tell(found.name);
  const asked = wanted.get(key) ?? { kind, id, tell: [] };
  asked.tell.push(tell);
  wanted.set(key, asked);
  return soon(wait);
}

export function named(kind, id) {
  const title = link(href(`${kind}s`, id), id);
  const below = el("span", { class: "faint id", hidden: true }, id);
  want(kind, id, (name) => {
    if (!name) return;
    setText(title, name);
    below.hidden = false;
  });
  return el("span", { class: "named" }, title, below);
}

export function forgetNames() {
  known.clear();
  wanted.clear();
}
