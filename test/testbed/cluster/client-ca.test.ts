import { createPrivateKey, X509Certificate } from "node:crypto";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { ClientCa } from "../../../testbed/cluster/client-ca.ts";
import * as der from "../../../testbed/cluster/der.ts";
import { temporaryDir } from "./temporary.ts";

describe("the authority for client certificates", () => {
  it("signs certificates that name the user and the groups", async () => {
    const ca = await ClientCa.create(await temporaryDir());
    const authority = new X509Certificate(ca.certificate);
    const pair = ca.issue("system:node:a/b", ["one", "two"]);
    const certificate = new X509Certificate(pair.certificate);
    expect(certificate.subject).toBe("O=one\nO=two\nCN=system:node:a/b");
    expect(certificate.checkIssued(authority)).toBe(true);
    expect(certificate.verify(authority.publicKey)).toBe(true);
    expect(certificate.checkPrivateKey(createPrivateKey(pair.key))).toBe(true);
    expect([authority.ca, certificate.ca]).toEqual([true, false]);
  });

  it("can be loaded by another process, which reads its key", async () => {
    const dir = await temporaryDir();
    const ca = await ClientCa.create(dir);
    const certificate = new X509Certificate((await ClientCa.load(dir)).issue("alice").certificate);
    expect(certificate.verify(new X509Certificate(ca.certificate).publicKey)).toBe(true);
    expect((await stat(join(dir, "ca.key"))).mode & 0o077).toBe(0);
  });

  it("gives each certificate its own key and serial number", async () => {
    const ca = await ClientCa.create(await temporaryDir());
    const [a, b] = [ca.issue("alice"), ca.issue("alice")].map((pair) => new X509Certificate(pair.certificate));
    expect(a?.serialNumber).not.toBe(b?.serialNumber);
    expect(a?.publicKey.equals(b?.publicKey ?? a.publicKey)).toBe(false);
  });
});

describe("the encoding of certificates", () => {
  it.each([
    ["a small integer", der.integer(Buffer.of(2)), "020102"],
    ["zero", der.integer(Buffer.of(0, 0)), "020100"],
    ["an integer that would look negative", der.integer(Buffer.of(0x80)), "02020080"],
    ["an integer with leading zeros", der.integer(Buffer.of(0, 0, 1, 0)), "02020100"],
    ["an object identifier", der.objectId("1.2.840.10045.4.3.2"), "06082a8648ce3d040302"],
    ["true", der.boolean(true), "0101ff"],
    ["bits", der.bitString(Buffer.of(0x80), 7), "03020780"],
    ["a time", der.generalizedTime(new Date("2026-01-02T03:04:05.678Z")), "180f32303236303130323033303430355a"],
    ["a short value", der.octetString(Buffer.alloc(0x7f)).subarray(0, 2), "047f"],
    ["a value with a length of one byte", der.octetString(Buffer.alloc(0x80)).subarray(0, 3), "048180"],
    ["a value with a length of two bytes", der.octetString(Buffer.alloc(0x1234)).subarray(0, 4), "04821234"],
  ])("writes %s", (_name, bytes, hex) => {
    expect(bytes.toString("hex")).toBe(hex);
  });
});
