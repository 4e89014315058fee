import fc from "fast-check";
import { expect, test } from "vitest";
import { clientFrame, type Frame, FrameDecoder, OPCODES, webSocketHandshake } from "../../src/core/web-socket.ts";

/** A frame as a server sends it, with the length in 0, 2 or 8 more bytes. */
function serverFrame(
  { opcode, body }: Frame,
  lengthBytes = body.length > 0xffff ? 8 : body.length > 125 ? 2 : 0,
): Buffer {
  const length = Buffer.alloc(lengthBytes);
  if (lengthBytes === 2) length.writeUInt16BE(body.length);
  if (lengthBytes === 8) length.writeBigUInt64BE(BigInt(body.length));
  const second = lengthBytes === 0 ? body.length : lengthBytes === 2 ? 126 : 127;
  return Buffer.concat([Buffer.of(0x80 | opcode, second), length, body]);
}

/** Decodes bytes in pieces; `cuts` are their lengths. */
function decoded(bytes: Buffer, cuts: readonly number[] = []): Frame[] {
  const decoder = new FrameDecoder();
  const frames: Frame[] = [];
  let rest = bytes;
  for (const cut of [...cuts, Number.POSITIVE_INFINITY]) {
    frames.push(...decoder.push(rest.subarray(0, cut)));
    rest = rest.subarray(cut);
  }
  return frames;
}

test("frames arrive unchanged, however their bytes are cut", () => {
  const body = fc.oneof(
    fc.uint8Array({ maxLength: 300 }),
    fc.constantFrom(125, 126, 127, 65_535, 65_536).map((length) => new Uint8Array(length).fill(length)),
  );
  const frame = fc.record({ opcode: fc.constantFrom(...Object.values(OPCODES)), body: body.map(Buffer.from) });
  const frames = fc.array(frame, { maxLength: 5 });
  const cuts = fc.array(fc.oneof(fc.nat(4), fc.nat(400)), { maxLength: 40 });
  fc.assert(
    fc.property(frames, cuts, (sent, cuts) => {
      const bytes = Buffer.concat(sent.map((each) => serverFrame(each)));
      expect(decoded(bytes, cuts)).toEqual(sent);
    }),
  );
});

test.each([0, 1, 125, 126, 65_535])("a client's frame of %i bytes is final and masked", (length) => {
  const body = Buffer.alloc(length, "abc");
  const frame = clientFrame(OPCODES.binary, body);
  expect(frame[0]).toBe(0x82);
  const second = frame[1] ?? 0;
  expect(second & 0x80).toBe(0x80);
  const isLong = (second & 0x7f) === 126;
  expect(isLong ? frame.readUInt16BE(2) : second & 0x7f).toBe(length);
  const start = isLong ? 8 : 6;
  const mask = frame.subarray(start - 4, start);
  expect(Buffer.from(frame.subarray(start).map((byte, at) => byte ^ (mask[at % 4] ?? 0)))).toEqual(body);
});

test("masks and keys differ", () => {
  const body = Buffer.alloc(100);
  expect(clientFrame(OPCODES.binary, body)).not.toEqual(clientFrame(OPCODES.binary, body));
  expect(webSocketHandshake("p").accept).not.toBe(webSocketHandshake("p").accept);
});

test("a client's frame has at most 64 KiB", () => {
  expect(() => clientFrame(OPCODES.binary, Buffer.alloc(65_536))).toThrow(RangeError);
});

test.each([
  ["is masked", Buffer.of(0x82, 0x80)],
  ["uses an extension", Buffer.of(0xc2, 0)],
  ["is longer than 1 MiB", Buffer.from("827f0000000000100001", "hex")],
  ["states an absurd length", Buffer.from("827fffffffffffffffff", "hex")],
])("a server's frame that %s is an error, after the frames before it", (_, bytes) => {
  const decoder = new FrameDecoder();
  const before = { opcode: OPCODES.ping, body: Buffer.from("x") };
  const frames = decoder.push(Buffer.concat([serverFrame(before), bytes]));
  expect(frames.next().value).toEqual(before);
  expect(() => frames.next()).toThrow(TypeError);
});

test("a length may take more bytes than it needs", () => {
  const frame = { opcode: OPCODES.binary, body: Buffer.from("short") };
  expect(decoded(Buffer.concat([2, 8].map((bytes) => serverFrame(frame, bytes))))).toEqual([frame, frame]);
});
