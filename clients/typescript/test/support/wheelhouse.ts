import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { get } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { freePort, type Redis, startRedis } from './redis.js';
import { until } from './wait.js';

const run = promisify(execFile);

/** The program under test: that of `scripts/test-typescript.sh`, or the debug build. */
function program(): string {
  const path =
    process.env.WHEELHOUSE_PROGRAM ?? fileURLToPath(new URL('../../../../target/debug/wheelhouse', import.meta.url));
  if (!existsSync(path)) throw new Error(`${path} is not there: run cargo build, or set WHEELHOUSE_PROGRAM.`);
  return path;
}

/** One process of the program. */
export interface Process {
  url: string;
  /** Ends it as a crash does. */
  kill(): Promise<void>;
  /** Ends it as a deployment does. */
  terminate(): Promise<void>;
}

export interface Row {
  id: string;
  status: string;
  control?: string;
  desired?: string;
  error_message?: string | null;
  result?: unknown;
  items_processed?: number;
}

/** A Redis, a SQLite file, and gateways and workers on them. */
export class Fleet {
  readonly #children = new Set<ChildProcess>();

  private constructor(
    readonly redis: Redis,
    private readonly directory: string,
  ) {}

  static async start(): Promise<Fleet> {
    const fleet = new Fleet(await startRedis(), mkdtempSync(join(tmpdir(), 'wheelhouse-fleet-')));
    await fleet.call('migrate');
    return fleet;
  }

  /** A gateway; at a port of before, to take the place of one that was killed. */
  gateway(port?: number, settings: Record<string, string> = {}): Promise<Process> {
    return this.#start('gateway', 'SERVER', port, settings);
  }

  /** A worker that listens for foreign workers. */
  worker(port?: number, settings: Record<string, string> = {}): Promise<Process> {
    return this.#start('worker', 'WORKER', port, settings);
  }

  /** The same with a certificate (`server.pem` and `server.key` in a folder), which authorities of one's own (`ca`) have signed. */
  secureWorker(folder: string, ca: Buffer): Promise<Process> {
    const files = {
      WHEELHOUSE__SERVER__TLS_CERT_FILE: join(folder, 'server.pem'),
      WHEELHOUSE__SERVER__TLS_KEY_FILE: join(folder, 'server.key'),
    };
    return this.#start('worker', 'WORKER', undefined, files, ca);
  }

  /** A user's token. */
  async token(tenant: string, user = 'ann', permissions = '*', ttl = '1h'): Promise<string> {
    return this.call('token', '--user', user, '--tenant', tenant, '--permissions', permissions, '--ttl', ttl);
  }

  /** A foreign worker's token. */
  async workerToken(...tenants: string[]): Promise<string> {
    return this.call('token', '--worker', 'node-tests', '--tenants', tenants.join(','));
  }

