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

describe("docs/troubleshooting.md", () => {
  test("has a recorded text for exactly the faults that the tests cause", async () => {
    const blocks = recordedBlocks(await read("docs/troubleshooting.md"));
    expect([...blocks.keys()].sort()).toEqual(
      faults()
        .map(({ name }) => name)
        .sort(),
    );
  });

  test.each(faults())("shows the reason of $name in the columns, the conditions and the Events", async (fault) => {
    const text = recordedBlocks(await read("docs/troubleshooting.md")).get(fault.name) ?? "";
    const { status, reason } = fault.ready ?? { status: "False", reason: fault.shows.reason };
    expect(text).toMatch(new RegExp(`^research +Sessions .*${status} +${reason} +2m$`, "m"));
    expect(text).toMatch(new RegExp(`^ +Reason: +${fault.shows.reason}\\n +Status: +${fault.shows.status}$`, "m"));
    expect(text).toMatch(new RegExp(`^ +(Warning|Normal) +${fault.shows.reason} `, "m"));
    // Skip words that are specific to one run.
    for (const words of fault.shows.words) {
      if (typeof words === "string" && !/\bkey\b/.test(words)) expect(text).toContain(words);
    }
  });

  test("contains nothing about the machine that recorded the texts", async () => {
    const page = await read("docs/troubleshooting.md");
    expect(page).not.toMatch(/\b(world|served|shown)-[a-z0-9]/);
    expect(page).not.toMatch(/\/(work|tmp|home|root)\//);
    expect(new Set(page.match(/127\.0\.0\.1:\d+/g))).toEqual(new Set(["127.0.0.1:4010"]));
  });

  test("has a section for every warning reason and every reason of Ready itself", async () => {
    const page = await read("docs/troubleshooting.md");
    const wanted = CONDITION_REASONS.filter(
      (reason) => eventType(reason) === "Warning" || (REASONS[reason].type === "Ready" && reason !== "Ready"),
    );
    expect(
      wanted.filter((reason) => !page.includes(`\`${reason}\``) && !page.includes(`Reason:                ${reason}`)),
    ).toEqual([]);
  });
});

describe("docs/status.md", () => {
  test("lists the conditions behind Ready in the order of their priority", async () => {
    const page = await read("docs/status.md");
    const line = page.split("\n").find((text) => text.startsWith("3. ")) ?? "";
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
