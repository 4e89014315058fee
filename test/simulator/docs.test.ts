import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { ADMIN_ROUTES } from "../../simulator/admin.ts";
import { CALLS, faultSchema } from "../../simulator/faults.ts";
import { switchesSchema } from "../../simulator/switches.ts";
import { VIOLATION_KINDS } from "../../simulator/violations.ts";

const page = readFileSync(new URL("../../docs/simulator.md", import.meta.url), "utf8");

/** The rows of the table under a heading: the first cell of each. */
function firstCells(heading: string): string[] {
  const section = page.split(/^## /m).find((text) => text.startsWith(`${heading}\n`)) ?? "";
  const rows = section.split("\n").filter((line) => line.startsWith("| `"));
  return rows.map((row) => row.split("|")[1]?.trim() ?? "");
}

/** The names in backquotes. */
function names(cells: readonly string[]): string[] {
  return cells.flatMap((cell) => [...cell.matchAll(/`([^`]+)`/g)].map((match) => match[1] ?? ""));
}

describe("docs/simulator.md", () => {
  test("describes every kind of violation, and no other", () => {
    expect(names(firstCells("Violations"))).toEqual([...VIOLATION_KINDS]);
  });

  test("describes every switch with its default first, and no other", () => {
    expect(names(firstCells("Switches"))).toEqual(Object.keys(switchesSchema.shape));
    for (const [name, value] of Object.entries(switchesSchema.parse({}))) {
      expect(page).toContain(`| \`${name}\` | \`${String(value)}\`,`);
    }
  });

  test("describes every fault and every call, and no other", () => {
    const kinds = faultSchema.options.map((option) => option.shape.kind.value);
    expect(names(firstCells("Faults"))).toEqual(kinds);
    for (const call of CALLS) expect(page).toContain(`\`${call}\``);
  });

  test("describes every route of the admin API, and no other", () => {
    const routes = names(firstCells("Admin API")).map((route) => route.replace("{id}", "*"));
    expect(routes.toSorted()).toEqual(Object.keys(ADMIN_ROUTES).toSorted());
  });

  test("describes every flag of the program, and no other", () => {
    const source = readFileSync(new URL("../../simulator/main.ts", import.meta.url), "utf8");
    const flags = [...source.matchAll(/(?:\.option|new Option)\("(--[a-z-]+)/g)].map((match) => match[1] ?? "");
    expect(names(firstCells("Start it"))).toEqual(flags);
  });
});
