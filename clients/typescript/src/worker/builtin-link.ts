import { createHash, randomBytes } from 'node:crypto';
import { type ClientRequest, request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { Socket } from 'node:net';
import { encodeFrame, FrameError, FrameReader, Opcode } from './frames.js';
import type { Link, LinkEnd, LinkListener, OpenLink } from './link.js';

const HANDSHAKE_MILLISECONDS = 10_000;
const CLOSE_MILLISECONDS = 2_000;
const MAX_MESSAGE_BYTES = 4 * 1024 * 1024;
const HANDSHAKE_GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';

/**
 * The built-in WebSocket client for Node 20 and later. Node's own `WebSocket` can neither send a ping nor show one, and
 * whether the worker is still there is what the promise "two never run" rests on.
 */
export const openLink: OpenLink = (url, protocols, listener, ca) => new BuiltinLink(url, protocols, listener, ca);

class BuiltinLink implements Link {
  readonly #request: ClientRequest;
  readonly #listener: LinkListener;
  readonly #reader = new FrameReader(MAX_MESSAGE_BYTES);
  readonly #decoder = new TextDecoder('utf-8', { fatal: true });
  #socket: Socket | undefined;
  #keepAlive = true;
  #pieces: Buffer[] | undefined;
  #open = false;
  #closeSent = false;
  #ended = false;
  #timer: NodeJS.Timeout;

  constructor(url: URL, protocols: string[], listener: LinkListener, ca?: Buffer) {
    this.#listener = listener;
    const key = randomBytes(16).toString('base64');
    const target = new URL(url);
    const secure = target.protocol === 'wss:' || target.protocol === 'https:';
    target.protocol = secure ? 'https:' : 'http:';
    this.#request = (secure ? httpsRequest : httpRequest)(target, {
      agent: false,
      ...(ca ? { ca } : {}),
      headers: {
        Connection: 'Upgrade',
        Upgrade: 'websocket',
        'Sec-WebSocket-Version': '13',
        'Sec-WebSocket-Key': key,
        'Sec-WebSocket-Protocol': protocols.join(', '),
      },
    });
    this.#timer = setTimeout(() => this.#fail('the worker did not answer the upgrade'), HANDSHAKE_MILLISECONDS);
    this.#request.on('upgrade', (response, socket, head) => this.#upgraded(response, socket as Socket, head, key));
    this.#request.on('response', (response) => this.#refused(response));
    this.#request.on('error', (error) => this.#fail(error.message));
    this.#request.on('socket', (socket) => {
      this.#socket ??= socket;
      this.keepAlive(this.#keepAlive);
    });
    this.#request.end();
  }

  send(text: string): void {
    this.#write(Opcode.text, Buffer.from(text, 'utf8'));
  }

  ping(): void {
    this.#write(Opcode.ping, Buffer.alloc(0));
  }

  get backlog(): number {
    return this.#socket?.writableLength ?? 0;
  }

  close(code: number, reason: string): void {
    this.#sendClose(code, reason);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#end({ code: 1006, reason: 'no closing handshake' }), CLOSE_MILLISECONDS);
  }

  terminate(): void {
    this.#fail('the connection was given up');
  }

  keepAlive(yes: boolean): void {
    this.#keepAlive = yes;
    if (yes) this.#socket?.ref();
    else this.#socket?.unref();
  }

  #upgraded(response: IncomingMessage, socket: Socket, head: Buffer, key: string): void {
    const wanted = createHash('sha1').update(key).update(HANDSHAKE_GUID).digest('base64');
    if (this.#ended) return void socket.destroy();
    this.#socket = socket;
    if (response.headers['sec-websocket-accept'] !== wanted) return this.#fail('no WebSocket server answered');
    clearTimeout(this.#timer);
    socket.setNoDelay(true);
    this.keepAlive(this.#keepAlive);
    this.#open = true;
    socket.on('error', (error) => this.#fail(error.message));
    socket.on('close', () => this.#fail('the connection broke'));
    socket.on('end', () => socket.end());
    this.#listener.opened();
    socket.on('data', (bytes: Buffer) => this.#take(bytes));
    if (head.length > 0) this.#take(head);
  }

  #refused(response: IncomingMessage): void {
    const status = response.statusCode ?? 0;
    const retryAfter = Number(response.headers['retry-after']);
    const chunks: Buffer[] = [];
    response.on('data', (chunk: Buffer) => chunks.length < 64 && chunks.push(chunk));
    response.on('end', () => {
      const reason = refusalText(Buffer.concat(chunks).toString('utf8')) ?? `HTTP ${status}`;
      this.#end({ code: 1006, reason, status, ...(retryAfter > 0 ? { retryAfter } : {}) });
    });
  }

  #take(bytes: Buffer): void {
    if (this.#ended) return;
    this.#listener.heard();
    try {
      for (const frame of this.#reader.push(bytes)) {
        if (this.#ended) return;
        this.#frame(frame.opcode, frame.final, frame.payload);
      }
    } catch (error) {
      const code = error instanceof FrameError ? error.code : 1007;
      this.#sendClose(code, '');
      this.#fail(error instanceof Error ? error.message : String(error));
    }
  }

  #frame(opcode: number, final: boolean, payload: Buffer): void {
    switch (opcode) {
      case Opcode.ping:
        return this.#write(Opcode.pong, payload);
      case Opcode.pong:
        return;
      case Opcode.close: {
        const code = payload.length >= 2 ? payload.readUInt16BE(0) : 1005;
        this.#sendClose(code === 1005 ? 1000 : code, '');
        return this.#end({ code, reason: payload.subarray(2).toString('utf8') });
      }
      case Opcode.text:
      case Opcode.continuation: {
        if ((opcode === Opcode.text) !== (this.#pieces === undefined))
          throw new FrameError(1002, 'pieces out of order');
        const pieces = this.#pieces ?? [];
        pieces.push(payload);
        this.#pieces = final ? undefined : pieces;
        if (pieces.reduce((sum, piece) => sum + piece.length, 0) > MAX_MESSAGE_BYTES) {
          throw new FrameError(1009, 'a message that is too large');
        }
        if (final) this.#listener.message(this.#decoder.decode(Buffer.concat(pieces)));
        return;
      }
      default:
        throw new FrameError(1003, 'a frame that is not text');
    }
  }

  #write(opcode: number, payload: Buffer): void {
    if (!this.#open || this.#ended || this.#closeSent || this.#socket?.writable !== true) return;
    this.#socket.write(encodeFrame(opcode, payload));
  }

  #sendClose(code: number, reason: string): void {
    const text = Buffer.from(reason, 'utf8').subarray(0, 123);
    const payload = Buffer.alloc(2 + text.length);
    payload.writeUInt16BE(code, 0);
    text.copy(payload, 2);
    this.#write(Opcode.close, payload);
    this.#closeSent = true;
  }

  #fail(reason: string): void {
    this.#end({ code: 1006, reason });
  }

  #end(end: LinkEnd): void {
    if (this.#ended) return;
    this.#ended = true;
    clearTimeout(this.#timer);
    // What was written just before, such as the answer to a close, is still sent.
    if (this.#open) this.#socket?.destroySoon();
    else this.#request.destroy();
    this.#listener.closed(end);
  }
}

/** The sentence in a refusal's JSON body, where there is one. */
function refusalText(body: string): string | undefined {
  try {
    const { error, message } = JSON.parse(body) as { error?: unknown; message?: unknown };
    return typeof message === 'string' ? `${error}: ${message}` : undefined;
  } catch {
    return undefined;
  }
}
