import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { stringify } from "yaml";
import { SECRETS } from "../../src/kube/resource.ts";
import { render } from "../support/chart.ts";
import { useCluster } from "../support/cluster.ts";
import { dashboards, queriesOf, withVariables } from "../support/dashboards.ts";
import { serveKubeStateMetrics } from "../support/kube-state-metrics.ts";
import { alertRules, runTool, useMonitoringTools } from "../support/monitoring.ts";
import {
  askPrometheus,
  type OwnServer,
  queryPrometheus,
  startAlertmanager,
  startPrometheus,
} from "../support/prometheus.ts";
import { familiesIn } from "../support/promql.ts";
import { startWorld, type World } from "../support/world.ts";

const cluster = useCluster();
const tools = useMonitoringTools();
const ROOT = join(import.meta.dirname, "..", "..");

/** The range of rates with scrapes a second apart: long enough for several, even on a busy machine. */
const RATE = "1m";
/** The target labels that the chart's monitors make Prometheus set. */
const TARGET = { namespace: "berth-system", pod: "berth-operator-0" };

/** The chart's alerts without their delay. */
async function impatientRules(): Promise<string> {
  const alerts = Object.fromEntries((await alertRules()).map(({ alert }) => [alert, { for: "0s" }]));
  const rendered = await render("berth-system", { prometheusRule: { enabled: true, parkedPods: true, alerts } });
  return stringify(rendered.one("PrometheusRule").spec);
}

async function startScraping(
  operator: string | undefined,
  pods: string,
  rules: Readonly<Record<string, string>>,
): Promise<OwnServer> {
  const target = { static_configs: [{ targets: [operator], labels: TARGET }] };
  return await startPrometheus(
    tools.prometheus,
    {
      global: { scrape_interval: "1s", evaluation_interval: "1s" },
      scrape_configs: [
        { job_name: "berth-operator-metrics", honor_labels: true, ...target },
        { job_name: "kube-state-metrics", honor_labels: true, static_configs: [{ targets: [pods] }] },
      ],
    },
    rules,
  );
}

/** A world with an Environment whose leases the operator keeps. */
async function servingWorld(): Promise<World> {
  const world = await startWorld(cluster, { sessions: { lease: "Operator", warm: 2 } });
  await world.createEnvironment();
  return world;
}

async function untilFires(world: World, prometheus: OwnServer, alert: string) {
  return await world.until(`${alert} fires`, async () => {
    const [found] = await queryPrometheus(prometheus, `ALERTS{alertname="${alert}", alertstate="firing"}`);
    return found?.metric;
  });
}

test("a real Prometheus answers all documented queries, and reports a bad key and a missing operator", async () => {
  await using world = await servingWorld();
  const { process, stop } = await world.startOperatorProcess({ leaderElect: true });
  await using pods = await serveKubeStateMetrics(() => world.pods);
  const rules = { "berth.yaml": await impatientRules() };
  await using prometheus = await startScraping(process.addresses.metrics, pods.address, rules);
  await world.untilParked(2);
  world.simulator.enqueue(world.environmentId);
  world.simulator.enqueue(world.environmentId);
  await world.untilServed(2);

  // The exported metrics match the documented ones, as seen from outside.
  await world.until(
    "both targets are scraped",
    async () => (await queryPrometheus(prometheus, "up == 1")).length === 2,
  );
  const metadata = Object.keys(await askPrometheus<Record<string, unknown>>(prometheus, "metadata"));
  const page = await readFile(join(ROOT, "docs/metrics.md"), "utf8");
  const documented = [...page.matchAll(/^\| `(berth_\w+)` \|/gm)].map(([, name = ""]) => name);
  expect(metadata.filter((name) => name.startsWith("berth_")).sort()).toEqual(documented.sort());
  expect(metadata.filter((name) => !/^(berth|process|nodejs)_/.test(name))).toEqual([]);

  // The namespace label is the Environment's, or the operator's for series without one.
  const served = { namespace: world.namespace, environment: world.name };
  await world.until("both sessions are counted", async () => {
    const [started] = await queryPrometheus(prometheus, "berth_sessions_started_total");
    if (started?.value?.[1] !== "2") return false;
    expect(started.metric).toMatchObject({ ...served, pod: TARGET.pod });
    return true;
  });
  const [build] = await queryPrometheus(prometheus, "berth_build_info");
  expect(build?.metric).toMatchObject(TARGET);

  await rulesAreHealthy(world, prometheus);
  await queriesAreAnswered(world, prometheus);
  await idlePodsAreCounted(world, prometheus);

  const key = { stringData: { "environment-key": "sk-ant-oat01-nobody-knows-this" } };
  await world.kube.patch(SECRETS, { namespace: world.namespace, name: "key" }, key, { type: "merge" });
  expect(await untilFires(world, prometheus, "BerthKeyRejected")).toMatchObject({ ...served, severity: "warning" });
  // The only Environment is more than half of them.
  expect(await untilFires(world, prometheus, "BerthMostEnvironmentsBlocked")).toMatchObject({ severity: "critical" });

  expect(await queryPrometheus(prometheus, 'ALERTS{alertname="BerthOperatorDown"}')).toEqual([]);
  await stop();
  await untilFires(world, prometheus, "BerthOperatorDown");
});

