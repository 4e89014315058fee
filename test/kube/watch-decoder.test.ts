import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type RawWatchEvent, WatchDecoder } from "../../src/kube/watch-decoder.ts";

const event = fc.record({
  type: fc.constantFrom("ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"),
  object: fc.record({
    metadata: fc.record({
      name: fc.string({ unit: "grapheme" }),
      annotations: fc.dictionary(fc.string(), fc.string({ unit: "grapheme" })),
    }),
    payload: fc.jsonValue(),
  }),
});

/** Cuts bytes at the given positions. */
function cutAt(bytes: Uint8Array, places: readonly number[]): Uint8Array[] {
  const at = [0, ...places.map((place) => place % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
  return at.slice(1).map((end, i) => bytes.subarray(at[i], end));
}

test("any chunks of the same bytes give the same events, also with characters of several bytes", () => {
  fc.assert(
    fc.property(
      fc.array(event, { maxLength: 6 }),
      fc.array(fc.nat(), { maxLength: 30 }),
      fc.boolean(),
      (events, places, crlf) => {
        const text = events.map((one) => `${JSON.stringify(one)}${crlf ? "\r\n" : "\n"}`).join("");
        const decoder = new WatchDecoder();
        const decoded: RawWatchEvent[] = [];
        for (const chunk of cutAt(new TextEncoder().encode(text), places)) decoded.push(...decoder.push(chunk));
        expect(decoded).toEqual(JSON.parse(JSON.stringify(events)));
        expect(decoder.pendingBytes).toBe(0);
      },
    ),
  );
});

test("single bytes give an event at the end of each line", () => {
  const decoder = new WatchDecoder();
  const bytes = new TextEncoder().encode('{"type":"ADDED","object":{"metadata":{"name":"é𝒳"}}}\n');
  const seen: number[] = [];
  bytes.forEach((_, i) => {
    if ([...decoder.push(bytes.subarray(i, i + 1))].length > 0) seen.push(i);
  });
  expect(seen).toEqual([bytes.length - 1]);
});

test("an incomplete line is pending, not an event", () => {
  const decoder = new WatchDecoder();
  expect([...decoder.push(new TextEncoder().encode('{"type":"ADDED","object":{"metadata":{}}}'))]).toEqual([]);
  expect(decoder.pendingBytes).toBeGreaterThan(0);
});

describe("throws for", () => {
  test.each([
    ["an incomplete line", '{"type":"ADDED","obj\n'],
    ["a page of HTML", "<html>\n"],
    ["a bare Status", '{"kind":"Status","code":410}\n'],
    ["JSON that is no object", "3\n"],
    ["null", "null\n"],
    ["an event without an object", '{"type":"ADDED","object":null}\n'],
  ])("%s", (_name, text) => {
    expect(() => [...new WatchDecoder().push(new TextEncoder().encode(text))]).toThrow();
  });

  test("bytes that are not UTF-8", () => {
    const bytes = Buffer.concat([
      Buffer.from('{"type":"ADDED","object":{"a":"'),
      Buffer.from([0xff, 0xfe]),
      Buffer.from('"}}\n'),
    ]);
    expect(() => [...new WatchDecoder().push(bytes)]).toThrow();
  });

  test("a line without end, before it uses too much memory", () => {
    const decoder = new WatchDecoder();
    const block = new Uint8Array(8 * 1024 * 1024).fill(0x20);
    expect(() => {
      for (let i = 0; i < 8; i += 1) for (const _ of decoder.push(block));
    }).toThrow(/longer than/);
  });
});
