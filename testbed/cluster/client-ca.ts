import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, randomBytes, sign } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as der from "./der.ts";

/** A certificate and its key, in PEM. */
export interface KeyPair {
  readonly certificate: string;
  readonly key: string;
}

const CA_NAME = "berth-testbed-clients";
const HOUR_MS = 3_600_000;
/** The clocks of two machines differ, and a certificate must be valid at once. */
const BACKDATED_MS = HOUR_MS;
/** Longer than any test cluster lives. */
const LIFETIME_MS = 365 * 24 * HOUR_MS;

// Object identifiers of RFC 5280 and RFC 5480.
const ECDSA_SHA256 = der.sequence(der.objectId("1.2.840.10045.4.3.2"));
const COMMON_NAME = "2.5.4.3";
const ORGANIZATION = "2.5.4.10";
const KEY_USAGE = "2.5.29.15";
const BASIC_CONSTRAINTS = "2.5.29.19";
const EXTENDED_KEY_USAGE = "2.5.29.37";
const CLIENT_AUTH = "1.3.6.1.5.5.7.3.2";
/** Bit strings of RFC 5280, 4.2.1.3: digitalSignature is bit 0, keyCertSign bit 5. */
const DIGITAL_SIGNATURE = der.bitString(Buffer.of(0b1000_0000), 7);
const KEY_CERT_SIGN = der.bitString(Buffer.of(0b0000_0100), 2);

/**
 * A certificate authority for users who weren't known when the API server started, because it reads its token file only
 * then. The subject's common name is the user, and its organizations are the groups.
 */
export class ClientCa {
  /** The authority's own certificate, in PEM. */
  readonly certificate: string;
  readonly #key: KeyObject;
  readonly #name: Buffer;

  private constructor(key: KeyObject) {
    this.#key = key;
    this.#name = distinguishedName(CA_NAME, []);
    this.certificate = this.#certify(this.#name, createPublicKey(key), [
      extension(BASIC_CONSTRAINTS, true, der.sequence(der.boolean(true))),
      extension(KEY_USAGE, true, KEY_CERT_SIGN),
    ]);
  }

  /** Creates an authority and saves it in a new folder: its certificate in `ca.crt`, its key in `ca.key`. */
  static async create(dir: string): Promise<ClientCa> {
    const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const ca = new ClientCa(privateKey);
    await mkdir(dir, { recursive: true, mode: 0o700 });
    await writeFile(join(dir, "ca.crt"), ca.certificate);
    const key = privateKey.export({ type: "pkcs8", format: "pem" });
    await writeFile(join(dir, "ca.key"), key, { mode: 0o600 });
    return ca;
  }

  /** Loads the authority that another process saved. */
  static async load(dir: string): Promise<ClientCa> {
    return new ClientCa(createPrivateKey(await readFile(join(dir, "ca.key"))));
  }

  /** Issues a new key and certificate for a user in some groups. */
  issue(user: string, groups: readonly string[] = []): KeyPair {
    const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const certificate = this.#certify(distinguishedName(user, groups), publicKey, [
      extension(KEY_USAGE, true, DIGITAL_SIGNATURE),
      extension(EXTENDED_KEY_USAGE, false, der.sequence(der.objectId(CLIENT_AUTH))),
    ]);
    return { certificate, key: privateKey.export({ type: "pkcs8", format: "pem" }).toString() };
  }

  /** Creates a version 3 certificate (RFC 5280, 4.1) that is signed by this authority. */
  #certify(subject: Buffer, publicKey: KeyObject, extensions: Buffer[]): string {
    const now = Date.now();
    const toBeSigned = der.sequence(
      der.explicit(0, der.integer(Buffer.of(2))),
      der.integer(randomBytes(16)),
      ECDSA_SHA256,
      this.#name,
      der.sequence(der.generalizedTime(new Date(now - BACKDATED_MS)), der.generalizedTime(new Date(now + LIFETIME_MS))),
      subject,
      publicKey.export({ type: "spki", format: "der" }),
      der.explicit(3, der.sequence(...extensions)),
    );
    const signature = sign("sha256", toBeSigned, this.#key);
    return pem("CERTIFICATE", der.sequence(toBeSigned, ECDSA_SHA256, der.bitString(signature)));
  }
}

function distinguishedName(commonName: string, organizations: readonly string[]): Buffer {
  const part = (type: string, text: string) => der.set(der.sequence(der.objectId(type), der.utf8String(text)));
  return der.sequence(...organizations.map((name) => part(ORGANIZATION, name)), part(COMMON_NAME, commonName));
}

function extension(id: string, critical: boolean, content: Buffer): Buffer {
  const flag = critical ? [der.boolean(true)] : [];
  return der.sequence(der.objectId(id), ...flag, der.octetString(content));
}

function pem(label: string, bytes: Buffer): string {
  const lines = bytes.toString("base64").match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`;
}
