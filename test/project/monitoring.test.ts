import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { END_REASONS } from "../../src/api/reasons.ts";
import { createMetrics } from "../../src/observe/metrics.ts";
import { type Dashboard, dashboards, type Panel, queriesOf } from "../support/dashboards.ts";
import { alertRules } from "../support/monitoring.ts";
import { deadPartsOf, familiesIn } from "../support/promql.ts";
import { ROOT } from "./lint-gate.ts";

const RUNBOOKS = "docs/runbooks";
const read = (path: string) => readFile(join(ROOT, path), "utf8");
const rules = await alertRules();
const boards = await dashboards();
/** Berth's own metrics, without those of kube-state-metrics and Prometheus. */
const all = createMetrics()
  .registry.getMetricsAsArray()
  .map(({ name }) => name);

test("finds unknown metrics, labels and values in an expression", () => {
  expect(deadPartsOf('sum(rate(berth_claims_total{result=~"late|failed", namespace="a"}[5m]))')).toEqual([]);
  expect(deadPartsOf('berth_queued_to_started_seconds_bucket{environment="a", le="1"}')).toEqual([]);
  expect(deadPartsOf("berth_claim_total > 0")).toEqual(["berth_claim_total"]);
  expect(deadPartsOf('berth_sessions{phase="parked"}')).toEqual(['berth_sessions{phase="parked"}']);
  expect(deadPartsOf('berth_claims_total{result!~"late|eaten"}')).toEqual(['berth_claims_total{result="eaten"}']);
  expect(deadPartsOf('berth_starts_failing{reason="x"}')).toEqual(["berth_starts_failing{reason}"]);
});

