import { Batch, type BatchTarget } from './batch.js';
import { Commands } from './commands.js';
import { Connection, type ConnectionState, type WebSocketClass } from './connection.js';
import { Feed, type Watcher } from './feed.js';
import { Http, type RequestOptions } from './http.js';
import { Limit } from './limit.js';
import { type JobFilter, JobList } from './list.js';
import { Resource } from './resource.js';
import type { Observable } from './store.js';
import { type GetToken, Tokens } from './tokens.js';
import type { Action, CampaignNow, JobNow, Message, Schedule } from './types.js';

export interface ClientOptions {
  /** The gateway's address, `https://…`. Default in a page: where the page comes from. */
  url?: string;
  /** Gives a token of your user. Asked once however many need it, and again when the old one is not taken any more. */
  getToken: GetToken;
  /** Where there is none built in (Node 20): the class of the package `ws`. */
  WebSocket?: WebSocketClass;
  fetch?: typeof globalThis.fetch;
  /** Reads JSON. Default: `JSON.parse`, which rounds numbers of more than some 16 digits. */
  parse?: (text: string) => unknown;
}

/** A socket of your own, for a path of the realtime API. */
export interface RawSocket {
  readonly state: Observable<ConnectionState>;
  /** Sends once the connection is open; what is on its way when it breaks is lost. `job(id).pause()` sends again by itself. */
  send(message: object | string): void;
  /** Keeps the connection up and calls `listener` with each message. Gives the function that ends this. */
  subscribe(listener: (message: Message) => void): () => void;
  close(): void;
}

/** Wheelhouse, as a page sees it. Nothing is opened before somebody watches or commands something. */
export class Wheelhouse {
  /** Where the one connection of this client is. */
  readonly connection: Observable<ConnectionState>;
  readonly #options: ClientOptions & { url: string; parse: (text: string) => unknown };
  readonly #tokens: Tokens;
  readonly #http: Http;
  readonly #reads = new Limit(8);
  readonly #connection: Connection;
  readonly #feed: Feed;
  readonly #commands: Commands;
  readonly #resources = new Map<string, Resource<JobNow> | Resource<CampaignNow>>();
  readonly #lists = new Map<string, JobList>();

  constructor(options: ClientOptions) {
    const url = (options.url ?? globalThis.location?.origin ?? '').replace(/\/+$/, '');
    if (!/^https?:\/\//.test(url)) throw new TypeError(`createClient needs the gateway's url, not "${url}"`);
    const parse = options.parse ?? JSON.parse;
    this.#options = { ...options, url, parse };
    this.#tokens = new Tokens(options.getToken);
    this.#http = new Http(url, this.#tokens, options.fetch ?? globalThis.fetch.bind(globalThis), parse);
    this.#connection = this.#open('', {
      opened: () => {
        this.#feed.opened();
        this.#commands.opened();
      },
      message: (message) => {
        this.#feed.message(message);
        this.#commands.message(message);
      },
      lost: () => this.#feed.lost(),
      ended: ({ reason }) => this.#commands.ended(reason),
    });
    this.connection = this.#connection.state;
    this.#feed = new Feed(this.#connection);
    this.#commands = new Commands(this.#connection);
  }

  /** One job: to watch and to command. The same object for the same id. */
  job(id: string): Resource<JobNow> {
    return this.#resource('job', id) as Resource<JobNow>;
  }

  /** One campaign: to watch and to command. */
  campaign(id: string): Resource<CampaignNow> {
    return this.#resource('campaign', id) as Resource<CampaignNow>;
  }

  /** The tenant's jobs, newest first. The same object for the same filter. */
  jobs(filter: JobFilter = {}): JobList {
    const key = JSON.stringify(Object.entries(filter).sort());
    const list = this.#lists.get(key) ?? new JobList(filter, this.#http, this.#feed);
    this.#lists.set(key, list);
    return list;
  }

  /** One action on many: `wh.batch('cancel', { jobIds })`, then `preview()` or `run()`. */
  batch(action: Action, target: BatchTarget): Batch {
    return new Batch(action, target, this.#http);
  }

  /** Every message of the tenant that the user may read, as it comes. Gives the function that ends this. */
  watch(watcher: Watcher): () => void {
    return this.#feed.watchAll(watcher);
  }

  /** Any other request of the REST API: its JSON. Throws `CommandError`. */
  request<T>(path: string, options?: RequestOptions): Promise<T> {
    return this.#http.json<T>(path, options);
  }

  /** Commands that wait for their time. Throws `CommandError`. */
  async schedules(): Promise<Schedule[]> {
    return (await this.#http.json<{ schedules: Schedule[] }>('/api/v1/schedules')).schedules;
  }

  /** Takes a scheduled command back. Throws `CommandError`; `not_found` if it is gone. */
  readonly withdraw = async (scheduleId: string): Promise<void> => {
    await this.#http.json(`/api/v1/schedules/${encodeURIComponent(scheduleId)}`, { method: 'DELETE' });
  };

  /** A socket of your own: `socket('jobs/ID')`, for `/api/v1/realtime/ws/jobs/ID`, with a query if you like; a path that begins with `/` is taken whole. */
  socket(path: string): RawSocket {
    const listeners = new Set<(message: Message) => void>();
    const connection = this.#open(path, {
      message: (message) => {
        for (const listener of [...listeners]) listener(message);
      },
    });
    return {
      state: connection.state,
      send: (message) => connection.send(message),
      subscribe(listener) {
        listeners.add(listener);
        const release = connection.hold();
        return () => {
          listeners.delete(listener);
          release();
        };
      },
      close: () => connection.close(),
    };
  }

  /** Closes for good: commands on their way reject with the code `closed`. */
  close(): void {
    this.#connection.close();
    this.#tokens.close();
  }

  #resource(kind: 'job' | 'campaign', id: string): Resource<JobNow> | Resource<CampaignNow> {
    const key = `${kind}:${id}`;
    const parts = {
      http: this.#http,
      reads: this.#reads,
      feed: this.#feed,
      commands: this.#commands,
      withdraw: this.withdraw,
    };
    const found = this.#resources.get(key) ?? new Resource<JobNow>(kind, id, parts);
    this.#resources.set(key, found);
    return found;
  }

  #open(
    path: string,
    listener: Pick<ConstructorParameters<typeof Connection>[0], 'opened' | 'message' | 'lost' | 'ended'>,
  ): Connection {
    const WebSocket = this.#options.WebSocket ?? (globalThis.WebSocket as WebSocketClass | undefined);
    if (!WebSocket) throw new TypeError('createClient needs a WebSocket');
    const root = '/api/v1/realtime/ws';
    const whole = path.startsWith('/') ? path : path ? `${root}/${path}` : root;
    return new Connection({
      // A page's script does not see why an upgrade was refused; it does see why a socket was closed.
      // And it is to know when nothing comes because nothing can.
      url: `${this.#options.url.replace(/^http/, 'ws')}${whole}${whole.includes('?') ? '&' : '?'}reject=close&interruptions=true`,
      WebSocket,
      tokens: this.#tokens,
      parse: this.#options.parse,
      ...listener,
    });
  }
}

/** Makes a client; one is enough for a page. Throws a `TypeError` if something that it needs is missing. */
export function createClient(options: ClientOptions): Wheelhouse {
  return new Wheelhouse(options);
}
