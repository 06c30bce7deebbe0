// What is known of each job and campaign: rows from HTTP, changes from sockets, put together by these rules:
//  - what a socket says has a `seq`; an older one changes nothing;
//  - while a socket is live, it and not the polled list tells status and progress;
//  - nothing leaves completed, failed or cancelled, so an answer that says otherwise is old.

import { FINAL } from "./messages.js";

// The fields a socket keeps fresh.
const LIVE = ["status", "is_active", "progress_percent", "items_total", "items_processed", "items_succeeded",
  "items_failed", "current_item"];

export const keyOf = (kind, id) => `${kind}:${id}`;
export const isFinal = (item) => FINAL.has(item.row?.status);

export class Model {
  constructor() {
    this.items = new Map();
    this.dirty = new Set();
    this.listeners = [];
    this.drawing = false;
  }

  // `listener(items)`, once for each frame in which something changed.
  onChange(listener) {
    this.listeners.push(listener);
  }

  changed(item) {
    this.dirty.add(item);
    if (this.drawing) return;
    this.drawing = true;
    requestAnimationFrame(() => {
      this.drawing = false;
      const items = [...this.dirty];
      this.dirty.clear();
      for (const listener of this.listeners) listener(items);
    });
  }

  get(kind, id) {
    return this.items.get(keyOf(kind, id));
  }

  clear() {
    this.items.clear();
    this.dirty.clear();
  }

  // A row of a list, or (with `whole`) of the resource's own path. Returns the item and what happened to it.
  merge(kind, row, whole = false) {
    const key = keyOf(kind, row.id);
    let item = this.items.get(key);
    if (!item) {
      item = { key, kind, id: row.id, row, seq: row.seq ?? -1, desired: row.desired ?? null, live: false,
        requests: [], note: null, open: false, visible: false, pinned: 0 };
      this.items.set(key, item);
      this.changed(item);
      return { item, fresh: true, ended: false };
    }
    const was = item.row.status;
    const ends = FINAL.has(row.status);
    if (FINAL.has(was) && !ends) return { item, fresh: false, ended: false };
    const keepLive = item.live && !ends && !(whole && (row.seq ?? -1) >= item.seq);
    const next = { ...item.row, ...row };
    if (keepLive) for (const field of LIVE) if (field in item.row) next[field] = item.row[field];
    if (!keepLive) item.desired = whole ? row.desired ?? null : row.status === was ? item.desired : null;
    if (whole && typeof row.seq === "number") item.seq = Math.max(item.seq, row.seq);
    if (ends) item.desired = null;
    if (differs(item.row, next)) item.row = next;
    this.changed(item);
    return { item, fresh: false, ended: ends && !FINAL.has(was) };
  }

  // A message of the resource's socket; true where it was news.
  apply(item, message) {
    const seq = typeof message.seq === "number" ? message.seq : null;
    const was = item.row.status;
    const [, what] = message.type.split("_");
    if (what === "snapshot") {
      const { type, job_id, campaign_id, workers_online, seq: at, desired, ...row } = message;
      item.row = { ...item.row, ...row };
      item.seq = at ?? -1;
      item.desired = desired ?? null;
    } else {
      if (seq !== null && seq <= item.seq) return { news: false, ended: false };
      if (seq !== null) item.seq = seq;
      if (FINAL.has(was) && message.status !== was) return { news: false, ended: false };
      const next = { ...item.row };
      for (const field of LIVE) if (field in message) next[field] = message[field];
      // A worker may have come or gone: not known until the row is read again.
      if (next.status !== was) delete next.control;
      item.row = next;
      if (what === "status") item.desired = message.desired ?? null;
    }
    if (FINAL.has(item.row.status)) item.desired = null;
    this.changed(item);
    return { news: item.row.status !== was, ended: FINAL.has(item.row.status) && !FINAL.has(was) };
  }
}

function differs(a, b) {
  for (const key of Object.keys(b)) {
    const [x, y] = [a[key], b[key]];
    if (x !== y && (typeof x !== "object" || JSON.stringify(x) !== JSON.stringify(y))) return true;
  }
  return false;
}
