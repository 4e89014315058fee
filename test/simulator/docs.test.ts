import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { ADMIN_ROUTES } from "../../simulator/admin.ts";
import { CALLS, faultSchema } from "../../simulator/faults.ts";
import { switchesSchema } from "../../simulator/switches.ts";
import { VIOLATION_KINDS } from "../../simulator/violations.ts";

const pages = ["simulator.md", "simulator/api.md", "simulator/behavior.md"];
const page = pages.map((name) => readFileSync(new URL(`../../docs/${name}`, import.meta.url), "utf8")).join("\n");

/** Returns the first cell of each row in the table under a heading. */
function firstCells(heading: string): string[] {
  const section = page.split(/^## /m).find((text) => text.startsWith(`${heading}\n`)) ?? "";
  const rows = section.split("\n").filter((line) => line.startsWith("| `"));
  return rows.map((row) => row.split("|")[1]?.trim() ?? "");
}

/** Returns the names in backquotes. */
function names(cells: readonly string[]): string[] {
  return cells.flatMap((cell) => [...cell.matchAll(/`([^`]+)`/g)].map((match) => match[1] ?? ""));
}

describe("the pages of the simulator", () => {
  test("describes exactly the kinds of violations", () => {
    expect(names(firstCells("Violations"))).toEqual([...VIOLATION_KINDS]);
  });

  test("describes exactly the switches, each with its default first", () => {
    expect(names(firstCells("Switches"))).toEqual(Object.keys(switchesSchema.shape));
    for (const [name, value] of Object.entries(switchesSchema.parse({}))) {
      expect(page).toContain(`| \`${name}\` | \`${String(value)}\`,`);
    }
  });

  test("describes exactly the faults and the calls", () => {
    const kinds = faultSchema.options.map((option) => option.shape.kind.value);
    expect(names(firstCells("Faults"))).toEqual(kinds);
    for (const call of CALLS) expect(page).toContain(`\`${call}\``);
  });

  test("describes exactly the routes of the admin API", () => {
    const routes = names(firstCells("Admin API")).map((route) => route.replace("{id}", "*"));
    expect(routes.toSorted()).toEqual(Object.keys(ADMIN_ROUTES).toSorted());
  });

  test("describes exactly the flags of the program", () => {
    const source = readFileSync(new URL("../../simulator/main.ts", import.meta.url), "utf8");
    const flags = [...source.matchAll(/(?:\.option|new Option)\(\s*"(--[a-z-]+)/g)].map((match) => match[1] ?? "");
    expect(names(firstCells("Start it"))).toEqual(flags);
  });
});
