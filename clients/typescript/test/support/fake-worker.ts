import { readFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { type WebSocket, WebSocketServer } from 'ws';
import type { Client, Server, WelcomeMessage } from '../../src/generated/worker.js';

type Sent<T extends Client['type']> = Extract<Client, { type: T }>;

const schema = JSON.parse(readFileSync(new URL('../../../../schema/worker.schema.json', import.meta.url), 'utf8'));
const ajv = new Ajv2020({ strict: false, validateFormats: false });
ajv.addSchema(schema);
const isClientMessage = ajv.compile({ $ref: `${schema.$id}#/$defs/client` });
const isServerMessage = ajv.compile({ $ref: `${schema.$id}#/$defs/server` });

/** Stands for a Wheelhouse worker. Checks each frame in both directions against the schema; a test says what it answers. */
export class FakeWorker {
  readonly received: Client[] = [];
  readonly protocols: string[] = [];
  /** Frames that the schema does not allow; a test ends with none. */
  readonly faults: string[] = [];
  socket: WebSocket | undefined;
  connections = 0;
  /** HTTP status with which upgrades are refused. */
  refuseWith: number | undefined;
  #waiting: (() => void)[] = [];

  private constructor(
    private readonly server: WebSocketServer,
    private readonly welcome: Partial<WelcomeMessage>,
  ) {
    server.on('connection', (socket, request) => {
      this.connections += 1;
      this.socket = socket;
      this.protocols.push(String(request.headers['sec-websocket-protocol']));
      socket.on('message', (data) => this.#take(socket, String(data)));
      this.#wake();
    });
  }

  static async start(welcome: Partial<WelcomeMessage> = {}): Promise<FakeWorker> {
    let fake: FakeWorker;
    const server = new WebSocketServer({
      port: 0,
      host: '127.0.0.1',
      path: '/api/v1/worker/ws',
      handleProtocols: () => 'wheelhouse-worker.1',
      verifyClient: (_info, answer) => {
        if (fake.refuseWith === undefined) answer(true);
        else
          answer(false, fake.refuseWith, '{"error":"unauthorized","message":"no such token"}', { 'Retry-After': '1' });
      },
    });
    await new Promise<void>((resolve) => server.once('listening', resolve));
    fake = new FakeWorker(server, welcome);
    return fake;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  send(message: Server): void {
    if (!isServerMessage(message)) this.faults.push(`server: ${JSON.stringify(message)}`);
    this.socket?.send(JSON.stringify(message));
  }

  /** The `n`th message of a type, counted from 1, as soon as it has come. */
  async next<T extends Client['type']>(type: T, n = 1): Promise<Sent<T>> {
    for (;;) {
      const found = this.all(type)[n - 1];
      if (found) return found;
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  /** All messages of a type so far. */
  all<T extends Client['type']>(type: T): Sent<T>[] {
    return this.received.filter((message): message is Sent<T> => message.type === type);
  }

  /** Settles when the client has connected `n` times in all. */
  async connected(n: number): Promise<void> {
    while (this.connections < n) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  /** Answers the next attach (the `n`th of all) as running or paused. */
  async attach(
    n = 1,
    answer: { run?: number; status?: 'running' | 'paused'; resume_point?: unknown } = {},
  ): Promise<number> {
    const { ref } = await this.next('attach', n);
    this.send({ type: 'attached', ref, run: 1, status: 'running', resume_point: null, ...answer });
    return ref;
  }

  async stop(): Promise<void> {
    for (const client of this.server.clients) client.terminate();
    await new Promise<void>((resolve) => this.server.close(() => resolve()));
  }

  #take(socket: WebSocket, text: string): void {
    const message = JSON.parse(text) as Client;
    if (!isClientMessage(message)) this.faults.push(`client: ${text}`);
    this.received.push(message);
    if (message.type === 'hello') {
      const welcome = { v: 1 as const, reattach_seconds: 10, max_frame: 262_144, ...this.welcome };
      socket.send(JSON.stringify({ type: 'welcome', session: message.session, ...welcome }));
    }
    this.#wake();
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}