  /** What the program prints. */
  async call(...args: string[]): Promise<string> {
    const { stdout } = await run(program(), args, { env: this.#env(), cwd: this.directory });
    return stdout.trim();
  }

  /** A program under control, `wheelhouse run`, until the fleet ends. */
  program(id: string, title: string, script: string): void {
    const args = ['run', '--tenant', 'acme', '--job-id', id, '--title', title, '--', 'sh', '-c', script];
    this.#children.add(spawn(program(), args, { env: this.#env(), cwd: this.directory, stdio: 'ignore' }));
  }

  async stop(): Promise<void> {
    for (const child of this.#children) child.kill('SIGKILL');
    this.redis.stop();
    rmSync(this.directory, { recursive: true, force: true, maxRetries: 5 });
  }

  #env(more: Record<string, string> = {}): NodeJS.ProcessEnv {
    return {
      ...process.env,
      WHEELHOUSE__REDIS__URL: `redis://127.0.0.1:${this.redis.port}`,
      WHEELHOUSE__DATABASE__URL: `sqlite://${join(this.directory, 'wheelhouse.db')}`,
      WHEELHOUSE__AUTH__HS256_SECRET: 'only-for-tests-0123456789abcdefghij',
      WHEELHOUSE__AUTH__PERMISSIONS: 'token',
      WHEELHOUSE__LIMITS__COMMANDS_PER_MINUTE: '1000',
      WHEELHOUSE__SERVER__DRAIN_NOTICE_SECONDS: '0',
      WHEELHOUSE__SERVER__DRAIN_SECONDS: '2',
      WHEELHOUSE__WORKER__GRACE_SECONDS: '2',
      WHEELHOUSE__WORKER__REATTACH_SECONDS: '3',
      WHEELHOUSE__LOG__LEVEL: 'warn',
      ...more,
    };
  }

  async #start(
    role: string,
    section: string,
    port?: number,
    settings: Record<string, string> = {},
    ca?: Buffer,
  ): Promise<Process> {
    const listen = port ?? (await freePort());
    const log = process.env.WHEELHOUSE_TEST_LOG ? 'inherit' : 'ignore';
    const child = spawn(program(), [role], {
      env: this.#env({ [`WHEELHOUSE__${section}__LISTEN`]: `127.0.0.1:${listen}`, ...settings }),
      cwd: this.directory,
      stdio: ['ignore', log, log],
    });
    this.#children.add(child);
    const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    const url = `${ca ? 'https' : 'http'}://127.0.0.1:${listen}`;
    const ready = () => (ca ? secureOk(`${url}/readyz`, ca) : ok(`${url}/readyz`));
    await until(ready, `${role} is ready`);
    const end = (signal: NodeJS.Signals) => {
      this.#children.delete(child);
      child.kill(signal);
      return exited;
    };
    return { url, kill: () => end('SIGKILL'), terminate: () => end('SIGTERM') };
  }
}

function ok(url: string): Promise<boolean> {
  return fetch(url).then(
    (answer) => answer.ok,
    () => false,
  );
}

/** As `ok`, where the server's certificate is of these authorities: `fetch` takes none. */
function secureOk(url: string, ca: Buffer): Promise<boolean> {
  return new Promise((resolve) => {
    const request = get(url, { ca, agent: false }, (answer) => {
      answer.resume();
      resolve(answer.statusCode === 200);
    });
    request.on('error', () => resolve(false));
  });
}

/** An operator at a gateway, over HTTP. */
export class Operator {
  constructor(
    private readonly gateway: { url: string },
    private readonly token: string,
  ) {}

  async row(id: string): Promise<Row | undefined> {
    const { status, body } = await this.#call('GET', `jobs/${id}`);
    return status === 404 ? undefined : (body as Row);
  }

  /** What the job has said, once this is its last line. */
  async said(id: string, last: string): Promise<{ stream: string; text: string }[]> {
    let lines: { stream: string; text: string }[] = [];
    await until(async () => {
      const { status, body } = await this.#call('GET', `jobs/${id}/output?tail=1000`);
      if (status === 200) ({ lines } = body as { lines: typeof lines });
      return lines.at(-1)?.text === last;
    }, `"${last}" as the last line of ${id}`);
    return lines;
  }

  async inStatus(id: string, status: string): Promise<void> {
    await until(async () => (await this.row(id))?.status === status, `job ${id} is ${status}`);
  }

  /** Sends a command and waits for its result. */
  async command(id: string, action: 'pause' | 'resume' | 'cancel'): Promise<{ type: string; error?: string }> {
    const { body } = await this.#call('POST', `jobs/${id}/${action}?wait=60`, { reason: 'a test' });
    return body as { type: string };
  }

  async #call(method: string, path: string, body?: object): Promise<{ status: number; body: unknown }> {
    const answer = await fetch(`${this.gateway.url}/api/v1/${path}`, {
      method,
      headers: { Authorization: `Bearer ${this.token}`, 'Content-Type': 'application/json' },
      body: body ? JSON.stringify(body) : undefined,
    });
    return { status: answer.status, body: await answer.json() };
  }
}
