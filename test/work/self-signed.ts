/** Creates self-signed TLS certificates. */

import { generateKeyPairSync, sign } from "node:crypto";

/** Creates a self-signed TLS certificate for each test run, so that the repository contains no private key. */
export function selfSigned(names: readonly string[]): { cert: string; key: string } {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const algorithm = seq(oid(ECDSA_WITH_SHA256));
  const name = seq(tlv(SET, seq(oid(COMMON_NAME), tlv(UTF8_STRING, Buffer.from("berth test")))));
  const now = Date.now();
  const validity = seq(utcTime(now - DAY_MS), utcTime(now + DAY_MS));
  const extensions = seq(
    extension(BASIC_CONSTRAINTS, seq(tlv(BOOLEAN, Buffer.from([0xff])))),
    extension(SUBJECT_ALT_NAME, seq(...names.map(altName))),
  );
  const body = seq(
    tlv(0xa0, tlv(INTEGER, Buffer.from([2]))),
    tlv(INTEGER, Buffer.from([1])),
    algorithm,
    name,
    validity,
    name,
    publicKey.export({ type: "spki", format: "der" }),
    tlv(0xa3, extensions),
  );
  const signature = sign("sha256", body, privateKey);
  const der = seq(body, algorithm, tlv(BIT_STRING, Buffer.concat([Buffer.from([0]), signature])));
  const lines = der.toString("base64").match(/.{1,64}/g) ?? [];
  return {
    cert: `-----BEGIN CERTIFICATE-----\n${lines.join("\n")}\n-----END CERTIFICATE-----\n`,
    key: privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
  };
}

const DAY_MS = 86_400_000;
// DER tags (ITU-T X.690) and identifiers of RFC 5280 and 5758.
const BOOLEAN = 0x01;
const INTEGER = 0x02;
const BIT_STRING = 0x03;
const OCTET_STRING = 0x04;
const OBJECT_ID = 0x06;
const UTF8_STRING = 0x0c;
const UTC_TIME = 0x17;
const SEQUENCE = 0x30;
const SET = 0x31;
const ECDSA_WITH_SHA256 = "2a8648ce3d040302";
const COMMON_NAME = "550403";
const BASIC_CONSTRAINTS = "551d13";
const SUBJECT_ALT_NAME = "551d11";

function tlv(tag: number, value: Buffer): Buffer {
  const length = value.length < 0x80 ? [value.length] : [0x82, value.length >> 8, value.length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...length]), value]);
}

function seq(...parts: Buffer[]): Buffer {
  return tlv(SEQUENCE, Buffer.concat(parts));
}

function oid(hex: string): Buffer {
  return tlv(OBJECT_ID, Buffer.from(hex, "hex"));
}

function extension(id: string, value: Buffer): Buffer {
  return seq(oid(id), tlv(OCTET_STRING, value));
}

/** A DNS name or an IPv4 address. */
function altName(name: string): Buffer {
  const isAddress = /^\d+(\.\d+){3}$/.test(name);
  return isAddress ? tlv(0x87, Buffer.from(name.split(".").map(Number))) : tlv(0x82, Buffer.from(name));
}

function utcTime(ms: number): Buffer {
  return tlv(UTC_TIME, Buffer.from(`${new Date(ms).toISOString().replaceAll(/[-:T]/g, "").slice(2, 14)}Z`));
}
