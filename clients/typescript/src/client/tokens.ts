/**
 * Why a token is asked for: there is none yet, the one there was is no longer taken, or it ends within a minute. To the last
 * you may answer with the one there is.
 */
export type TokenReason = 'connect' | 'expired' | 'expiring';

/** Gives a token of the application's user. `signal` is aborted when the client is closed. */
export type GetToken = (why: { reason: TokenReason; signal: AbortSignal }) => string | Promise<string>;

/** The one token that all requests and sockets of a client share. */
export class Tokens {
  readonly #closing = new AbortController();
  #token: string | undefined;
  #asking: Promise<string> | undefined;

  readonly #ask: GetToken;

  constructor(ask: GetToken) {
    this.#ask = ask;
  }

  /** The token, asked for once however many need it. `refused` is the one that was not taken, if that is why. */
  get(refused?: string, isEnding?: boolean): Promise<string> {
    if (this.#asking) return this.#asking;
    const token = this.#token;
    if (token !== undefined && token !== refused && !expired(token)) return Promise.resolve(token);
    const reason = token === undefined ? 'connect' : isEnding ? 'expiring' : 'expired';
    this.#asking = Promise.resolve()
      .then(() => this.#ask({ reason, signal: this.#closing.signal }))
      .then((fresh) => (this.#token = fresh))
      .finally(() => {
        this.#asking = undefined;
      });
    return this.#asking;
  }

  close(): void {
    this.#closing.abort();
  }
}

/** Whether a token says itself that it is over: a computer that slept need not show it to learn that. */
function expired(token: string): boolean {
  try {
    const claims = atob((token.split('.')[1] ?? '').replace(/-/g, '+').replace(/_/g, '/'));
    return (JSON.parse(claims) as { exp?: number }).exp! * 1000 <= Date.now();
  } catch {
    return false;
  }
}
