/** The part of the distinguished encoding rules (X.690) that a certificate needs. Each function returns one value. */

const CONSTRUCTED = 0x20;
const CONTEXT = 0x80;

export function sequence(...values: Buffer[]): Buffer {
  return value(0x10 | CONSTRUCTED, Buffer.concat(values));
}

export function set(...values: Buffer[]): Buffer {
  return value(0x11 | CONSTRUCTED, Buffer.concat(values));
}

/** Encodes a non-negative integer from its big-endian bytes. */
export function integer(bytes: Buffer): Buffer {
  let at = 0;
  while (at < bytes.length - 1 && bytes[at] === 0) at += 1;
  const short = bytes.subarray(at);
  // A leading 1 bit would make the number negative.
  return value(0x02, (short[0] ?? 0) & 0x80 ? Buffer.concat([Buffer.of(0), short]) : short);
}

export function boolean(is: boolean): Buffer {
  return value(0x01, Buffer.of(is ? 0xff : 0));
}

/** @param unused the number of bits at the end of the last byte that don't count */
export function bitString(bytes: Buffer, unused = 0): Buffer {
  return value(0x03, Buffer.concat([Buffer.of(unused), bytes]));
}

export function octetString(bytes: Buffer): Buffer {
  return value(0x04, bytes);
}

export function utf8String(text: string): Buffer {
  return value(0x0c, Buffer.from(text));
}

/** Encodes a time in whole seconds, with a four-digit year. */
export function generalizedTime(at: Date): Buffer {
  return value(0x18, Buffer.from(`${at.toISOString().slice(0, 19).replaceAll(/[-:T]/g, "")}Z`));
}

/** Encodes an object identifier from its dotted form. */
export function objectId(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split(".").map(Number);
  return value(0x06, Buffer.concat([first * 40 + second, ...rest].map(base128)));
}

/** Encodes a constructed value with a context tag: `[tag]`. */
export function explicit(tag: number, content: Buffer): Buffer {
  return value(CONTEXT | CONSTRUCTED | tag, content);
}

/** Encodes a primitive value whose context tag replaces its own. */
export function implicit(tag: number, content: Buffer): Buffer {
  return value(CONTEXT | tag, content);
}

function base128(number: number): Buffer {
  const bytes = [number & 0x7f];
  for (let rest = number >> 7; rest > 0; rest >>= 7) bytes.unshift((rest & 0x7f) | 0x80);
  return Buffer.from(bytes);
}

function value(tag: number, content: Buffer): Buffer {
  return Buffer.concat([Buffer.of(tag), length(content.length), content]);
}

function length(size: number): Buffer {
  if (size < 0x80) return Buffer.of(size);
  const bytes: number[] = [];
  for (let rest = size; rest > 0; rest = Math.floor(rest / 256)) bytes.unshift(rest % 256);
  return Buffer.from([0x80 | bytes.length, ...bytes]);
}
