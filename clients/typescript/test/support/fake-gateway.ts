import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type WebSocket, WebSocketServer } from 'ws';
import type { Message } from '../../src/client/index.js';

/** Stands for a gateway where a test has to make what a real one does rarely: drains, refusals, lost answers. */
export class FakeGateway {
  readonly received: Message[] = [];
  readonly tokens: string[] = [];
  readonly sockets: WebSocket[] = [];
  readonly rows = new Map<string, object>();
  /** Requests over HTTP, as `GET /api/v1/jobs/j1`. */
  readonly requests: string[] = [];
  /** What the list of jobs is answered with. */
  list: object = { jobs: [], next: null };
  /** Tokens that are not taken, on sockets and over HTTP. */
  readonly refused = new Set<string>();
  /** The close code that every socket is refused with. */
  refuse: number | undefined;
  /** How many were. */
  refusals = 0;
  /** Whether requests over HTTP are answered with 503. */
  away = false;
  #waiting: (() => void)[] = [];

  private constructor(private readonly http: Server) {
    const server = new WebSocketServer({
      server: http,
      handleProtocols: () => 'wheelhouse',
    });
    server.on('connection', (socket, request) => {
      const code = this.refuse ?? (this.refused.has(tokenOf(request.headers['sec-websocket-protocol'])) ? 4401 : 0);
      if (code && request.url?.includes('reject=close')) {
        this.refusals += 1;
        this.#wake();
        return socket.close(code, 'refused');
      }
      this.sockets.push(socket);
      this.tokens.push(tokenOf(request.headers['sec-websocket-protocol']));
      socket.on('message', (data) => this.#take(socket, JSON.parse(String(data))));
      socket.send(JSON.stringify({ type: 'subscribed', channel: 'acme', tenant_id: 'acme', workers_online: 1 }));
      this.#wake();
    });
    http.on('request', (request, response) => {
      this.requests.push(`${request.method} ${request.url}`);
      if (this.away) {
        response.writeHead(503, { 'Content-Type': 'application/json' });
        response.end('{"error":"unavailable","message":"Redis is away"}');
        return;
      }
      const id = /^\/api\/v1\/jobs\/(.*)$/.exec(request.url ?? '')?.[1];
      const list = request.url?.startsWith('/api/v1/jobs?') ? this.list : undefined;
      const row = list ?? (id === undefined ? {} : this.rows.get(decodeURIComponent(id)));
      const known = !this.refused.has(String(request.headers.authorization).slice('Bearer '.length));
      response.writeHead(known ? (row ? 200 : 404) : 401, { 'Content-Type': 'application/json' });
      const missing = { error: 'not_found', message: 'There is no such job in your tenant' };
      response.end(JSON.stringify(known ? (row ?? missing) : { error: 'unauthorized', message: 'no' }));
    });
  }

  static async start(): Promise<FakeGateway> {
    const http = createServer();
    await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
    return new FakeGateway(http);
  }

  get url(): string {
    return `http://127.0.0.1:${(this.http.address() as AddressInfo).port}`;
  }

  get socket(): WebSocket {
    return this.sockets.at(-1) as WebSocket;
  }

  send(message: object): void {
    this.socket.send(JSON.stringify(message));
  }

  /** The `n`th message of a type, counted from 1, as soon as it has come. */
  async next(type: string, n = 1): Promise<Message> {
    for (;;) {
      const found = this.received.filter((message) => message.type === type)[n - 1];
      if (found) return found;
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  /** Settles when there have been `n` connections. */
  async connected(n: number): Promise<void> {
    while (this.sockets.length < n) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  async stop(): Promise<void> {
    for (const socket of this.sockets) socket.terminate();
    this.http.closeAllConnections();
    await new Promise<void>((resolve) => this.http.close(() => resolve()));
  }

  #take(socket: WebSocket, message: Message): void {
    this.received.push(message);
    if (message.type === 'ping') socket.send('{"type":"pong"}');
    if (message.type === 'subscribe') {
      const { request_id, filter } = message;
      socket.send(JSON.stringify({ type: 'subscription', filter, request_id }));
      if (message.snapshot) this.#snapshots(socket, message);
    }
    this.#wake();
  }

  #snapshots(socket: WebSocket, { request_id, filter }: Message): void {
    if (this.away) {
      const error = { type: 'error', error: 'unavailable', message: 'Redis is away', request_id };
      return socket.send(JSON.stringify(error));
    }
    for (const id of (filter as { job_ids?: string[] }).job_ids ?? []) {
      const missing = { type: 'error', error: 'not_found', message: 'There is no such job in your tenant', job_id: id };
      const row = this.rows.get(id);
      socket.send(JSON.stringify(row ? { type: 'job_snapshot', ...row } : missing));
    }
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

function tokenOf(protocols: string | undefined): string {
  return /bearer\.([^,\s]+)/.exec(protocols ?? '')?.[1] ?? '';
}

/** A job as the gateway would give it. */
export function row(id: string, fields: object = {}): object {
  return {
    id,
    job_id: id,
    tenant_id: 'acme',
    job_type: 'import',
    status: 'running',
    progress_percent: 0,
    seq: 5,
    ...fields,
  };
}
