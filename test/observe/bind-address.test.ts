import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseBindAddress } from "../../src/observe/bind-address.ts";

describe("a bind address", () => {
  test.each([
    [":8080", { port: 8080 }],
    [":0", { port: 0 }],
    ["127.0.0.1:0", { host: "127.0.0.1", port: 0 }],
    ["0.0.0.0:9", { host: "0.0.0.0", port: 9 }],
    ["[::1]:9", { host: "::1", port: 9 }],
    ["[::]:65535", { host: "::", port: 65_535 }],
    ["localhost:8080", { host: "localhost", port: 8080 }],
    ["berth-0.berth.svc:80", { host: "berth-0.berth.svc", port: 80 }],
    ["0", undefined],
  ])("reads %s", (text, expected) => {
    expect(parseBindAddress(text)).toEqual(expected);
  });

  test.each([
    "",
    ":",
    "8080",
    ":65536",
    ":-1",
    ":8080x",
    "::1:9",
    "[::1]",
    "[127.0.0.1]:9",
    "[]:9",
    "10.0.0.300:9",
    "-a:9",
    "a b:9",
    "http://localhost:9",
    ":8080 ",
    "00",
  ])("refuses %j and lists the valid forms", (text) => {
    expect(() => parseBindAddress(text)).toThrow(/is not an address to listen on; write :8080, .* or 0 to turn it off/);
  });

  test("reads or refuses any text, and returns a valid port", () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        try {
          const { port } = parseBindAddress(text) ?? { port: 0 };
          expect(port).toBeGreaterThanOrEqual(0);
          expect(port).toBeLessThanOrEqual(65_535);
        } catch (error) {
          expect(error).toBeInstanceOf(RangeError);
        }
      }),
    );
  });
});
