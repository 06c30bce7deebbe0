import { asCommandError, type CommandError } from './errors.js';
import type { Feed, Watcher } from './feed.js';
import { type Http, query } from './http.js';
import { Store } from './store.js';
import type { Job, Message } from './types.js';
import { updated } from './updated.js';

/** Which jobs; what is left out does not matter. */
export interface JobFilter {
  status?: Job['status'];
  campaignId?: string;
  jobType?: string;
  /** How many there are in a page. Default: 100. */
  limit?: number;
}

export interface ListState {
  jobs: readonly Job[];
  /** There are more: `loadMore()`. */
  more: boolean;
  /** Only `live` is true now. */
  status: 'loading' | 'live' | 'stale' | 'failed';
  error?: CommandError;
}

interface Page {
  jobs: Job[];
  next: string | null;
}

const REREAD = 500;
const READ_AGAIN = 3_000;
/** The tenant's jobs, newest first, kept up to date while somebody subscribes. */
export class JobList implements Watcher {
  readonly #store = new Store<ListState>({ jobs: [], more: false, status: 'loading' });
  #next: string | null = null;
  #pages = 1;
  #followers = 0;
  #unwatch: (() => void) | undefined;
  #reading = 0;
  #reread: ReturnType<typeof setTimeout> | undefined;

  readonly #filter: JobFilter;
  readonly #http: Http;
  readonly #feed: Feed;

  constructor(filter: JobFilter, http: Http, feed: Feed) {
    this.#filter = filter;
    this.#http = http;
    this.#feed = feed;
  }

  readonly get = (): ListState => this.#store.get();

  /** Follows the list; `listener` is called after each change. Gives the function that ends this. */
  readonly subscribe = (listener: (state: ListState) => void): (() => void) => {
    const unlisten = this.#store.subscribe(() => listener(this.get()));
    this.#followers += 1;
    this.#unwatch ??= this.#feed.watchAll(this);
    let following = true;
    return () => {
      unlisten();
      if (following) this.#followers -= 1;
      following = false;
      if (this.#followers > 0) return;
      this.#unwatch?.();
      this.#unwatch = undefined;
      this.lost();
    };
  };

  /** One page, read once. `after` is the `next` of the page before. Throws `CommandError`. */
  page(after?: string): Promise<Page> {
    const { status, campaignId, jobType, limit = 100 } = this.#filter;
    return this.#http.json(
      `/api/v1/jobs${query({ status, campaign_id: campaignId, job_type: jobType, limit, after })}`,
    );
  }

  /** Adds the next page to what is shown. */
  async loadMore(): Promise<void> {
    if (!this.#next) return;
    this.#pages += 1;
    await this.#read();
  }

  // What the feed tells (Watcher).

  covered(): void {
    void this.#read();
  }

  lost(): void {
    this.#reading += 1;
    clearTimeout(this.#reread);
    this.#reread = undefined;
    this.#store.set({ ...this.get(), status: this.get().status === 'loading' ? 'loading' : 'stale' });
  }

  message(message: Message): void {
    const { job_id: id, type } = message;
    if (id === undefined || !/^job_(status|progress)$/.test(type)) return;
    const state = this.get();
    const at = state.jobs.findIndex((job) => job.id === id);
    const old = state.jobs[at];
    // A job that is not shown may be new, or fit only now; how it stands among the others is for the service to say.
    if (!old) {
      if (type === 'job_status') this.#readSoon();
      return;
    }
    const next = updated(old, message);
    if (!next) return;
    const jobs = [...state.jobs];
    const wanted = this.#filter.status;
    if (wanted && next.status !== wanted) jobs.splice(at, 1);
    else jobs[at] = next;
    this.#store.set({ ...state, jobs });
  }

  #readSoon(milliseconds = REREAD): void {
    this.#reread ??= setTimeout(() => {
      this.#reread = undefined;
      void this.#read();
    }, milliseconds);
  }

  async #read(): Promise<void> {
    this.#reading += 1;
    const reading = this.#reading;
    try {
      const jobs: Job[] = [];
      let next: string | null = null;
      for (let i = 0; i < this.#pages && (i === 0 || next); i++) {
        const page: Page = await this.page(next ?? undefined);
        jobs.push(...page.jobs);
        next = page.next;
      }
      if (reading !== this.#reading) return;
      this.#next = next;
      this.#store.set({ jobs, more: next !== null, status: 'live' });
    } catch (error) {
      if (reading !== this.#reading) return;
      const known = asCommandError(error);
      this.#store.set({ ...this.get(), status: 'failed', error: known });
      if (known.code === 'network' || known.code === 'unavailable') this.#readSoon(READ_AGAIN);
    }
  }
}
