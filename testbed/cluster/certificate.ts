import { createPublicKey, generateKeyPairSync, type KeyObject, randomBytes, sign } from "node:crypto";
import { isIPv4 } from "node:net";
import * as der from "./der.ts";

/** A certificate and its key, in PEM. */
export interface KeyPair {
  readonly certificate: string;
  readonly key: string;
}

const HOUR_MS = 3_600_000;
/** The clocks of two machines differ, and a certificate must be valid at once. */
const BACKDATED_MS = HOUR_MS;
/** Longer than any test cluster lives. */
const LIFETIME_MS = 365 * 24 * HOUR_MS;

// Object identifiers of RFC 5280 and RFC 5480.
const ECDSA_SHA256 = der.sequence(der.objectId("1.2.840.10045.4.3.2"));
const COMMON_NAME = "2.5.4.3";
const ORGANIZATION = "2.5.4.10";
const SUBJECT_ALT_NAME = "2.5.29.17";
export const BASIC_CONSTRAINTS = "2.5.29.19";

/** Tags of RFC 5280, 4.2.1.6. */
const DNS_NAME = 2;
const IP_ADDRESS = 7;

/** A new key for one certificate. */
export function newKey(): KeyObject {
  return generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;
}

export interface CertificateParts {
  /** Distinguished names. */
  readonly issuer: Buffer;
  readonly subject: Buffer;
  readonly publicKey: KeyObject;
  readonly extensions: readonly Buffer[];
  /** The issuer's key. */
  readonly signingKey: KeyObject;
}

/** Creates a version 3 certificate (RFC 5280, 4.1), in PEM. */
export function certify({ issuer, subject, publicKey, extensions, signingKey }: CertificateParts): string {
  const now = Date.now();
  const toBeSigned = der.sequence(
    der.explicit(0, der.integer(Buffer.of(2))),
    der.integer(randomBytes(16)),
    ECDSA_SHA256,
    issuer,
    der.sequence(der.generalizedTime(new Date(now - BACKDATED_MS)), der.generalizedTime(new Date(now + LIFETIME_MS))),
    subject,
    publicKey.export({ type: "spki", format: "der" }),
    der.explicit(3, der.sequence(...extensions)),
  );
  const signature = sign("sha256", toBeSigned, signingKey);
  return pem("CERTIFICATE", der.sequence(toBeSigned, ECDSA_SHA256, der.bitString(signature)));
}

/** Creates a self-signed certificate for a server with these DNS names and IPv4 addresses. */
export function selfSigned(names: readonly string[]): KeyPair {
  const key = newKey();
  const name = distinguishedName("berth-testbed", []);
  const altNames = names.map((each) =>
    isIPv4(each)
      ? der.implicit(IP_ADDRESS, Buffer.from(each.split(".").map(Number)))
      : der.implicit(DNS_NAME, Buffer.from(each)),
  );
  const certificate = certify({
    issuer: name,
    subject: name,
    publicKey: createPublicKey(key),
    extensions: [
      extension(BASIC_CONSTRAINTS, true, der.sequence(der.boolean(true))),
      extension(SUBJECT_ALT_NAME, false, der.sequence(...altNames)),
    ],
    signingKey: key,
  });
  return { certificate, key: keyPem(key) };
}

export function keyPem(key: KeyObject): string {
  return key.export({ type: "pkcs8", format: "pem" }).toString();
}

export function distinguishedName(commonName: string, organizations: readonly string[]): Buffer {
  const part = (type: string, text: string) => der.set(der.sequence(der.objectId(type), der.utf8String(text)));
  return der.sequence(...organizations.map((name) => part(ORGANIZATION, name)), part(COMMON_NAME, commonName));
}

export function extension(id: string, critical: boolean, content: Buffer): Buffer {
  const flag = critical ? [der.boolean(true)] : [];
  return der.sequence(der.objectId(id), ...flag, der.octetString(content));
}

function pem(label: string, bytes: Buffer): string {
  const lines = bytes.toString("base64").match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`;
}
