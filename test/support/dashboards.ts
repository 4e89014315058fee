/** Reads the chart's Grafana dashboards and their queries. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { CHART } from "../../tools/helm.ts";

const DASHBOARDS = join(CHART, "dashboards");

/** A query of a panel. */
export interface Target {
  readonly refId: string;
  readonly expr: string;
  readonly instant?: boolean;
  readonly datasource: { readonly type: string; readonly uid: string };
}

/** A panel, with the fields that tests read. */
export interface Panel {
  readonly id: number;
  readonly type: string;
  readonly title: string;
  readonly description?: string;
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
  readonly datasource?: Target["datasource"];
  readonly targets?: readonly Target[];
  readonly fieldConfig?: { readonly defaults: { readonly unit?: string }; readonly overrides?: unknown };
  readonly transformations?: readonly {
    readonly options: { readonly renameByName: Readonly<Record<string, string>> };
  }[];
  readonly panels?: readonly Panel[];
}

/** A variable of a dashboard. */
export interface Variable {
  readonly name: string;
  readonly type: string;
  readonly query: string | { readonly query: string };
  readonly datasource?: Target["datasource"];
}

export interface Dashboard {
  readonly file: string;
  readonly uid: string;
  readonly title: string;
  readonly templating: { readonly list: readonly Variable[] };
  readonly panels: readonly Panel[];
}

/** The dashboards of the chart. */
export async function dashboards(): Promise<Dashboard[]> {
  const files = (await readdir(DASHBOARDS)).sort();
  return Promise.all(
    files.map(async (file) => ({ file, ...JSON.parse(await readFile(join(DASHBOARDS, file), "utf8")) })),
  );
}

/** Every query of a dashboard, with the title of its panel. */
export function queriesOf({ panels }: Dashboard): { panel: string; target: Target }[] {
  return panels.flatMap(({ title, targets = [] }) => targets.map((target) => ({ panel: title, target })));
}

/** A query as Grafana sends it with all variables set to "All"; `rate` is the interval of its rates, such as `1m`. */
export function withVariables(expr: string, rate: string): string {
  return expr.replaceAll("$__rate_interval", rate).replaceAll(/\$(cluster|namespace|environment)\b/g, ".*");
}
