import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { type ConditionReason, eventType, REASONS } from "../../src/api/condition-reasons.ts";
import { CONDITION_TYPES } from "../../src/api/condition-types.ts";
import { END_REASON_LIST, EVENT_REASONS } from "../../src/api/reasons.ts";
import { IN_THE_WAY } from "../../src/reconcile/environment-conditions.ts";
import { recordedBlocks, replaceRecorded } from "../../tools/recorded-blocks.ts";
import { faults } from "../integration/faults.ts";

const ROOT = join(import.meta.dirname, "..", "..");
const read = (path: string) => readFile(join(ROOT, path), "utf8");
const CONDITION_REASONS = Object.keys(REASONS) as ConditionReason[];

/** Whether a text has what a message of a fault must contain. The faults' Secret has a shorter name. */
const says = (text: string, words: string | RegExp) => {
  const told = text.replaceAll("research-key", "key");
  return typeof words === "string" ? told.includes(words) : words.test(told);
};

describe("docs/troubleshooting.md", () => {
  test("shows a fault that the tests cause, in the columns, the conditions and the Events", async () => {
    const blocks = recordedBlocks(await read("docs/troubleshooting.md"));
    const shown = faults().filter(({ name }) => blocks.has(name));
    expect(shown.map(({ name }) => name)).toEqual([...blocks.keys()]);
    expect(shown).toHaveLength(1);
    for (const { name, shows, ready } of shown) {
      const text = blocks.get(name) ?? "";
      const { status, reason } = ready ?? { status: "False", reason: shows.reason };
      expect(text).toMatch(new RegExp(`^research +Sessions .*${status} +${reason} +2m$`, "m"));
      expect(text).toMatch(new RegExp(`^ +Reason: +${shows.reason}\\n +Status: +${shows.status}$`, "m"));
      expect(text).toMatch(new RegExp(`^ +(Warning|Normal) +${shows.reason} `, "m"));
      const messages = [...text.matchAll(/Message: +(.*)/g)].map(([, message = ""]) => message);
      for (const words of shows.words) expect(messages.some((message) => says(message, words))).toBe(true);
    }
  });

  test("contains nothing about the machine that recorded the text", async () => {
    const page = await read("docs/troubleshooting.md");
    expect(page).not.toMatch(/\b(world|served|shown)-[a-z0-9]/);
    expect(page).not.toMatch(/\/(work|tmp|home|root)\//);
  });
});

describe("docs/troubleshooting", () => {
  const isReason = (name: string) => /^[A-Z]/.test(name);

  test("has a page for every reason that the console links: warnings, and those of Ready itself", async () => {
    const wanted = CONDITION_REASONS.filter(
      (reason) => eventType(reason) === "Warning" || (REASONS[reason].type === "Ready" && reason !== "Ready"),
    );
    const pages = (await readdir(join(ROOT, "docs/troubleshooting"))).map((name) => name.replace(/\.md$/, ""));
    expect(pages).toEqual(expect.arrayContaining(wanted));
    const known = new Set<string>([...CONDITION_REASONS, ...Object.keys(EVENT_REASONS)]);
    expect(pages.filter((name) => isReason(name) && !known.has(name))).toEqual([]);
    for (const name of pages.filter(isReason)) {
      expect((await read(`docs/troubleshooting/${name}.md`)).startsWith(`# ${name}\n`), name).toBe(true);
    }
  });

  test.each(faults())("quotes the message of $name on the page of its reason", async ({ shows }) => {
    const page = await read(`docs/troubleshooting/${shows.reason}.md`);
    const quotes = [...page.matchAll(/`([^`\n]+)`/g)].map(([, quote = ""]) => quote);
    expect(shows.words.some((words) => quotes.some((quote) => says(quote, words)))).toBe(true);
  });
});

describe("docs/status.md", () => {
  test("lists the conditions behind Ready in the order of their priority", async () => {
    const page = await read("docs/status.md");
    const line = page.split("\n").find((text) => text.startsWith("4. ")) ?? "";
    expect([...line.matchAll(/`(\w+)`/g)].map(([, name]) => name)).toEqual([...IN_THE_WAY]);
  });

  test("names only existing reasons and conditions", async () => {
    const known = new Set<string>([
      ...CONDITION_REASONS,
      ...CONDITION_TYPES,
      ...Object.keys(EVENT_REASONS),
      ...["True", "False", "Unknown"],
    ]);
    const words = [...(await read("docs/status.md")).matchAll(/`([A-Z][A-Za-z]+)`/g)].map(([, word = ""]) => word);
    expect(words.filter((word) => !known.has(word))).toEqual([]);
  });
});

test("every reason of a condition, an end or an Event is used", async () => {
  const files = (await readdir(join(ROOT, "src"), { recursive: true })).filter(
    (path) => path.endsWith(".ts") && !path.startsWith("api/"),
  );
  const source = (await Promise.all(files.map((path) => read(join("src", path))))).join("\n");
  const reasons = [...CONDITION_REASONS, ...END_REASON_LIST, ...Object.keys(EVENT_REASONS)];
  expect(reasons.filter((reason) => !source.includes(`"${reason}"`))).toEqual([]);
});

test("replaces recorded texts between their marks, and nowhere else", () => {
  const page =
    "a\n<!-- recorded: x -->\nold\n<!-- end of the recorded text -->\nb\n<!-- recorded: y -->\n<!-- end of the recorded text -->\n";
  const next = replaceRecorded(page, new Map([["x", "$& new"]]));
  expect(next).toBe(page.replace("old\n", () => "```console\n$& new\n```\n"));
  expect([...recordedBlocks(next).keys()]).toEqual(["x", "y"]);
});
