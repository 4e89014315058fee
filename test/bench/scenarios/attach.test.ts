import { expect, test } from "vitest";
import { type Level, PASSED } from "../../../bench/node/attach-costs.ts";
import { perConnection } from "../../../bench/scenarios/attach.ts";

/** A level at which every program takes the same. */
function level(connections: number, cores: number, rssKib: number): Level {
  const each = (value: number) => Object.fromEntries(PASSED.map((name) => [name, value])) as Level["cores"];
  const unused = { load: 0, openedMs: [], lost: [], goroutines: 0 };
  return { connections, ...unused, cores: each(cores), rssBytes: each(rssKib * 1_024) };
}

test("a connection's CPU is what the most connections take more than the idle programs at the end", () => {
  // The programs are still busy with their start at the first level, and don't return memory at the last one.
  const { rows } = perConnection([
    level(0, 1, 1_000),
    level(1, 0.5, 1_010),
    level(100, 0.3, 2_000),
    level(0, 0.1, 1_900),
  ]);
  expect(rows).toEqual(PASSED.map((name) => [name, 10, 2]));
});
