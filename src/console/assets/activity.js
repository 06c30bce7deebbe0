// The list of what happened while this tab was open: results, refusals, ends.

import { byId, el } from "./dom.js";
import { named } from "./names.js";
import { clock } from "./messages.js";

const MOST = 200;

export function report(kind, id, tone, text) {
  const now = new Date();
  const list = byId("activity");
  list.prepend(el("li", { "data-tone": tone },
    el("time", { datetime: now.toISOString() }, clock(now)), el("span", { class: "said" }, text),
    el("span", { class: "what" }, `${kind} `, named(kind, id))));
  while (list.children.length > MOST) list.lastElementChild.remove();
  byId("activity-empty").hidden = true;
}

export function clear() {
  byId("activity").replaceChildren();
  byId("activity-empty").hidden = false;
}
