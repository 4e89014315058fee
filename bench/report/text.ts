import { type Cell, type Gate, isKept, type Table } from "../scenario.ts";

/** Formats a number with three significant digits. Whole numbers keep all their digits. */
export function shown(cell: Cell): string {
  if (typeof cell === "string") return cell;
  if (Number.isInteger(cell) || Math.abs(cell) >= 100) return Math.round(cell).toLocaleString("en-US");
  return cell.toPrecision(3);
}

/** Renders a table for a terminal, with numbers aligned to the right. */
export function tableLines({ title, columns, rows }: Table): string[] {
  const texts = [columns, ...rows.map((row) => row.map(shown))];
  const widths = columns.map((_, at) => Math.max(...texts.map((row) => row[at]?.length ?? 0)));
  const isNumber = columns.map((_, at) => rows.some((row) => typeof row[at] === "number"));
  const line = (row: readonly string[]) =>
    row.map((text, at) => (isNumber[at] ? text.padStart(widths[at] ?? 0) : text.padEnd(widths[at] ?? 0))).join("  ");
  return [`  ${title}`, ...texts.map((row) => `    ${line(row).trimEnd()}`)];
}

export function gateLine(gate: Gate): string {
  return `  ${isKept(gate) ? "kept  " : "MISSED"}  ${gate.name}: ${valueText(gate)}, ${boundText(gate)}`;
}

export function valueText({ value, unit }: Gate): string {
  return withUnit(value, unit);
}

export function boundText({ atMost, atLeast, unit }: Gate): string {
  const bounds = [
    ...(atLeast === undefined ? [] : [`at least ${withUnit(atLeast, unit)}`]),
    ...(atMost === undefined ? [] : [`at most ${withUnit(atMost, unit)}`]),
  ];
  return bounds.join(" and ");
}

const withUnit = (value: number, unit: string) => (unit === "" ? shown(value) : `${shown(value)} ${unit}`);
