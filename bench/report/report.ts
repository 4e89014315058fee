import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { isKept, type Report } from "../scenario.ts";
import { markdownOf } from "./markdown.ts";

/** Writes `report.json`, `report.md`, and a file for each plot. Overwrites the files of an earlier run. */
export async function writeReport(folder: string, report: Report): Promise<void> {
  await mkdir(folder, { recursive: true });
  for (const { name, findings } of report.answers) {
    for (const plot of findings?.plots ?? []) await writeFile(join(folder, plotFile(name, plot)), plot.svg);
  }
  await writeFile(join(folder, "report.json"), `${JSON.stringify(jsonOf(report), null, 2)}\n`);
  await writeFile(join(folder, "report.md"), markdownOf(report, plotFile));
}

function plotFile(scenario: string, plot: { readonly name: string }): string {
  return `${scenario}-${plot.name}.svg`;
}

/** Returns the report for programs: unrounded figures, the verdict on each gate, and the file names of the plots. */
export function jsonOf({ answers, ...report }: Report): unknown {
  return {
    ...report,
    answers: answers.map(({ findings, about: _, ...answer }) => ({
      ...answer,
      ...(findings && {
        tables: findings.tables,
        gates: findings.gates.map((gate) => ({ ...gate, isKept: isKept(gate) })),
        plots: (findings.plots ?? []).map((plot) => plotFile(answer.name, plot)),
        notes: findings.notes ?? [],
      }),
    })),
  };
}