/** Checks that every rule exists, was evaluated, and has no error. */
async function rulesAreHealthy(world: World, prometheus: OwnServer): Promise<void> {
  interface Rules {
    readonly groups: readonly { readonly name: string; readonly rules: readonly Rule[] }[];
  }
  interface Rule {
    readonly name: string;
    readonly health: string;
    readonly lastError?: string;
  }
  const evaluated = await world.until("all rules are evaluated", async () => {
    const { groups } = await askPrometheus<Rules>(prometheus, "rules");
    const all = groups.flatMap(({ rules }) => rules);
    return all.length > 0 && all.every(({ health }) => health !== "unknown") && all;
  });
  expect(evaluated.filter(({ health }) => health !== "ok")).toEqual([]);
  expect(evaluated.map(({ name }) => name).sort()).toEqual((await alertRules()).map(({ alert }) => alert).sort());
}

/** Queries without a result in normal operation: they select faults, or exclude what is usual. */
const QUIET = /ALERTS|!=|== 0|> 0|"lost"/;

/**
 * Checks every query of the dashboards, including its range query. It must be valid and use known metrics. It must
 * return series if its metrics exist and it selects more than faults.
 */
async function queriesAreAnswered(world: World, prometheus: OwnServer): Promise<void> {
  const queries = (await dashboards()).flatMap((board) => queriesOf(board));
  const counted = await queryPrometheus(prometheus, 'count by (__name__) ({__name__=~".+"})');
  const names = new Set(counted.map(({ metric }) => metric["__name__"]));
  const end = Date.now() / 1_000;
  const range = { start: String(end - 60), end: String(end), step: "5" };
  let shown = 0;
  for (const { panel, target } of queries) {
    const query = withVariables(target.expr, RATE);
    const found = await queryPrometheus(prometheus, query);
    expect(new Set(found.map(({ metric }) => JSON.stringify(metric))).size, panel).toBe(found.length);
    if (target.instant !== true) await askPrometheus(prometheus, "query_range", { query, ...range });
    for (const family of familiesIn(query)) {
      expect(await askPrometheus(prometheus, "metadata", { metric: family }), family).toHaveProperty(family);
    }
    const named = [...query.matchAll(/\bberth_[a-z_]+/g)].map(([name]) => name);
    if (QUIET.test(query) || !named.every((name) => names.has(name))) continue;
    await world.until(`"${panel}" shows something: ${query}`, async () => {
      const series = await queryPrometheus(prometheus, query);
      return series.length > 0;
    });
    shown += 1;
  }
  expect(shown).toBeGreaterThan(30);
}

