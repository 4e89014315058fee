import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Counter, Gauge, Histogram } from "prom-client";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse, stringify } from "yaml";
import { createMetrics } from "../../src/observe/metrics.ts";
import { observeProcess } from "../../src/observe/process.ts";
import { render, type Values } from "../support/chart.ts";
import { type AlertRule, alertRules, ruleFiles, runTool, useMonitoringTools } from "../support/monitoring.ts";

const tools = useMonitoringTools();
const rules = await alertRules();
const FIXTURES = join(import.meta.dirname, "..", "fixtures", "alerts");
const UNIT_TESTS = ["operator.yaml", "environments.yaml", "sessions.yaml", "parked-pods.yaml"];

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "berth-alerts-"));
});
afterAll(() => rm(dir, { recursive: true }));

/** The rules of the chart's PrometheusRule, as a file for promtool. */
async function renderedRules(values: Values): Promise<{ file: string; rules: Map<string, AlertRule> }> {
  const { spec } = (await render("berth-system", { prometheusRule: { enabled: true, ...values } })).one(
    "PrometheusRule",
  ) as unknown as { spec: { groups: { rules: AlertRule[] }[] } };
  const file = join(dir, "rendered.yaml");
  await writeFile(file, stringify(spec));
  const found = spec.groups.flatMap(({ rules: own }) => own);
  return { file, rules: new Map(found.map((rule) => [rule.alert, rule])) };
}

test("the operator's metrics have names, types and labels that Prometheus recommends", async () => {
  const metrics = createMetrics();
  observeProcess(metrics, { version: "1.2.3" });
  for (const metric of metrics.registry.getMetricsAsArray()) {
    const { labelNames } = metric as unknown as { readonly labelNames: readonly string[] };
    const labels = Object.fromEntries(labelNames.map((name) => [name, "x"]));
    if (metric instanceof Histogram) metric.observe(labels, 1);
    else if (metric instanceof Counter || metric instanceof Gauge) metric.inc(labels);
  }
  // Fails at the first recommendation that is not followed.
  await runTool(tools.promtool, ["check", "metrics"], await metrics.registry.metrics());
});

describe("the alerts", () => {
  test("are rules that Prometheus accepts", async () => {
    expect(await runTool(tools.promtool, ["check", "rules", ...(await ruleFiles())])).not.toContain("FAILED");
  });

  test.each(UNIT_TESTS)("pass promtool's unit tests: %s", async (file) => {
    await runTool(tools.promtool, ["test", "rules", join(FIXTURES, file)]);
  });

  test("each have a unit test where they fire and one where they don't", async () => {
    interface Case {
      readonly alertname: string;
      readonly exp_alerts: readonly unknown[];
    }
    const files = await Promise.all(
      UNIT_TESTS.map(async (file) => parse(await readFile(join(FIXTURES, file), "utf8"))),
    );
    const cases = files.flatMap(({ tests }) =>
      tests.flatMap(({ alert_rule_test }: { alert_rule_test: Case[] }) => alert_rule_test),
    ) as Case[];
    const of = (fires: boolean) =>
      new Set(cases.filter(({ exp_alerts }) => exp_alerts.length > 0 === fires).map(({ alertname }) => alertname));
    expect(rules.filter(({ alert }) => !of(true).has(alert)).map(({ alert }) => alert)).toEqual([]);
    expect(rules.filter(({ alert }) => !of(false).has(alert)).map(({ alert }) => alert)).toEqual([]);
  });
});

describe("the chart's PrometheusRule", () => {
  test("contains every alert as in its file, with its runbook URL", async () => {
    const rendered = await renderedRules({ parkedPods: true, runbookUrl: "https://pages.example/runbooks/" });
    await runTool(tools.promtool, ["check", "rules", rendered.file]);
    expect([...rendered.rules.values()]).toEqual(
      rules.map((rule) => ({
        ...rule,
        annotations: { ...rule.annotations, runbook_url: `https://pages.example/runbooks/${rule.alert}.md` },
      })),
    );
  });

  test("leaves out the alerts of parked Pods by default, and sets no runbook URLs", async () => {
    const rendered = await renderedRules({});
    expect([...rendered.rules.values()]).toEqual(rules.filter(({ alert }) => alert !== "BerthPodParked"));
  });

  test("applies changes of single alerts, and labels for all", async () => {
    const rendered = await renderedRules({
      alertLabels: { team: "agents" },
      alerts: {
        BerthSessionsWait: { threshold: 300, for: "10m", severity: "info" },
        BerthClaimsFail: { threshold: 0.5 },
        BerthAtMaximum: { enabled: false },
        BerthOperatorDown: { expr: 'absent(berth_build_info{namespace="team-a"})' },
      },
    });
    await runTool(tools.promtool, ["check", "rules", rendered.file]);
    expect(rendered.rules.get("BerthSessionsWait")).toMatchObject({
      expr: "time() - max by (namespace, environment) (berth_queue_oldest_item_timestamp_seconds > 0) > 300",
      for: "10m",
      labels: { severity: "info", team: "agents" },
    });
    expect(rendered.rules.get("BerthClaimsFail")?.expr).toMatch(/ > 0\.5$/);
    expect(rendered.rules.has("BerthAtMaximum")).toBe(false);
    expect(rendered.rules.get("BerthOperatorDown")?.expr).toBe('absent(berth_build_info{namespace="team-a"})');
    expect(rendered.rules.get("BerthKeyRejected")?.labels).toEqual({ severity: "warning", team: "agents" });
  });

  test("changes only the threshold of an alert whose expression ends with one", async () => {
    const limited = rules.filter(({ expr }) => /> [\d.]+$/.test(expr)).map(({ alert }) => alert);
    expect(limited).toContain("BerthHeartbeatsLate");
    const alerts = Object.fromEntries(limited.map((alert) => [alert, { threshold: 7 }]));
    const rendered = await renderedRules({ parkedPods: true, alerts });
    await runTool(tools.promtool, ["check", "rules", rendered.file]);
    expect([...rendered.rules.values()]).toEqual(
      rules.map((rule) => ({
        ...rule,
        expr: limited.includes(rule.alert) ? rule.expr.replace(/[\d.]+$/, "7") : rule.expr,
      })),
    );
  });
});
