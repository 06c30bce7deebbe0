import type { IncomingMessage } from 'node:http';
import type { Link, LinkListener, OpenLink } from './link.js';

/** The class `WebSocket` of the package `ws`, or one that works like it. */
export type WsConstructor = new (url: string, protocols: string[], options?: { ca?: Buffer }) => WsSocket;

interface WsSocket {
  send(text: string): void;
  ping(): void;
  close(code?: number, reason?: string): void;
  terminate(): void;
  readonly bufferedAmount?: number;
  // biome-ignore lint/suspicious/noExplicitAny: the listeners of an EventEmitter have no common type.
  on(event: string, listener: (...values: any[]) => void): unknown;
}

/**
 * Connections made by the class of the package `ws`, for those who need its proxies or TLS options. A browser's
 * `WebSocket` will not do, because it shows no pings. Throws a `TypeError` for one.
 */
export function linkFrom(WebSocket: WsConstructor): OpenLink {
  if (typeof (WebSocket.prototype as Partial<WsSocket>).ping !== 'function') {
    throw new TypeError(
      'This WebSocket class cannot send pings, so the loss of a connection would go unnoticed: ' +
        'give the class of the package "ws", or none to use the built-in client.',
    );
  }
  return (url, protocols, listener, ca) => {
    const address = new URL(url);
    address.protocol = address.protocol.replace('http', 'ws');
    return wrap(new WebSocket(address.href, protocols, ca ? { ca } : undefined), listener);
  };
}

function wrap(socket: WsSocket, listener: LinkListener): Link {
  let ended = false;
  const end = (code: number, reason: string, status?: number, retryAfter?: number) => {
    if (ended) return;
    ended = true;
    listener.closed({ code, reason, ...(status ? { status } : {}), ...(retryAfter ? { retryAfter } : {}) });
  };
  let failure = 'the connection broke';
  socket.on('open', () => listener.opened());
  socket.on('message', (data: unknown, binary: boolean) => {
    listener.heard();
    if (!binary) listener.message(String(data));
  });
  socket.on('ping', () => listener.heard());
  socket.on('pong', () => listener.heard());
  socket.on('unexpected-response', (_request: unknown, response: IncomingMessage) => {
    end(1006, `HTTP ${response.statusCode}`, response.statusCode, Number(response.headers['retry-after']) || undefined);
    socket.terminate();
  });
  socket.on('error', (error: Error) => {
    failure = error.message;
  });
  socket.on('close', (code: number, reason: unknown) => end(code, code === 1006 ? failure : String(reason ?? '')));
  return {
    send: (text) => !ended && socket.send(text),
    ping: () => !ended && socket.ping(),
    get backlog() {
      return socket.bufferedAmount ?? 0;
    },
    close: (code, reason) => socket.close(code, reason),
    terminate() {
      socket.terminate();
      end(1006, 'the connection was given up');
    },
    keepAlive(yes) {
      const inner = (socket as unknown as { _socket?: { ref(): void; unref(): void } })._socket;
      if (yes) inner?.ref();
      else inner?.unref();
    },
  };
}