describe("the alerts", () => {
  test("have one page each, and each page belongs to an alert", async () => {
    const pages = (await readdir(join(ROOT, RUNBOOKS))).map((name) => name.replace(/\.md$/, ""));
    expect(pages.sort()).toEqual(rules.map(({ alert }) => alert).sort());
  });

  test("are all in docs/monitoring.md, in the same order and with their severity", async () => {
    const rows = [
      ...(await read("docs/monitoring.md")).matchAll(/^\| \[`(\w+)`\]\(runbooks\/(\w+)\.md\) \| (\w+) \|/gm),
    ];
    expect(rows.map(([, name, page, severity]) => [name, page, severity])).toEqual(
      rules.map(({ alert, labels }) => [alert, alert, labels["severity"]]),
    );
  });

  test.each(rules)("$alert uses existing metrics, and describes its finding", ({ expr, annotations, labels }) => {
    expect(deadPartsOf(expr)).toEqual([]);
    expect(labels["severity"]).toMatch(/^(critical|warning|info|none)$/);
    expect(annotations["summary"]).toMatch(/^\S/);
    expect(annotations["summary"]?.length).toBeLessThan(120);
    expect(annotations["description"]).toMatch(/\.$/);
    // An aggregated label would be empty in the text.
    const text = Object.values(annotations).join(" ");
    const named = [...text.matchAll(/\$labels\.(\w+)/g)].map(([, label = ""]) => label);
    const kept = [...expr.matchAll(/\bby \(([^)]*)\)/g)].map(([, list = ""]) => list.split(", "));
    for (const label of named) expect(kept[0], label).toContain(label);
  });

  test.each(rules)("$alert's page has every section, and uses existing metrics", async ({ alert }) => {
    const page = await read(`${RUNBOOKS}/${alert}.md`);
    expect(page.startsWith(`# ${alert}\n`)).toBe(true);
    for (const part of ["Meaning", "Impact", "Diagnosis", "Mitigation", "When to silence"])
      expect(page).toMatch(`\n## ${part}\n\n`);
    const queries = [...page.matchAll(/```promql\n([\s\S]*?)```/g)].map(([, query = ""]) => query);
    expect(queries.flatMap(deadPartsOf)).toEqual([]);
    expect(page).toMatch(/```sh\nkubectl /);
  });
});

test("alerts and dashboards that count failed sessions exclude the reasons that are no failure", () => {
  const good = Object.entries(END_REASONS).flatMap(([reason, { failed }]) => (failed ? [] : [reason]));
  const queries = [
    ...rules.map(({ expr }) => expr),
    ...boards.flatMap((board) => queriesOf(board)).map(({ target: { expr } }) => expr),
  ];
  const excluded = queries.flatMap((expr) => [...expr.matchAll(/ended_total\{[^}]*reason!~"([^"]*)"/g)]);
  expect(excluded).toHaveLength(3);
  for (const [, reasons = ""] of excluded) expect(reasons.split("|").sort()).toEqual(good.sort());
});

test("queries in pages use existing metrics and labels", async () => {
  const pages = (await readdir(join(ROOT, "docs"), { recursive: true })).filter((name) => name.endsWith(".md"));
  for (const page of pages) expect(deadPartsOf(await read(join("docs", page))), page).toEqual([]);
});

describe.each(boards)("dashboard $file", (board: Dashboard) => {
  const { panels } = board;
  const drawn = panels.filter(({ type }) => type !== "row");

  test("gives each panel an id, a title and a place", () => {
    expect(board.uid).toMatch(/^[a-z-]{1,40}$/);
    expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
    expect(new Set(panels.map(({ title }) => title)).size).toBe(panels.length);
    for (const { title, gridPos } of panels) {
      expect(gridPos.w > 0 && gridPos.h > 0 && gridPos.x >= 0 && gridPos.x + gridPos.w <= 24, title).toBe(true);
    }
    expect(overlapping(panels)).toEqual([]);
  });

  test("gives each panel a description, a unit and the selected data source", () => {
    for (const { title, description, datasource, targets = [], fieldConfig } of drawn) {
      expect(description, title).toMatch(/\w.*\.$/);
      expect(fieldConfig?.defaults.unit, title).toMatch(/^(none|percentunit|s|bytes|ops|opm|reqps)$/);
      expect(targets.length, title).toBeGreaterThan(0);
      expect(new Set(targets.map(({ refId }) => refId)).size, title).toBe(targets.length);
      for (const source of [datasource, ...targets.map((target) => target.datasource)]) {
        // biome-ignore lint/suspicious/noTemplateCurlyInString: a variable of Grafana's.
        expect(source, title).toEqual({ type: "prometheus", uid: "${datasource}" });
      }
    }
    // No row contains panels: a collapsed row would hide them from a person in a hurry.
    expect(panels.filter(({ panels: inner = [] }) => inner.length > 0)).toEqual([]);
  });

  test("has variables for the data source, the cluster, the namespace and the Environment, and uses them", () => {
    const { list } = board.templating;
    expect(list.map(({ name, type }) => [name, type])).toEqual([
      ["datasource", "datasource"],
      ["cluster", "query"],
      ["namespace", "query"],
      ["environment", "query"],
    ]);
    const perEnvironment = new Set(
      (createMetrics().registry.getMetricsAsArray() as unknown as { name: string; labelNames: string[] }[])
        .filter(({ labelNames }) => labelNames.includes("environment"))
        .map(({ name }) => name),
    );
    for (const { panel, target } of queriesOf(board)) {
      const selectors = [...target.expr.matchAll(/\b((?:berth|kube|process)_[a-z_]+|ALERTS)(\{[^}]*\})?/g)];
      for (const [, name = "", matchers = ""] of selectors) {
        expect(matchers, `${panel}: ${name}`).toContain('cluster=~"$cluster"');
        if (!familiesIn(name).some((family) => perEnvironment.has(family))) continue;
        expect(matchers, `${panel}: ${name}`).toContain('namespace=~"$namespace", environment=~"$environment"');
      }
    }
  });

  test("tells series of several clusters apart where it names Environments", () => {
    for (const { panel, target } of queriesOf(board))
      for (const [, labels = ""] of target.expr.matchAll(/\b(?:by|on) \(([^)]*\bnamespace\b[^)]*)\)/g))
        expect(labels, panel).toMatch(/\bcluster\b/);
  });

  test("links rows by columns that they have", () => {
    const linked = panels.filter(({ fieldConfig }) => JSON.stringify(fieldConfig ?? {}).includes("__data.fields."));
    expect(linked.map(({ title }) => title)).toEqual(["Problems"]);
    for (const { title, fieldConfig, transformations = [] } of linked) {
      const columns = transformations.flatMap(({ options }) => Object.values(options.renameByName));
      const named = [...JSON.stringify(fieldConfig).matchAll(/__data\.fields\.(\w+)/g)].map(([, column]) => column);
      expect(columns, title).toEqual(expect.arrayContaining(named));
    }
  });

  test("uses existing metrics and labels", () => {
    // Variables have unknown values, so they are not checked.
    const dead = queriesOf(board).flatMap(({ panel, target }) =>
      deadPartsOf(target.expr).map((part) => `${panel}: ${part}`),
    );
    expect(dead).toEqual([]);
  });
});

test("a dashboard or an alert uses every metric that can report a problem", () => {
  const shown = new Set([
    ...boards.flatMap((board) => queriesOf(board).flatMap(({ target }) => familiesIn(target.expr))),
    ...rules.flatMap(({ expr }) => familiesIn(expr)),
  ]);
  expect(all.filter((name) => !shown.has(name))).toEqual(NOT_SHOWN);
});

/** Metrics that an on-call person does not need at a glance; docs/metrics.md explains each. */
const NOT_SHOWN = [
  "berth_queue_pending",
  "berth_queue_workers_polling",
  "berth_workers_scaled_total",
  "berth_worker_probes_total",
  "berth_workspaces_created_total",
  "berth_workspaces_expired_total",
  "berth_workspaces",
  "berth_webhook_deliveries_total",
  "berth_webhook_passed_on_total",
  "berth_hinted_items_total",
  "berth_replicas",
];

function overlapping(panels: readonly Panel[]): string[] {
  const covers = (a: Panel["gridPos"], b: Panel["gridPos"]) =>
    a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h;
  return panels.flatMap((panel, index) =>
    panels
      .slice(index + 1)
      .filter((other) => covers(panel.gridPos, other.gridPos))
      .map((other) => `${panel.title} and ${other.title}`),
  );
}
