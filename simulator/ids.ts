import { randomBytes } from "node:crypto";
import type { Random } from "../src/core/backoff.ts";

const BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
/** Real ids consist of a prefix, the version `01`, and 22 characters. */
const ID_CHARACTERS = 22;
const CREDENTIAL_BYTES = 48;

/** Returns an id that looks like one of the platform: `work_01...`. */
export function newId(
  prefix: "env" | "work" | "session" | "sevt" | "req" | "agent" | "flt" | "arr" | "event" | "msg" | "org",
): string {
  const bytes = randomBytes(ID_CHARACTERS);
  // The distribution is slightly uneven because 256 isn't a multiple of 58. Ids don't need an even one.
  for (const [i, byte] of bytes.entries()) bytes[i] = BASE58.charCodeAt(byte % BASE58.length);
  return `${prefix}_01${bytes.toString("latin1")}`;
}

/** Returns a credential that looks like one of the platform. */
export function newCredential(prefix: "sk-ant-oat01" | "sk-ant-req" | "sk-ant-api03"): string {
  return `${prefix}-${randomBytes(CREDENTIAL_BYTES).toString("base64url")}`;
}

/** A seeded generator of numbers in [0, 1) (mulberry32). The same seed gives the same arrivals and faults. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Returns a number that orders ids independently of their age, for lists in an arbitrary order. */
export function shuffleRank(id: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < id.length; i += 1) hash = Math.imul(hash ^ id.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}
