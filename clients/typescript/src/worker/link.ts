/** Why a connection is over. `status` is there when the server answered the upgrade with an HTTP status instead. */
export interface LinkEnd {
  /** The WebSocket close code; 1006 when there was none. */
  code: number;
  reason: string;
  status?: number;
  /** Seconds, from the header `Retry-After`. */
  retryAfter?: number;
}

/** What a connection tells its owner. Nothing is told after `closed`, which comes exactly once. */
export interface LinkListener {
  opened(): void;
  /** A text frame. */
  message(text: string): void;
  /** Anything at all has come from the server: a frame, a ping, a pong. */
  heard(): void;
  closed(end: LinkEnd): void;
}

/** One WebSocket to a Wheelhouse worker. */
export interface Link {
  send(text: string): void;
  /** Asks the server for a sign of life. */
  ping(): void;
  /** Closes in order, with the closing handshake. */
  close(code: number, reason: string): void;
  /** Closes at once, for a connection that is taken for dead. */
  terminate(): void;
  /** Bytes that are written and that the server has not taken yet. */
  readonly backlog: number;
  /** Whether the open connection alone keeps the process alive. */
  keepAlive(yes: boolean): void;
}

/**
 * How to open a connection. The built-in one is `openLink`; `linkFrom` makes one from the class of the package `ws`. `ca`
 * holds the authorities that may have signed the server's certificate, where those that Node knows are not meant.
 */
export type OpenLink = (url: URL, protocols: string[], listener: LinkListener, ca?: Buffer) => Link;
