import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { linePlot, shares } from "../../../bench/report/plot.ts";
import { writeReport } from "../../../bench/report/report.ts";
import { gateLine, shown, tableLines } from "../../../bench/report/text.ts";
import { type Gate, isKept, type Report } from "../../../bench/scenario.ts";

const gate = (over: Partial<Gate>): Gate => ({ name: "p50", value: 1.2, unit: "x", ...over });

test.each([
  [{ value: 1.25, atMost: 1.25 }, true],
  [{ value: 1.26, atMost: 1.25 }, false],
  [{ value: 0.8, atLeast: 0.8 }, true],
  [{ value: 0.79, atLeast: 0.8 }, false],
  [{ value: Number.NaN, atMost: 1 }, false],
  [{ value: Number.NaN, atLeast: 1 }, false],
])("%j is kept: %s", (over, kept) => {
  expect(isKept(gate(over))).toBe(kept);
});

test.each([
  [1.2345, "1.23"],
  [0.01234, "0.0123"],
  [1234.5, "1,235"],
  [12, "12"],
  [0, "0"],
  ["text", "text"],
])("%s is shown as %s", (cell, text) => {
  expect(shown(cell)).toBe(text);
});

test("a table for a terminal aligns its numbers", () => {
  const table = { title: "Waits", columns: ["what", "ms"], rows: [["a", 5] as const, ["longer", 1_000] as const] };
  expect(tableLines(table)).toEqual(["  Waits", "    what       ms", "    a           5", "    longer  1,000"]);
});

test("a gate shows the measured value and the limit", () => {
  expect(gateLine(gate({ value: 2, atMost: 1.25 }))).toBe("  MISSED  p50: 2 x, at most 1.25 x");
  expect(gateLine(gate({ value: 1, atLeast: 0.8, unit: "" }))).toBe("  kept    p50: 1, at least 0.800");
});

test("the shares of a distribution end at 1", () => {
  expect(shares("a", [3, 1, 2, 4]).points).toEqual([
    { x: 1, y: 0.25 },
    { x: 2, y: 0.5 },
    { x: 3, y: 0.75 },
    { x: 4, y: 1 },
  ]);
});

test("a plot names its lines and escapes markup in text", async () => {
  const axes = { x: { title: "a<b", isLog: true }, y: { title: "y" } };
  const { svg } = await linePlot({ name: "p", title: "A & B", ...axes }, [shares("one", [1, 2]), shares("two", [3])]);
  for (const text of ["A &amp; B", "a&lt;b", "one", "two"]) expect(svg).toContain(text);
});

test("a report consists of a file for people, a file for programs, and a file for each plot", async () => {
  const folder = await mkdtemp(join(tmpdir(), "berth-report-"));
  try {
    await writeReport(join(folder, "new"), await reportOf());
    const read = (name: string) => readFile(join(folder, "new", name), "utf8");
    expect((await readdir(join(folder, "new"))).toSorted()).toEqual(["fast-waits.svg", "report.json", "report.md"]);
    const json = JSON.parse(await read("report.json"));
    expect(json.answers[0].gates).toEqual([{ name: "p50", value: 2, atMost: 1.25, unit: "x", isKept: false }]);
    expect(json.answers[0].plots).toEqual(["fast-waits.svg"]);
    expect(json.answers[1].error).toBe("no room");
    const text = await read("report.md");
    for (const part of ["Gates kept: 0 of 1.", "| Fast | p50 | 2 x | at most 1.25 x | **missed** |"]) {
      expect(text).toContain(part);
    }
    expect(text).toContain("![Waits](fast-waits.svg)");
    expect(text).toContain("| a\\|b | 1.50 |");
    expect(text).toContain("**It failed:** no room");
  } finally {
    await rm(folder, { recursive: true });
  }
});

async function reportOf(): Promise<Report> {
  const axes = { x: { title: "x" }, y: { title: "y" } };
  const plot = await linePlot({ name: "waits", title: "Waits", ...axes }, [shares("one", [1, 2])]);
  const table = { title: "Waits", columns: ["what", "ms"], rows: [["a|b", 1.5] as const] };
  const findings = { tables: [table], gates: [gate({ value: 2, atMost: 1.25 })], plots: [plot] };
  return {
    madeAt: "2026-01-01T00:00:00.000Z",
    seed: 1,
    quick: false,
    answers: [
      { name: "fast", title: "Fast", about: "How fast.", seconds: 3, findings },
      { name: "slow", title: "Slow", about: "How slow.", seconds: 1, error: "no room" },
    ],
  };
}
