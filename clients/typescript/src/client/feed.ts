import type { Connection } from './connection.js';
import type { Kind, Message } from './types.js';

/** Somebody who follows one resource, or a whole tenant. */
export interface Watcher {
  message(message: Message): void;
  /** From now on every update comes: read what there is, once more after each connection. With `sent` a snapshot follows. */
  covered(sent: boolean): void;
  /** Updates may be missed. */
  lost(): void;
}

const MOST_IDS = 1_000;
/** Of so many a gateway sends the state along; of more each is read by itself. */
const MOST_SNAPSHOTS = 100;
const NAME = 'subscription-';
/** With nothing to watch a filter still has to name something. */
const NOBODY = '0';

/** Shares the tenant's one socket among all who watch: keeps its filter right, and gives each its messages. */
export class Feed {
  readonly #watchers: Record<Kind, Map<string, Watcher>> = { job: new Map(), campaign: new Map() };
  readonly #lists = new Set<Watcher>();
  readonly #uncovered = new Set<Watcher>();
  #subscriptions = 0;
  #snapshot = false;
  #asked: Watcher[] = [];
  #planned = false;

  readonly #connection: Pick<Connection, 'hold' | 'send' | 'state'>;

  constructor(connection: Pick<Connection, 'hold' | 'send' | 'state'>) {
    this.#connection = connection;
  }

  /** Follows one resource. Gives the function that ends this. */
  watch(kind: Kind, id: string, watcher: Watcher): () => void {
    this.#watchers[kind].set(id, watcher);
    return this.#added(watcher, () => this.#watchers[kind].delete(id));
  }

  /** Follows every job and campaign of the tenant. */
  watchAll(watcher: Watcher): () => void {
    this.#lists.add(watcher);
    return this.#added(watcher, () => this.#lists.delete(watcher));
  }

  opened(): void {
    for (const watcher of this.#all()) this.#uncovered.add(watcher);
    this.#plan();
  }

  lost(): void {
    this.#asked = [];
    for (const watcher of this.#all()) watcher.lost();
  }

  message(message: Message): void {
    if (message.request_id?.startsWith(NAME)) {
      if (message.request_id !== this.#name()) return;
      if (message.type === 'subscription') {
        for (const watcher of this.#asked.splice(0)) watcher.covered(this.#snapshot);
      } else {
        // It could not all be read: each learns by itself why, and when there is something to read.
        for (const watcher of this.#all()) watcher.covered(false);
      }
    } else if (message.type === 'resynchronize') {
      this.opened();
    } else {
      const { job_id, campaign_id } = message;
      const kind = job_id === undefined ? 'campaign' : 'job';
      const id = job_id ?? campaign_id;
      if (id !== undefined) this.#watchers[kind].get(id)?.message(message);
      for (const list of this.#lists) list.message(message);
    }
  }

  #added(watcher: Watcher, remove: () => void): () => void {
    const release = this.#connection.hold();
    this.#uncovered.add(watcher);
    this.#plan();
    return () => {
      remove();
      this.#uncovered.delete(watcher);
      this.#asked = this.#asked.filter((other) => other !== watcher);
      release();
      this.#plan();
    };
  }

  /** Many components appear and go in one turn of a page: one message is enough for them. */
  #plan(): void {
    if (this.#planned) return;
    this.#planned = true;
    queueMicrotask(() => {
      this.#planned = false;
      if (this.#connection.state.get().status !== 'open') return;
      this.#subscriptions += 1;
      this.#asked.push(...this.#uncovered);
      this.#uncovered.clear();
      const { job, campaign } = this.#watchers;
      const count = job.size + campaign.size;
      this.#snapshot = this.#lists.size === 0 && count > 0 && count <= MOST_SNAPSHOTS;
      // What is undefined does not travel.
      this.#connection.send({
        type: 'subscribe',
        filter: this.#filter(),
        request_id: this.#name(),
        snapshot: this.#snapshot || undefined,
      });
    });
  }

  #name(): string {
    return NAME + this.#subscriptions;
  }

  #filter(): object {
    const jobs = [...this.#watchers.job.keys()];
    const campaigns = [...this.#watchers.campaign.keys()];
    if (this.#lists.size > 0 || jobs.length > MOST_IDS || campaigns.length > MOST_IDS) return {};
    if (jobs.length + campaigns.length === 0) return { job_ids: [NOBODY] };
    return {
      job_ids: jobs.length > 0 ? jobs : undefined,
      campaign_ids: campaigns.length > 0 ? campaigns : undefined,
    };
  }

  #all(): Watcher[] {
    return [...this.#watchers.job.values(), ...this.#watchers.campaign.values(), ...this.#lists];
  }
}