/** Checks what two warm Pods cost, each with the default request of 0.1 cores. */
async function idlePodsAreCounted(world: World, prometheus: OwnServer): Promise<void> {
  await world.untilParked(2);
  const all = (await dashboards()).flatMap((board) => queriesOf(board));
  const { target } = all.find(({ panel }) => panel === "CPU of waiting Pods") ?? {};
  const query = withVariables(target?.expr ?? "", RATE);
  await world.until("the requests of idle Pods are counted", async () => {
    const found = await queryPrometheus(prometheus, query);
    const values = Object.fromEntries(found.map(({ metric, value }) => [metric["phase"], Number(value?.[1])]));
    return Math.abs((values["warm"] ?? 0) - 0.2) < 1e-9;
  });
}

test("a real Alertmanager with the example's configuration mutes what another alert explains, and groups the rest", async () => {
  const file = join(ROOT, "examples/monitoring/alertmanager.yaml");
  expect(await runTool(tools.amtool, ["check-config", file])).toContain("SUCCESS");
  await using alertmanager = await startAlertmanager(tools["prometheus-alertmanager"], await readFile(file, "utf8"));
  const alerts = [
    { alertname: "BerthPodParked", namespace: "agents", pod: "berth-research-parked", severity: "none" },
    { alertname: "KubePodNotReady", namespace: "agents", pod: "berth-research-parked" },
    { alertname: "KubeContainerWaiting", namespace: "agents", pod: "berth-research-parked", container: "worker" },
    { alertname: "KubePodCrashLooping", namespace: "agents", pod: "berth-research-parked", container: "proxy" },
    { alertname: "KubePodNotReady", namespace: "agents", pod: "berth-research-pulls" },
    { alertname: "KubePodNotReady", namespace: "web", pod: "berth-research-parked" },
    { alertname: "BerthMostEnvironmentsBlocked", severity: "critical" },
    { alertname: "BerthKeyRejected", namespace: "agents", environment: "research", severity: "warning" },
    { alertname: "BerthKeyRejected", namespace: "agents", environment: "other", severity: "warning", cluster: "east" },
    { alertname: "BerthCapacityShort", namespace: "agents", environment: "research", severity: "warning" },
    { alertname: "BerthCapacityShort", namespace: "web", environment: "shop", severity: "warning" },
  ];
  const posted = await fetch(`${alertmanager.url}/api/v2/alerts`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(alerts.map((labels) => ({ labels }))),
  });
  expect(posted.status).toBe(200);

  interface Alert {
    readonly labels: Readonly<Record<string, string>>;
    readonly status: { readonly state: string };
    readonly receivers: readonly { readonly name: string }[];
  }
  const told = async () => {
    const found = (await (await fetch(`${alertmanager.url}/api/v2/alerts`)).json()) as Alert[];
    return found
      .filter(({ status, receivers }) => status.state === "active" && receivers.some(({ name }) => name === "people"))
      .map(({ labels: { namespace = "", pod, environment = "", alertname } }) => {
        return `${alertname} ${namespace}/${pod ?? environment}`;
      })
      .sort();
  };
  // Alertmanager decides about each group of alerts when it would send it.
  await expect
    .poll(told, { timeout: 60_000 })
    .toEqual([
      "BerthCapacityShort agents/research",
      "BerthCapacityShort web/shop",
      "BerthKeyRejected agents/other",
      "BerthMostEnvironmentsBlocked /",
      "KubePodCrashLooping agents/berth-research-parked",
      "KubePodNotReady agents/berth-research-pulls",
      "KubePodNotReady web/berth-research-parked",
    ]);
  const groups = (await (await fetch(`${alertmanager.url}/api/v2/alerts/groups`)).json()) as { alerts: Alert[] }[];
  const short = groups.filter(({ alerts: [first] }) => first?.labels["alertname"] === "BerthCapacityShort");
  expect(short.map((group) => group.alerts.length)).toEqual([2]);
});
