import fc from "fast-check";
import { Webhook } from "standardwebhooks";
import { describe, expect, test, vi } from "vitest";
import { keyOfSecret, type SignedHeaders, TOLERANCE_SECONDS, verify } from "../../src/webhook/signature.ts";

/** The test vector of the reference libraries. */
const SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const BODY = Buffer.from('{"test": 2432232314}');
const SIGNED: SignedHeaders = {
  id: "msg_p5jXN8AQM9LWM0D4loKWxJek",
  timestamp: "1614265330",
  signature: "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
};
const AT_MS = 1_614_265_330_000;
const OTHER_SECRET = `whsec_${Buffer.alloc(32, 7).toString("base64")}`;

function key(secret = SECRET): Buffer {
  const found = keyOfSecret(secret);
  if (!found) throw new Error("no secret");
  return found;
}

const judge = (over: Partial<SignedHeaders> = {}, { body = BODY, keys = [key()], nowMs = AT_MS } = {}) =>
  verify({ ...SIGNED, ...over }, body, keys, nowMs);

describe("a delivery's signature", () => {
  test("of the reference's test vector is good", () => {
    expect(judge()).toBe("good");
  });

  test("is found among those of other versions and secrets", () => {
    const forged = `v1,${Buffer.alloc(32).toString("base64")}`;
    expect(judge({ signature: `v1a,abc ${forged} ${SIGNED.signature}` })).toBe("good");
    expect(judge({ signature: `v2${SIGNED.signature.slice(2)}` })).toBe("forged");
  });

  test("is good with any of the secrets, so that they can be rotated", () => {
    expect(judge({}, { keys: [key(OTHER_SECRET), key()] })).toBe("good");
    expect(judge({}, { keys: [key(OTHER_SECRET)] })).toBe("forged");
    expect(judge({}, { keys: [] })).toBe("forged");
  });

  test.each<[string, Partial<SignedHeaders>]>([
    ["id", { id: "msg_other" }],
    ["time", { timestamp: "1614265331" }],
    ["signature", { signature: `v1,${Buffer.alloc(32).toString("base64")}` }],
    ["length of the signature", { signature: "v1,AAAA" }],
    ["form of the signature", { signature: SIGNED.signature.slice(3) }],
  ])("does not match another %s", (_what, over) => {
    expect(judge(over)).toBe("forged");
  });

  test("does not match another body, even one with the same meaning", () => {
    expect(judge({}, { body: Buffer.from('{"test":2432232314}') })).toBe("forged");
  });

  test.each<[string, Partial<SignedHeaders>]>([
    ["without an id", { id: "" }],
    ["with an endless id", { id: "m".repeat(257) }],
    ["without a time", { timestamp: "" }],
    ["with a time that is not a number", { timestamp: "1614265330.5" }],
    ["with a negative time", { timestamp: "-1" }],
    ["without a signature", { signature: "" }],
  ])("%s is malformed", (_what, over) => {
    expect(judge(over)).toBe("malformed");
  });

  test("is stale beyond the tolerance in both directions", () => {
    const toleranceMs = TOLERANCE_SECONDS * 1_000;
    for (const sign of [-1, 1]) {
      expect(judge({}, { nowMs: AT_MS + sign * toleranceMs })).toBe("good");
      expect(judge({}, { nowMs: AT_MS + sign * (toleranceMs + 1_000) })).toBe("stale");
    }
  });

  test("is forged and never stale if it is invalid, because its time is the forger's", () => {
    expect(judge({ timestamp: "1" })).toBe("forged");
  });
});

describe("a signing secret", () => {
  test.each([
    ["of another kind", "sk-ant-api03-abc"],
    ["without its prefix", SECRET.slice("whsec_".length)],
    ["that is not base64", "whsec_not base64, of any length!"],
    ["that is cut short", "whsec_MfKQ9r8GKYqrTwjUPD8I"],
    ["that is far too long", `whsec_${Buffer.alloc(65).toString("base64")}`],
    ["that is empty", "whsec_"],
  ])("%s is rejected", (_what, text) => {
    expect(keyOfSecret(text)).toBeUndefined();
  });
});

test("agrees with the reference library about any signed delivery", () => {
  vi.useFakeTimers({ now: AT_MS, toFake: ["Date"] });
  try {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 24, maxLength: 64 }),
        fc.string({ unit: "grapheme", maxLength: 300 }),
        fc.integer({ min: -600, max: 600 }),
        fc.boolean(),
        (bytes, text, skewSeconds, isIntact) => {
          const secret = `whsec_${Buffer.from(bytes).toString("base64")}`;
          const seconds = AT_MS / 1_000 + skewSeconds;
          const reference = new Webhook(secret);
          const id = "msg_1";
          const signature = reference.sign(id, new Date(seconds * 1_000), text);
          const body = isIntact ? text : `${text}.`;
          const headers = { "webhook-id": id, "webhook-timestamp": String(seconds), "webhook-signature": signature };
          let isTaken = true;
          try {
            reference.verify(body, headers, { jsonParse: false });
          } catch {
            isTaken = false;
          }
          const verdict = verify(
            { id, timestamp: String(seconds), signature },
            Buffer.from(body),
            [key(secret)],
            AT_MS,
          );
          expect(verdict === "good").toBe(isTaken);
        },
      ),
    );
  } finally {
    vi.useRealTimers();
  }
});
