import { randomFillSync } from 'node:crypto';

/** The frame types of RFC 6455. */
export const Opcode = { continuation: 0x0, text: 0x1, binary: 0x2, close: 0x8, ping: 0x9, pong: 0xa } as const;

/** One WebSocket frame as it came from the server. */
export interface Frame {
  final: boolean;
  opcode: number;
  payload: Buffer;
}

/** The server broke the WebSocket protocol; `code` is the close code to answer with. */
export class FrameError extends Error {
  constructor(
    readonly code: number,
    message: string,
  ) {
    super(message);
    this.name = 'FrameError';
  }
}

/** A frame to the server: final, and masked as RFC 6455 demands of a client. */
export function encodeFrame(opcode: number, payload: Buffer): Buffer {
  const length = payload.length;
  const lengthBytes = length < 126 ? 0 : length < 65_536 ? 2 : 8;
  const maskAt = 2 + lengthBytes;
  const frame = Buffer.allocUnsafe(maskAt + 4 + length);
  frame[0] = 0x80 | opcode;
  frame[1] = 0x80 | (lengthBytes === 0 ? length : lengthBytes === 2 ? 126 : 127);
  if (lengthBytes === 2) frame.writeUInt16BE(length, 2);
  if (lengthBytes === 8) frame.writeBigUInt64BE(BigInt(length), 2);
  randomFillSync(frame, maskAt, 4);
  for (let i = 0; i < length; i++) {
    frame[maskAt + 4 + i] = (payload[i] as number) ^ (frame[maskAt + (i & 3)] as number);
  }
  return frame;
}

/** Takes the server's frames out of a stream of bytes, however the network has cut it. */
export class FrameReader {
  #pending: Buffer = Buffer.alloc(0);

  /** `maxPayload` is the largest payload in bytes; a larger frame is a `FrameError` 1009. */
  constructor(private readonly maxPayload: number) {}

  /** Adds bytes and gives every frame that is complete by now. Throws `FrameError`. */
  push(bytes: Buffer): Frame[] {
    this.#pending = this.#pending.length === 0 ? bytes : Buffer.concat([this.#pending, bytes]);
    const frames: Frame[] = [];
    for (let frame = this.#next(); frame !== undefined; frame = this.#next()) frames.push(frame);
    return frames;
  }

  #next(): Frame | undefined {
    const bytes = this.#pending;
    if (bytes.length < 2) return undefined;
    const [first, second] = [bytes[0] as number, bytes[1] as number];
    if ((first & 0x70) !== 0) throw new FrameError(1002, 'a frame with reserved bits');
    if ((second & 0x80) !== 0) throw new FrameError(1002, 'a masked frame from a server');
    const opcode = first & 0x0f;
    const final = (first & 0x80) !== 0;
    let length = second & 0x7f;
    let start = 2;
    if (length === 126) {
      if (bytes.length < 4) return undefined;
      length = bytes.readUInt16BE(2);
      start = 4;
    } else if (length === 127) {
      if (bytes.length < 10) return undefined;
      length = Number(bytes.readBigUInt64BE(2));
      start = 10;
    }
    if (opcode >= Opcode.close && (length > 125 || !final)) throw new FrameError(1002, 'a control frame in pieces');
    if (length > this.maxPayload) throw new FrameError(1009, `a frame of ${length} bytes`);
    if (bytes.length < start + length) return undefined;
    this.#pending = bytes.subarray(start + length);
    return { final, opcode, payload: bytes.subarray(start, start + length) };
  }
}
