import { inflateRawSync } from "node:zlib";

// Record layouts of the ZIP file format specification (APPNOTE.TXT, sections 4.3.7, 4.3.12 and 4.3.16).
const END_SIGNATURE = 0x06054b50;
const END_BYTES = 22;
const ENTRY_SIGNATURE = 0x02014b50;
const ENTRY_BYTES = 46;
const LOCAL_BYTES = 30;
const STORED = 0;
const DEFLATED = 8;

/**
 * Reads one file from a ZIP archive, so that `unzip` isn't needed. Doesn't support encrypted archives or archives of 4
 * GB and more. Throws if the file isn't in the archive.
 */
export function readZipEntry(zip: Buffer, name: string): Buffer {
  const end = zip.lastIndexOf(u32(END_SIGNATURE));
  if (end < 0 || end + END_BYTES > zip.length) throw new Error("not a ZIP archive");
  const count = zip.readUInt16LE(end + 10);
  let at = zip.readUInt32LE(end + 16);
  for (let entry = 0; entry < count; entry += 1) {
    if (zip.readUInt32LE(at) !== ENTRY_SIGNATURE) throw new Error("the ZIP archive is damaged");
    const nameBytes = zip.readUInt16LE(at + 28);
    const next = at + ENTRY_BYTES + nameBytes + zip.readUInt16LE(at + 30) + zip.readUInt16LE(at + 32);
    if (zip.toString("utf8", at + ENTRY_BYTES, at + ENTRY_BYTES + nameBytes) === name) return content(zip, at);
    at = next;
  }
  throw new Error(`the ZIP archive has no ${name}`);
}

function content(zip: Buffer, entry: number): Buffer {
  const method = zip.readUInt16LE(entry + 10);
  const packedBytes = zip.readUInt32LE(entry + 20);
  const local = zip.readUInt32LE(entry + 42);
  // The local header repeats the name, and its extra field has a separate length.
  const start = local + LOCAL_BYTES + zip.readUInt16LE(local + 26) + zip.readUInt16LE(local + 28);
  const packed = zip.subarray(start, start + packedBytes);
  if (method === STORED) return packed;
  if (method === DEFLATED) return inflateRawSync(packed);
  throw new Error(`the ZIP archive uses compression method ${method}`);
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}
