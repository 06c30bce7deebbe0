import { CommandError, errorFrom } from './errors.js';
import type { Tokens } from './tokens.js';

export interface RequestOptions {
  method?: string;
  body?: unknown;
  signal?: AbortSignal | undefined;
}

/** The REST API. */
export class Http {
  readonly #base: string;
  readonly #tokens: Tokens;
  readonly #fetch: typeof globalThis.fetch;
  readonly #parse: (text: string) => unknown;

  constructor(base: string, tokens: Tokens, fetch: typeof globalThis.fetch, parse: (text: string) => unknown) {
    this.#base = base;
    this.#tokens = tokens;
    this.#fetch = fetch;
    this.#parse = parse;
  }

  /**
   * The answer's status and JSON. A token that is not taken is replaced once. Throws `CommandError`; with the code
   * `network` if there was no answer.
   */
  async request<T>(path: string, options: RequestOptions = {}): Promise<{ status: number; body: T }> {
    let token = await this.#tokens.get();
    let response = await this.#send(path, token, options);
    if (response.status === 401) {
      token = await this.#tokens.get(token);
      response = await this.#send(path, token, options);
    }
    const body = (await response
      .text()
      .then(this.#parse)
      .catch(() => ({}))) as T;
    if (response.ok) return { status: response.status, body };
    throw errorFrom({ message: `HTTP ${response.status}`, ...body });
  }

  /** The same, without the status. */
  async json<T>(path: string, options?: RequestOptions): Promise<T> {
    return (await this.request<T>(path, options)).body;
  }

  async #send(path: string, token: string, { method, body, signal }: RequestOptions): Promise<Response> {
    try {
      return await this.#fetch(this.#base + path, {
        method: method ?? 'GET',
        headers: { Authorization: `Bearer ${token}`, ...(body ? { 'Content-Type': 'application/json' } : {}) },
        body: JSON.stringify(body),
        signal: signal ?? null,
      });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new CommandError('network', `No answer: ${String(error)}`);
    }
  }
}

/** A path's query: what is undefined is left out. */
export function query(fields: Record<string, string | number | undefined>): string {
  const given = Object.entries(fields).filter(([, value]) => value !== undefined) as [string, string][];
  return given.length === 0 ? '' : `?${new URLSearchParams(given)}`;
}
