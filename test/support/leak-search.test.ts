import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { newCredential } from "../../simulator/ids.ts";
import { findLeaks, LeakSearch } from "./leak-search.ts";

const KEY = newCredential("sk-ant-oat01");
const TOKEN = newCredential("sk-ant-req");
/** A work secret, in the Work API's format. */
const SECRET = Buffer.from(JSON.stringify({ sessions_token: TOKEN, api_base_url: "https://api.example" })).toString(
  "base64url",
);

const hexOf = (character: string) => character.charCodeAt(0).toString(16);
const base64 = (text: string) => Buffer.from(text).toString("base64");

describe("a credential is found", () => {
  test.each([
    ["a log line", `{"level":"info","msg":"polls with ${KEY}"}`, "plain"],
    ["a header in a log", `authorization: Bearer ${KEY}`, "plain"],
    ["a Secret's data", JSON.stringify({ data: { key: base64(KEY) } }), "base64"],
    ["a basic Authorization header", `Basic ${base64(`user:${KEY}`)}`, "base64"],
    ["a header of a longer user", `Basic ${base64(`users:${KEY}`)}`, "base64"],
    ["an object within a field of bytes", base64(JSON.stringify({ env: [{ name: "KEY", value: KEY }] })), "base64"],
    ["a token of base64url", Buffer.from(`{"k":"${KEY}"}`).toString("base64url"), "base64"],
    ["a query", `GET /v1?key=${encodeURIComponent(KEY)} 200`, "plain"],
    ["JSON within JSON", JSON.stringify(JSON.stringify({ key: KEY })), "plain"],
    ["a dump of bytes", Buffer.from(KEY).toString("hex"), "hexadecimal"],
    ["the arguments of a process", `node\0worker.mjs\0--key=${KEY}\0`, "plain"],
    ["the environment of a process", `PATH=/bin\0ANTHROPIC_ENVIRONMENT_KEY=${KEY}\0HOME=/`, "plain"],
    ["a label of a metric", `berth_requests_total{key="${KEY}"} 1`, "plain"],
    ["a message that was cut short", `the key ${KEY.slice(0, 40)}`, "plain"],
    ["a message of which the beginning was cut off", `...${KEY.slice(-26)}`, ""],
  ])("in %s", (_what, text, form) => {
    const [leak, ...more] = new LeakSearch([TOKEN, KEY]).find([{ where: "here", text }]);
    expect(more).toEqual([]);
    expect(leak).toMatchObject({ where: "here", credential: `${KEY.slice(0, 14)}...` });
    expect(leak?.form).toContain(form);
  });

  test.each([
    ["in a URL", (character: string) => `%${hexOf(character).toUpperCase()}`, "URL-encoded throughout"],
    ["in a JSON string", (character: string) => `\\u00${hexOf(character)}`, "JSON with escapes"],
  ])("%s by an encoder that escapes more than necessary", (_what, escaped, form) => {
    // Every piece of this credential has a character to escape.
    const dashed = `sk-ant-oat01-${"aB3-cD4_eF5.".repeat(5)}`;
    const text = dashed.replaceAll(/[^A-Za-z0-9]/g, escaped);
    expect(new LeakSearch([dashed]).find([{ where: "here", text }])).toEqual([
      { where: "here", credential: `${dashed.slice(0, 14)}...`, form },
    ]);
  });

  test("anywhere in any text, also in base64", () => {
    const anything = fc.string({ unit: "binary", maxLength: 100 });
    const search = new LeakSearch([KEY]);
    fc.assert(
      fc.property(anything, anything, (before, after) => {
        const text = `${before}${KEY}${after}`;
        expect(search.find([{ where: "here", text }])).toHaveLength(1);
        expect(search.find([{ where: "here", text: base64(text) }])).toHaveLength(1);
      }),
    );
  });

  test("if a sessions token was extracted from a work secret, and if the secret itself leaked", () => {
    expect(findLeaks([TOKEN], [{ where: "here", text: `token ${TOKEN}` }])).toHaveLength(1);
    expect(findLeaks([TOKEN], [{ where: "here", text: `secret ${SECRET}` }])).toHaveLength(1);
    expect(findLeaks([SECRET], [{ where: "here", text: JSON.stringify({ data: base64(SECRET) }) }])).toHaveLength(1);
  });

  test("once per place, and never printed", () => {
    const leaks = findLeaks(
      [KEY],
      [
        { where: "one", text: `${KEY} ${KEY} ${base64(KEY)}` },
        { where: "clean", text: "nothing" },
        { where: "two", text: KEY },
      ],
    );
    expect(leaks).toEqual([`one: ${KEY.slice(0, 14)}... (plain)`, `two: ${KEY.slice(0, 14)}... (plain)`]);
  });
});

describe("nothing is found", () => {
  test("for another credential of the same kind", () => {
    const text = `${newCredential("sk-ant-oat01")} ${base64(newCredential("sk-ant-req"))}`;
    expect(findLeaks([KEY, TOKEN, SECRET], [{ where: "here", text }])).toEqual([]);
  });

  test("for documentation about keys, and for the first characters, which logs may show", () => {
    const text = `starts with sk-ant-oat01- as in ${KEY.slice(0, 20)}...`;
    expect(findLeaks([KEY], [{ where: "here", text }])).toEqual([]);
  });

  test("if no credential exists", () => {
    expect(findLeaks([], [{ where: "log", text: "text" }])).toEqual([]);
  });
});

test("a text too short for a credential is refused instead of found everywhere", () => {
  expect(() => new LeakSearch([""])).toThrow(RangeError);
  expect(() => new LeakSearch(["sk-ant-oat01-abc"])).toThrow(RangeError);
});
