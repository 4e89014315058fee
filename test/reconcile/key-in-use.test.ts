import { describe, expect, test } from "vitest";
import { KeyInUse } from "../../src/reconcile/key-keeper.ts";

const A = "https://a.test";
const B = "https://b.test";
const C = "https://c.test";

const api = (baseUrl: string, name: string, key = "environment-key") => ({ baseUrl, keySecretRef: { name, key } });

/** Takes a key for each spec in turn. */
function readFor(...read: [key: string, baseUrl: string, secret: string][]): KeyInUse {
  const keys = new KeyInUse();
  const addresses: string[] = [];
  for (const [key, baseUrl, secret] of read) {
    if (!addresses.includes(baseUrl)) addresses.unshift(baseUrl);
    keys.take(key, api(baseUrl, secret), addresses);
  }
  return keys;
}

describe("the key in use", () => {
  test("is empty before the first read", () => {
    const keys = new KeyInUse();
    expect([keys.key, keys.for(api(A, "a")), keys.forEarlier(B, api(A, "a"))]).toEqual(["", "", ""]);
  });

  test.each([
    ["another Secret for the same address", api(A, "b"), "key-a"],
    ["the same Secret for another address", api(B, "a"), "key-a"],
    ["another Secret for another address", api(B, "b"), ""],
    ["another key of the same Secret for another address", api(B, "a", "other"), ""],
  ])("is sent or withheld until the next read, for a spec that names %s: %#", (_what, spec, sent) => {
    expect(readFor(["key-a", A, "a"]).for(spec)).toBe(sent);
  });

  test("keeps an earlier address's key of its Secret, and updates it if the spec named the Secret for both addresses", () => {
    const keys = readFor(["key-a", A, "a"], ["key-b", B, "b"], ["key-c", B, "c"]);
    expect(keys.for(api(B, "c"))).toBe("key-c");
    expect(keys.forEarlier(A, api(B, "c"))).toBe("key-a");
    expect(readFor(["key-a", A, "a"], ["key-a2", B, "a"]).forEarlier(A, api(B, "a"))).toBe("key-a2");
    // The spec in between also named this Secret for A.
    expect(readFor(["key-a", A, "a"], ["key-b", B, "b"], ["key-a2", B, "a"]).forEarlier(A, api(B, "a"))).toBe("key-a2");
  });

  test("keeps an earlier address's key while the new Secret has none", () => {
    const keys = readFor(["key-a", A, "a"], ["", B, "b"]);
    expect(keys.for(api(B, "b"))).toBe("");
    expect(keys.forEarlier(A, api(B, "b"))).toBe("key-a");
    keys.take("key-b", api(B, "b"), [B, A]);
    expect([keys.for(api(B, "b")), keys.forEarlier(A, api(B, "b"))]).toEqual(["key-b", "key-a"]);
  });

  test("returns to its Secret's key when the spec is reverted", () => {
    const keys = readFor(["key-a", A, "a"], ["key-b", B, "b"], ["key-a2", A, "a"]);
    expect(keys.for(api(A, "a"))).toBe("key-a2");
    expect(keys.forEarlier(B, api(A, "a"))).toBe("key-b");
  });

  test("keeps nothing for an address that no claim names", () => {
    const keys = readFor(["key-a", A, "a"], ["key-b", B, "b"]);
    keys.take("key-b", api(B, "b"), [B]);
    expect(keys.forEarlier(A, api(B, "b"))).toBe("key-b");
    keys.take("key-c", api(C, "c"), [C]);
    expect(keys.forEarlier(B, api(C, "c"))).toBe("key-b");
  });
});
