import { createHash } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import { createServer, type Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { openLink } from '../../src/worker/builtin-link.js';
import { encodeFrame, FrameError, FrameReader, Opcode } from '../../src/worker/frames.js';
import type { LinkEnd } from '../../src/worker/link.js';

/** A frame as a server sends it: not masked. */
function frame(opcode: number, payload: string | Buffer, final = true): Buffer {
  const bytes = Buffer.from(payload);
  const head =
    bytes.length < 126 ? Buffer.from([0, bytes.length]) : Buffer.from([0, 126, bytes.length >> 8, bytes.length & 0xff]);
  head[0] = (final ? 0x80 : 0) | opcode;
  return Buffer.concat([head, bytes]);
}

describe('frames', () => {
  it('reads frames however the network cuts them', () => {
    const large = 'ä'.repeat(40_000);
    const sizes = Buffer.alloc(10);
    sizes[0] = 0x81;
    sizes[1] = 127;
    sizes.writeBigUInt64BE(BigInt(Buffer.byteLength(large)), 2);
    const stream = Buffer.concat([frame(1, 'one'), frame(9, ''), frame(1, 'x'.repeat(300)), sizes, Buffer.from(large)]);
    for (const cut of [1, 7, 1000, stream.length]) {
      const reader = new FrameReader(1_000_000);
      const frames = [];
      for (let at = 0; at < stream.length; at += cut) frames.push(...reader.push(stream.subarray(at, at + cut)));
      expect(frames.map(({ opcode, payload }) => [opcode, payload.toString()])).toEqual([
        [1, 'one'],
        [9, ''],
        [1, 'x'.repeat(300)],
        [1, large],
      ]);
    }
  });

  it('masks what it sends, at each size of the length field', () => {
    for (const length of [0, 125, 126, 65_535, 65_536]) {
      const payload = Buffer.alloc(length, 7);
      const bytes = encodeFrame(Opcode.text, payload);
      const start = bytes.length - length;
      const mask = bytes.subarray(start - 4, start);
      const plain = Buffer.from(bytes.subarray(start).map((byte, i) => byte ^ (mask[i & 3] as number)));
      expect(bytes[0]).toBe(0x81);
      expect((bytes[1] as number) & 0x80).toBe(0x80);
      expect(plain.equals(payload)).toBe(true);
    }
  });

  it('refuses masked, reserved and oversized frames', () => {
    for (const [bytes, code] of [
      [Buffer.from([0x81, 0x80, 0, 0, 0, 0]), 1002],
      [Buffer.from([0xc1, 0x00]), 1002],
      [Buffer.from([0x09, 0x00]), 1002],
      [frame(1, 'x'.repeat(200)), 1009],
    ] as const) {
      try {
        new FrameReader(100).push(bytes);
        expect.unreachable();
      } catch (error) {
        expect(error).toBeInstanceOf(FrameError);
        expect((error as FrameError).code).toBe(code);
      }
    }
  });
});

describe('the built-in link', () => {
  const cleanup: (() => void)[] = [];
  afterEach(() => {
    for (const close of cleanup.splice(0)) close();
  });

  /** A server that answers the upgrade and sends `first` in the same packet. */
  async function serve(first: Buffer, accept?: string): Promise<{ url: URL; got: Buffer[]; socket: Promise<Socket> }> {
    const got: Buffer[] = [];
    let give: (socket: Socket) => void = () => {};
    const socket = new Promise<Socket>((resolve) => (give = resolve));
    const server = createServer((peer) => {
      peer.on('error', () => {});
      peer.once('data', (request) => {
        const key = /sec-websocket-key: (.*)\r/i.exec(String(request))?.[1] ?? '';
        const answer =
          accept ?? createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
        peer.write(
          Buffer.concat([
            Buffer.from(
              `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${answer}\r\n\r\n`,
            ),
            first,
          ]),
        );
        peer.on('data', (bytes) => got.push(bytes));
        give(peer);
      });
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    cleanup.push(() => server.close());
    return { url: new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`), got, socket };
  }

  function open(url: URL): { messages: string[]; ended: Promise<LinkEnd>; link: ReturnType<typeof openLink> } {
    const messages: string[] = [];
    let end: (end: LinkEnd) => void = () => {};
    const ended = new Promise<LinkEnd>((resolve) => (end = resolve));
    const link = openLink(url, ['p'], {
      opened() {},
      heard() {},
      message: (text) => messages.push(text),
      closed: (what) => end(what),
    });
    return { messages, ended, link };
  }

  it('puts a message in pieces together, with a ping between, and closes in order', async () => {
    const { url, got, socket } = await serve(
      Buffer.concat([frame(1, 'in ', false), frame(9, 'hi'), frame(0, 'pieces')]),
    );
    const { messages, ended } = open(url);
    (await socket).write(frame(8, Buffer.from([0x03, 0xf4, 0x62, 0x79, 0x65])));
    expect(await ended).toEqual({ code: 1012, reason: 'bye' });
    expect(messages).toEqual(['in pieces']);
    await new Promise((resolve) => setTimeout(resolve, 20));
    // A pong, then the answer to the close.
    const bytes = Buffer.concat(got);
    expect([bytes[0], bytes[8]]).toEqual([0x8a, 0x88]);
  });

  it('ends on what is no UTF-8, on binary frames, and on a server that is none', async () => {
    expect(await open((await serve(frame(1, Buffer.from([0xff])))).url).ended).toMatchObject({ code: 1006 });
    expect(await open((await serve(frame(2, 'x'))).url).ended).toMatchObject({ reason: 'a frame that is not text' });
    expect(await open((await serve(Buffer.alloc(0), 'wrong')).url).ended).toMatchObject({
      reason: 'no WebSocket server answered',
    });
    expect(await open(new URL('http://127.0.0.1:1/')).ended).toMatchObject({ code: 1006 });
  });
});
