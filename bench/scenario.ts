import type { BenchOptions } from "./options.ts";
import type { Plot } from "./report/plot.ts";

/** A question about speed, and how the bench answers it. */
export interface Scenario {
  /** The name on the command line and in file names. */
  readonly name: string;
  readonly title: string;
  /** Runs on a real node, which needs root, for an hour or more. Such a scenario only runs if it's named. */
  readonly needsNode?: boolean;
  /** Markdown for the report: what the scenario measures, how, and what it compares the result with. */
  readonly about: string;
  /** Measures on servers that it starts itself, and stops all of them. @throws {Error} if it can't measure */
  run(context: Context): Promise<Findings>;
}

/** The inputs of a scenario. */
export interface Context {
  readonly options: BenchOptions;
  /** Prints a progress line, which isn't part of the report. */
  log(line: string): void;
}

/** The results of a scenario. */
export interface Findings {
  readonly tables: readonly Table[];
  readonly gates: readonly Gate[];
  readonly plots?: readonly Plot[];
  /** Markdown paragraphs that the reader needs to interpret the figures. */
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

/** Figures for people and programs. Each row has one cell per column. */
export interface Table {
  readonly title: string;
  readonly columns: readonly string[];
  readonly rows: readonly (readonly Cell[])[];
}

/** Text, or an unrounded number. The report rounds it. */
export type Cell = string | number;

/**
 * A limit on a ratio, a count, or a share. It's never a limit on a duration alone, because durations depend on the
 * machine.
 */
export interface Gate {
  readonly name: string;
  readonly value: number;
  /** The limit itself is allowed. */
  readonly atMost?: number;
  readonly atLeast?: number;
  /** The unit, such as `x` for a ratio, `requests`, or `MiB`. Empty for a plain count. */
  readonly unit: string;
}

/** Whether the value is within the limits. NaN never is. */
export function isKept({
  value,
  atMost = Number.POSITIVE_INFINITY,
  atLeast = Number.NEGATIVE_INFINITY,
}: Gate): boolean {
  return value <= atMost && value >= atLeast;
}
