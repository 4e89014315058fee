import { createHmac, timingSafeEqual } from "node:crypto";
import { SECOND_MS } from "../core/clock.ts";

/**
 * Signatures of Standard Webhooks, by which the platform signs its deliveries
 * (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md): the HMAC-SHA256 of
 * `id.timestamp.body`, in base64, behind `v1,`. Several, separated by spaces, while a secret is rotated.
 */

/** What a signing secret begins with; the rest is the key in base64. */
export const SECRET_PREFIX = "whsec_";
/** The specification asks for 24 to 64 bytes; the platform gives 32. */
const MIN_KEY_BYTES = 24;
const MAX_KEY_BYTES = 64;
const BASE64 = /^[A-Za-z0-9+/]+={0,2}$/;

/** How far a delivery's time may be from ours, as in the reference library: clocks differ, and replays are old. */
export const TOLERANCE_SECONDS = 5 * 60;

const VERSION = "v1";
/** Two secrets sign while one is rotated; more than a few is somebody who wants us to work. */
const MAX_SIGNATURES = 8;
const WHOLE_SECONDS = /^\d{1,12}$/;
/** Ids are some 30 characters; they are kept for a while, so none may be long. */
const MAX_ID = 256;

/** What is signed and how, as the headers of a delivery say it. */
export interface SignedHeaders {
  readonly id: string;
  readonly timestamp: string;
  readonly signature: string;
}

export type SignatureVerdict = "good" | "malformed" | "stale" | "forged";

/** The key of a signing secret; undefined when the text is none. */
export function keyOfSecret(text: string): Buffer | undefined {
  if (!text.startsWith(SECRET_PREFIX)) return undefined;
  const encoded = text.slice(SECRET_PREFIX.length);
  if (!BASE64.test(encoded)) return undefined;
  const key = Buffer.from(encoded, "base64");
  return key.length >= MIN_KEY_BYTES && key.length <= MAX_KEY_BYTES ? key : undefined;
}

/** Whether the headers may be those of a signed delivery; no key is needed to see that they are not. */
export function isWellFormed({ id, timestamp, signature }: SignedHeaders): boolean {
  return id !== "" && id.length <= MAX_ID && WHOLE_SECONDS.test(timestamp) && signature !== "";
}

/** Whether one of the keys signed this body at about this time. Takes as long for a wrong signature as for a good one. */
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
  // After the signature: the time of a forged one says nothing.
  if (!isSigned) return "forged";
  return Math.abs(nowMs / SECOND_MS - Number(timestamp)) > TOLERANCE_SECONDS ? "stale" : "good";
}
