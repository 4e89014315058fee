import { type Answer, type Gate, isKept, type Report, type Table } from "../scenario.ts";
import type { Plot } from "./plot.ts";
import { boundText, shown, valueText } from "./text.ts";

/** Renders the report for people. @param plotFile returns the file name of a scenario's plot */
export function markdownOf(report: Report, plotFile: (scenario: string, plot: Plot) => string): string {
  const { madeAt, seed, quick, answers } = report;
  const gates = answers.flatMap(({ title, findings }) => (findings?.gates ?? []).map((gate) => ({ title, gate })));
  const kept = gates.filter(({ gate }) => isKept(gate)).length;
  const parts = [
    "# Berth: how fast",
    `Measured ${madeAt}, seed ${seed}. Gates kept: ${kept} of ${gates.length}.`,
    ...(quick ? ["This was a quick run: its load is too small for a judgment."] : []),
    gateTable(gates),
    ...answers.map((answer) => section(answer, plotFile)),
  ];
  return `${parts.filter((part) => part !== "").join("\n\n")}\n`;
}

function section({ name, title, about, seconds, findings, error }: Answer, plotFile: PlotFile): string {
  const parts = [`## ${title}`, about];
  if (error !== undefined) parts.push(`**It failed:** ${error}`);
  if (findings) {
    parts.push(...findings.tables.map(tableText));
    parts.push(...(findings.plots ?? []).map((plot) => `![${plot.title}](${plotFile(name, plot)})`));
    parts.push(...(findings.notes ?? []));
  }
  parts.push(`\`npm run bench -- ${name}\` took ${shown(Math.round(seconds))} s.`);
  return parts.join("\n\n");
}

type PlotFile = Parameters<typeof markdownOf>[1];

function gateTable(gates: readonly { readonly title: string; readonly gate: Gate }[]): string {
  if (gates.length === 0) return "";
  const rows = gates.map(({ title, gate }) => [
    title,
    gate.name,
    valueText(gate),
    boundText(gate),
    isKept(gate) ? "kept" : "**missed**",
  ]);
  return [["", "gate", "measured", "allowed", ""], ["---", "---", "---:", "---:", "---"], ...rows].map(line).join("\n");
}

function tableText({ title, columns, rows }: Table): string {
  const marks = columns.map((_, at) => (rows.some((row) => typeof row[at] === "number") ? "---:" : "---"));
  return [`**${title}**`, "", ...[columns, marks, ...rows.map((row) => row.map(shown))].map(line)].join("\n");
}

const line = (cells: readonly string[]) => `| ${cells.map((text) => text.replaceAll("|", "\\|")).join(" | ")} |`;
