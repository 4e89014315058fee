import { afterAll, describe, expect, test } from "vitest";
import { seededRandom } from "../../../simulator/ids.ts";
import { readFaultSettings } from "../support/settings.ts";
import { KUBE_ANSWERS, WORK_ANSWERS } from "./answers.ts";
import { KUBE_ROWS, WORK_ROWS } from "./calls.ts";
import { type Cell, type Lease, runCell } from "./cell.ts";

const { long: isLong, sample: isSample, seed } = readFaultSettings();

/**
 * The number of answers of each row in a run. All of them take seven minutes on two cores, and answers within a row
 * differ little.
 */
const PER_ROW = isLong ? Number.POSITIVE_INFINITY : isSample ? 1 : 5;

/** Both tables: the rows of one API, and the answers to its calls. */
const TABLES = [
  { api: "work", rows: Object.keys(WORK_ROWS), answers: WORK_ANSWERS },
  { api: "kube", rows: Object.keys(KUBE_ROWS), answers: KUBE_ANSWERS },
] as const;

/**
 * The answers of one row in this run. Each row continues where the previous one ends, so that each answer is used, even
 * if there are more answers than rows.
 */
function picked({ rows, answers }: (typeof TABLES)[number], row: number, order: readonly number[]) {
  const perRow = Math.min(answers.length, Math.max(PER_ROW, Math.ceil(answers.length / rows.length)));
  const turns = Array.from({ length: perRow }, (_, turn) => order[(row * perRow + turn) % answers.length]);
  return answers.filter((_answer: NonNullable<Cell["answer"]>, index: number) => turns.includes(index));
}

/** The numbers from 0 to `count` - 1 in an order set by the seed. Consecutive rows together use each answer once. */
function shuffled(count: number, random: () => number): number[] {
  const keyed = Array.from({ length: count }, (_, index) => ({ index, at: random() }));
  return keyed.sort((a, b) => a.at - b.at).map(({ index }) => index);
}

/** The tests of one lease: one for each row. */
export function describeMatrix(lease: Lease): void {
  const random = seededRandom(seed + lease.length);
  const tables: string[][] = [];
  let held = 0;
  let tried = 0;
  describe.each(TABLES)(`lease: ${lease}: a call to the $api API that fails for half an hour`, (of) => {
    const { api, rows, answers } = of;
    const order = shuffled(answers.length, random);
    const table = [api.padEnd(NAME) + answers.map((answer) => answer.padEnd(CELL)).join("")];
    tables.push(table);
    test.each(rows.map((call, row) => ({ call, row })))("$call", async ({ call, row }) => {
      const failed: string[] = [];
      const marks = new Map<string, string>();
      for (const answer of picked(of, row, order)) {
        const { failures } = await runCell({ api, call, answer, lease }, seed);
        tried += 1;
        if (failures.length === 0) held += 1;
        else failed.push([`${call}, answered with ${answer}, lease: ${lease}:`, ...failures].join("\n  "));
        marks.set(answer, failures.length === 0 ? "ok" : "FAIL");
      }
      table.push(call.padEnd(NAME) + answers.map((answer) => (marks.get(answer) ?? "").padEnd(CELL)).join(""));
      expect(failed).toEqual([]);
    });
  });
  afterAll(() => {
    const shown = tables.map((table) => table.join("\n")).join("\n\n");
    console.log(`${shown}\n\nfault matrix, lease: ${lease}: ${held} of ${tried} cells hold`);
  });
}

const NAME = 40;
const CELL = 6;
