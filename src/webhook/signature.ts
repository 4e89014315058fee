import { createHmac, timingSafeEqual } from "node:crypto";
import { SECOND_MS } from "../core/clock.ts";

/**
 * Signatures of Standard Webhooks, which the platform uses
 * (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md): `v1,` and the base64
 * HMAC-SHA256 of `id.timestamp.body`. While a secret is rotated, the header has several, separated by spaces.
 */

/** The prefix of a signing secret; the rest is the key in base64. */
export const SECRET_PREFIX = "whsec_";
/** The specification requires 24 to 64 bytes; the platform uses 32. */
const MIN_KEY_BYTES = 24;
const MAX_KEY_BYTES = 64;
const BASE64 = /^[A-Za-z0-9+/]+={0,2}$/;

/**
 * The allowed difference between a delivery's time and the local clock, as in the reference library. It covers clock
 * skew and rejects old replays.
 */
export const TOLERANCE_SECONDS = 5 * 60;

const VERSION = "v1";
/** Two secrets sign during a rotation. Many more signatures can only be an attempt to waste CPU. */
const MAX_SIGNATURES = 8;
const WHOLE_SECONDS = /^\d{1,12}$/;
/** Ids have some 30 characters. They are kept for a while, so long ones are rejected. */
const MAX_ID = 256;

/** The signature headers of a delivery. */
export interface SignedHeaders {
  readonly id: string;
  readonly timestamp: string;
  readonly signature: string;
}

export type SignatureVerdict = "good" | "malformed" | "stale" | "forged";

/** The key of a signing secret; undefined if the text is not one. */
export function keyOfSecret(text: string): Buffer | undefined {
  if (!text.startsWith(SECRET_PREFIX)) return undefined;
  const encoded = text.slice(SECRET_PREFIX.length);
  if (!BASE64.test(encoded)) return undefined;
  const key = Buffer.from(encoded, "base64");
  return key.length >= MIN_KEY_BYTES && key.length <= MAX_KEY_BYTES ? key : undefined;
}

/** Whether the headers can belong to a signed delivery. Needs no key. */
export function isWellFormed({ id, timestamp, signature }: SignedHeaders): boolean {
  return id !== "" && id.length <= MAX_ID && WHOLE_SECONDS.test(timestamp) && signature !== "";
}

/** Verifies that one of the keys signed this body recently. Takes constant time for right and wrong signatures. */
export function verify(headers: SignedHeaders, body: Buffer, keys: readonly Buffer[], nowMs: number): SignatureVerdict {
  const { id, timestamp, signature } = headers;
  if (!isWellFormed(headers)) return "malformed";
  const expected = keys.map((key) => createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest());
  let isSigned = false;
  for (const given of signature.split(" ").slice(0, MAX_SIGNATURES)) {
    const [version, encoded = ""] = given.split(",");
    if (version !== VERSION) continue;
    const bytes = Buffer.from(encoded, "base64");
    for (const digest of expected) {
      if (bytes.length === digest.length && timingSafeEqual(bytes, digest)) isSigned = true;
    }
  }
  // Check the time last: the time of a forged delivery means nothing.
  if (!isSigned) return "forged";
  return Math.abs(nowMs / SECOND_MS - Number(timestamp)) > TOLERANCE_SECONDS ? "stale" : "good";
}
