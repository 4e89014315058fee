/** The chart's alert rules, those of clusters, and Prometheus and its tools. */
import { execFile } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { beforeAll, beforeEach } from "vitest";
import { parse } from "yaml";
import { MissingToolError } from "../../testbed/cluster/missing.ts";
import { findClusterRules } from "../../testbed/monitoring/cluster-rules.ts";
import { findMonitoringTools, type MonitoringTools } from "../../testbed/monitoring/tools.ts";
import { CHART } from "../../tools/helm.ts";

/** The folder of the alert rules. */
export const ALERTS = join(CHART, "alerts");

/** One alert of the rule files. */
export interface AlertRule {
  readonly alert: string;
  readonly expr: string;
  readonly for?: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

/** The paths of all rule files of the chart. */
export async function ruleFiles(): Promise<string[]> {
  return (await readdir(ALERTS)).sort().map((name) => join(ALERTS, name));
}

/** Every alert of the chart's rule files, in order. */
export async function alertRules(): Promise<AlertRule[]> {
  const texts = await Promise.all((await ruleFiles()).map((path) => readFile(path, "utf8")));
  return texts.flatMap((text) =>
    (parse(text) as { groups: { rules: AlertRule[] }[] }).groups.flatMap(({ rules }) => rules),
  );
}

/**
 * Prometheus and its tools, for the tests of a file. If they are not available, the tests are skipped, which fails in
 * CI. Call it at the top of a file.
 */
export function useMonitoringTools(): MonitoringTools {
  const tools = useFound(findMonitoringTools);
  return {
    get prometheus() {
      return tools().prometheus;
    },
    get promtool() {
      return tools().promtool;
    },
    get "prometheus-alertmanager"() {
      return tools()["prometheus-alertmanager"];
    },
    get amtool() {
      return tools().amtool;
    },
  };
}

/** The path of kube-prometheus' rules, in the same way. */
export function useClusterRules(): () => string {
  return useFound(findClusterRules);
}

function useFound<T>(find: () => Promise<T>): () => T {
  let found: T | undefined;
  let why = "";
  beforeAll(async () => {
    try {
      found = await find();
    } catch (error) {
      if (!(error instanceof MissingToolError) || process.env.CI) throw error;
      why = error.message;
    }
  });
  beforeEach(({ skip }) => {
    if (why !== "") skip(why);
  });
  return () => {
    if (found === undefined) throw new Error(`${find.name}: used before the tests`);
    return found;
  };
}

/**
 * Runs one of the tools.
 * @returns its output
 * @throws with its message on failure
 */
export async function runTool(tool: string, args: readonly string[], input = ""): Promise<string> {
  try {
    const running = promisify(execFile)(tool, args);
    running.child.stdin?.end(input);
    const { stdout, stderr } = await running;
    return stdout + stderr;
  } catch (error) {
    const { stdout = "", stderr = "" } = error as { stdout?: string; stderr?: string };
    throw new Error(`${tool} ${args.join(" ")}:\n${stdout}${stderr}`, { cause: error });
  }
}
