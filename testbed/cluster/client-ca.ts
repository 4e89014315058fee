import { createPrivateKey, createPublicKey, type KeyObject } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  BASIC_CONSTRAINTS,
  certify,
  distinguishedName,
  extension,
  type KeyPair,
  keyPem,
  newKey,
} from "./certificate.ts";
import * as der from "./der.ts";

const CA_NAME = "berth-testbed-clients";

// Object identifiers of RFC 5280.
const KEY_USAGE = "2.5.29.15";
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
    const key = newKey();
    const ca = new ClientCa(key);
    await mkdir(dir, { recursive: true, mode: 0o700 });
    await writeFile(join(dir, "ca.crt"), ca.certificate);
    await writeFile(join(dir, "ca.key"), keyPem(key), { mode: 0o600 });
    return ca;
  }

  /** Loads the authority that another process saved. */
  static async load(dir: string): Promise<ClientCa> {
    return new ClientCa(createPrivateKey(await readFile(join(dir, "ca.key"))));
  }

  /** Issues a new key and certificate for a user in some groups. */
  issue(user: string, groups: readonly string[] = []): KeyPair {
    const key = newKey();
    const certificate = this.#certify(distinguishedName(user, groups), createPublicKey(key), [
      extension(KEY_USAGE, true, DIGITAL_SIGNATURE),
      extension(EXTENDED_KEY_USAGE, false, der.sequence(der.objectId(CLIENT_AUTH))),
    ]);
    return { certificate, key: keyPem(key) };
  }

  #certify(subject: Buffer, publicKey: KeyObject, extensions: readonly Buffer[]): string {
    return certify({ issuer: this.#name, subject, publicKey, extensions, signingKey: this.#key });
  }
}
