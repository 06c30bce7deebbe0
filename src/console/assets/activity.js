// The list of what happened while this tab was open: results, refusals, ends.

import { byId, el } from "./dom.js";
import { clock, nameOf } from "./messages.js";

const MOST = 200;

// `show(item)` brings a row into view.
export function report(item, tone, text, show) {
  const now = new Date();
  const list = byId("activity");
  const what = item
    ? el("button", { type: "button", class: "plain what", title: item.id, onclick: () => show(item) }, nameOf(item))
    : "";
  list.prepend(el("li", { "data-tone": tone },
    el("time", { datetime: now.toISOString() }, clock(now)), el("span", { class: "said" }, text), what));
  while (list.children.length > MOST) list.lastElementChild.remove();
  byId("activity-empty").hidden = true;
}

export function clear() {
  byId("activity").replaceChildren();
  byId("activity-empty").hidden = false;
}
