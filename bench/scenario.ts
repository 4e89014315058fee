import type { BenchOptions } from "./options.ts";
import type { Plot } from "./report/plot.ts";

/** One question about speed, and how it is answered. */
export interface Scenario {
  /** As on the command line, and in names of files. */
  readonly name: string;
  readonly title: string;
  /** Markdown for the report: what is measured, how, and what it is held against. */
  readonly about: string;
  /** Measures on what it starts itself, and leaves nothing running. @throws {Error} it cannot be answered. */
  run(context: Context): Promise<Findings>;
}

/** What a scenario is given. */
export interface Context {
  readonly options: BenchOptions;
  /** A line for who watches; not part of the report. */
  log(line: string): void;
}

/** What a scenario found. */
export interface Findings {
  readonly tables: readonly Table[];
  readonly gates: readonly Gate[];
  readonly plots?: readonly Plot[];
  /** Markdown paragraphs: what a reader has to know to read the figures. */
  readonly notes?: readonly string[];
}

/** The outcome of one scenario: its findings, or the error that ended it. */
export interface Answer {
  readonly name: string;
  readonly title: string;
  readonly about: string;
  /** How long the scenario ran. */
  readonly seconds: number;
  readonly findings?: Findings;
  readonly error?: string;
}

/** The outcome of a whole run of the bench. */
export interface Report {
  /** RFC 3339. */
  readonly madeAt: string;
  readonly seed: number;
  /** The load was too small to judge the figures. */
  readonly quick: boolean;
  readonly answers: readonly Answer[];
}

/** Figures for people and programs. A row has one cell for each column. */
export interface Table {
  readonly title: string;
  readonly columns: readonly string[];
  readonly rows: readonly (readonly Cell[])[];
}

/** Text, or a number as it was measured: the report rounds it. */
export type Cell = string | number;

/** A promise about a ratio, a count or a share. Never about a time alone: another machine has another one. */
export interface Gate {
  readonly name: string;
  readonly value: number;
  /** The bound belongs to what is allowed. */
  readonly atMost?: number;
  readonly atLeast?: number;
  /** Such as `x` for a ratio, `requests`, `MiB`; empty for a plain count. */
  readonly unit: string;
}

/** A value that is no number keeps no promise. */
export function isKept({
  value,
  atMost = Number.POSITIVE_INFINITY,
  atLeast = Number.NEGATIVE_INFINITY,
}: Gate): boolean {
  return value <= atMost && value >= atLeast;
}
