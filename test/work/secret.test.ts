import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { WorkApiError } from "../../src/work/errors.ts";
import { decodeWorkSecret } from "../../src/work/secret.ts";

function encode(value: unknown, encoding: "base64" | "base64url" = "base64url"): string {
  return Buffer.from(JSON.stringify(value)).toString(encoding);
}

describe("a work secret", () => {
  it("has the sessions token and perhaps a base URL", () => {
    expect(decodeWorkSecret(encode({ sessions_token: "sk-ant-req-1" }))).toEqual({ sessionsToken: "sk-ant-req-1" });
    expect(decodeWorkSecret(encode({ sessions_token: "t", api_base_url: "https://h/", more: 1 }))).toEqual({
      sessionsToken: "t",
      apiBaseUrl: "https://h/",
    });
    expect(decodeWorkSecret(encode({ sessions_token: "t", api_base_url: null }))).toEqual({ sessionsToken: "t" });
  });

  it("may be padded, and in either alphabet of base64", () => {
    fc.assert(
      fc.property(fc.string({ minLength: 1, unit: "binary" }), (token) => {
        const value = { sessions_token: token.toWellFormed() };
        const expected = { sessionsToken: value.sessions_token };
        expect(decodeWorkSecret(encode(value))).toEqual(expected);
        expect(decodeWorkSecret(encode(value, "base64"))).toEqual(expected);
      }),
    );
  });

  it.each([
    ["nothing", ""],
    ["no base64", "{}"],
    ["no JSON", Buffer.from("sk-ant-req-visible").toString("base64url")],
    ["no UTF-8", Buffer.from([0x7b, 0xff]).toString("base64url")],
    ["no UTF-8 inside", Buffer.from('{"sessions_token":"visible\xff"}', "latin1").toString("base64url")],
    ["cut off", encode({ sessions_token: "sk-ant-req-visible" }).slice(0, -9)],
    ["null", encode(null)],
    ["a list", encode(["visible"])],
    ["an object without the token", encode({ token: "visible" })],
    ["an empty token", encode({ sessions_token: "" })],
    ["a token that is no text", encode({ sessions_token: { visible: "visible" } })],
    ["a base URL that is no text", encode({ sessions_token: "visible", api_base_url: 5 })],
  ])("that is %s is refused, unquoted", (_, secret) => {
    let error: unknown;
    try {
      decodeWorkSecret(secret);
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(WorkApiError);
    expect(error).toMatchObject({ kind: "protocol" });
    const shown = `${String(error)} ${JSON.stringify(error)} ${String((error as Error).cause)}`;
    expect(shown).not.toContain("visible");
    if (secret.length > 8) expect(shown).not.toContain(secret);
  });
});
