import { crc32, deflateRawSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { checkIntegrity } from "../../../testbed/cluster/client-tools.ts";
import { readZipEntry } from "../../../testbed/cluster/zip.ts";

/**
 * Builds a ZIP archive. Odd entries are stored, even ones are deflated, and local headers have a separate extra field.
 */
function zip(files: Record<string, string>, method?: number): Buffer {
  const locals: Buffer[] = [];
  const entries: Buffer[] = [];
  let offset = 0;
  for (const [index, [name, text]] of Object.entries(files).entries()) {
    const deflated = index % 2 === 0;
    const packed = deflated ? deflateRawSync(text) : Buffer.from(text);
    const common = Buffer.alloc(26);
    common.writeUInt16LE(method ?? (deflated ? 8 : 0), 4);
    common.writeUInt32LE(crc32(text), 10);
    common.writeUInt32LE(packed.length, 14);
    common.writeUInt32LE(Buffer.byteLength(text), 18);
    common.writeUInt16LE(Buffer.byteLength(name), 22);
    const localCommon = Buffer.from(common);
    localCommon.writeUInt16LE(5, 24);
    const local = Buffer.concat([Buffer.from("PK\x03\x04"), localCommon, Buffer.from(`${name}extra`), packed]);
    const place = Buffer.alloc(14);
    place.writeUInt32LE(offset, 10);
    entries.push(Buffer.concat([Buffer.from("PK\x01\x02\x14\0"), common, place, Buffer.from(name)]));
    locals.push(local);
    offset += local.length;
  }
  const directory = Buffer.concat(entries);
  const end = Buffer.alloc(22);
  end.write("PK\x05\x06", "latin1");
  end.writeUInt16LE(entries.length, 8);
  end.writeUInt16LE(entries.length, 10);
  end.writeUInt32LE(directory.length, 12);
  end.writeUInt32LE(offset, 16);
  return Buffer.concat([...locals, directory, end]);
}

describe("a ZIP archive", () => {
  const archive = zip({ "helm/helm": "helm ".repeat(500), "kubectl/kubectl": "stored", empty: "" });

  it.each([
    ["deflated", "helm/helm", "helm ".repeat(500)],
    ["stored", "kubectl/kubectl", "stored"],
    ["empty", "empty", ""],
  ])("contains a file that is %s", (_name, file, text) => {
    expect(readZipEntry(archive, file).toString()).toBe(text);
  });

  it("reports a file that it doesn't contain", () => {
    expect(() => readZipEntry(archive, "kubectl")).toThrow("has no kubectl");
  });

  it("is rejected if it's cut off", () => {
    expect(() => readZipEntry(archive.subarray(0, -10), "empty")).toThrow("not a ZIP archive");
  });

  it("is rejected if its compression method is unknown", () => {
    expect(() => readZipEntry(zip({ a: "a" }, 12), "a")).toThrow("method 12");
  });
});

describe("the integrity of downloaded bytes", () => {
  const integrity = "sha512-7iaw3Ur350mqGo7jwQrpkj9hiYB3Lkc/iBml1JQODbJ6wYX4oOHV+E+IvIh/1nsUNzLDBMxfqa2Ob1f1ACio/w==";

  it("matches the same bytes", () => {
    expect(() => checkIntegrity(Buffer.from("test"), integrity, "it")).not.toThrow();
  });

  it("doesn't match if one byte differs", () => {
    expect(() => checkIntegrity(Buffer.from("tesT"), integrity, "it")).toThrow("it has changed");
  });
});
