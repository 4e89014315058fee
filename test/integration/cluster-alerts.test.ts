import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { parse, stringify } from "yaml";
import type { Pod } from "../../src/kube/resource.ts";
import { readPodState } from "../../src/pods/pod-state.ts";
import { isAsleep } from "../../src/pods/turns.ts";
import type { FateInput } from "../../testbed/node/fate.ts";
import { useCluster } from "../support/cluster.ts";
import { serveKubeStateMetrics } from "../support/kube-state-metrics.ts";
import { type AlertRule, useClusterRules, useMonitoringTools } from "../support/monitoring.ts";
import { askPrometheus, queryPrometheus, startPrometheus } from "../support/prometheus.ts";
import { startWorld, type World } from "../support/world.ts";

const cluster = useCluster();
const tools = useMonitoringTools();
const clusterRules = useClusterRules();
const LATER_RULES = join(import.meta.dirname, "..", "fixtures", "alerts", "cluster-rules.yaml");

/** An hour of the rules takes ten seconds. */
const TIME_SCALE = 360;
/** Several in the shortest range of the rules, five minutes. */
const INTERVAL = "200ms";
const UNITS_MS: Readonly<Record<string, number>> = { s: 1_000, m: 60_000, h: 3_600_000 };

interface RuleGroup {
  readonly name: string;
  readonly rules: readonly AlertRule[];
}

const scaled = (duration: string) =>
  duration.replace(/(\d+)([smh])/, (_, count, unit) => `${Math.ceil((count * (UNITS_MS[unit] ?? 0)) / TIME_SCALE)}ms`);

/** The rules with shorter delays and ranges. */
function scaledRules({ name, rules }: RuleGroup): RuleGroup {
  const scaledRule = (rule: AlertRule) => ({
    ...rule,
    expr: rule.expr.replaceAll(/\[\d+[smh]\]/g, scaled),
    ...(rule.for === undefined ? {} : { for: scaled(rule.for) }),
  });
  return { name, rules: rules.map(scaledRule) };
}

function groupOf({ groups }: { groups: readonly RuleGroup[] }, name: string): RuleGroup {
  const group = groups.find((each) => each.name === name);
  if (!group) throw new Error(`no group ${name}`);
  return scaledRules(group);
}

/** Fires when a Pod has had the same phase for two hours. */
const TWO_HOURS: AlertRule = {
  ...{ alert: "TwoHours", expr: "kube_pod_status_phase == 1", for: "2h", labels: {}, annotations: {} },
};

const worldOf = (sessions: Record<string, unknown>) =>
  startWorld(cluster, { sessions: { warm: 1, maxConcurrent: 1, ...sessions }, container: { command: ["worker"] } });

/** Starts an operator, and returns its only Pod, once it waits. Later calls of the function check that it stays. */
async function warmPod(world: World): Promise<() => Pod> {
  await world.createEnvironment();
  await world.startOperator();
  const [warm] = await world.untilParked(1);
  return () => {
    const [pod, ...others] = world.pods;
    if (!pod || others.length > 0 || pod.metadata.uid !== warm?.metadata.uid) throw new Error("the Pod was replaced");
    return pod;
  };
}

/**
 * A session that sleeps after its first work item, and one that works in its second turn. Both last longer than the
 * test.
 */
async function returningSessions(world: World, runOn: () => void): Promise<() => Pod[]> {
  await world.createEnvironment();
  await world.startOperator();
  const serve = async (sessionId?: string) => {
    await world.untilParked(1);
    const item = world.simulator.enqueue(world.environmentId, sessionId ? { sessionId } : {});
    return item.sessionId ?? "";
  };
  const sleeping = (count: number) =>
    world.until("the sessions sleep", () => {
      const asleep = world.pods.filter((pod) => isAsleep(pod) && readPodState(pod).is === "parked");
      return asleep.length === count && asleep;
    });
  await serve();
  await sleeping(1);
  const sessionId = await serve();
  await sleeping(2);
  runOn();
  await serve(sessionId);
  const isIn = (pod: Pod) => isAsleep(pod) || readPodState(pod).is === "running";
  const kept = await world.until("its second turn runs", () => {
    const pods = world.pods.filter(isIn);
    return pods.some((pod) => !isAsleep(pod)) && pods;
  });
  return () => world.pods.filter(({ metadata }) => kept.some((pod) => pod.metadata.uid === metadata.uid));
}

/** The same Pod, as if its readiness probe failed. */
function notReady({ metadata, status = {}, ...pod }: Pod): Pod {
  const conditions =
    status.conditions?.map((each) => (each.type === "Ready" ? { ...each, status: "False" } : each)) ?? [];
  return { ...pod, metadata: { ...metadata, name: "not-ready" }, status: { ...status, conditions } } as Pod;
}

test("a cluster's usual alerts fire in two hours for a Pod that waits for a key, and for no other Pod", async () => {
  const { spec } = parse(await readFile(clusterRules(), "utf8")) as { spec: { groups: RuleGroup[] } };
  const published = groupOf(spec, "kubernetes-apps");
  const later = groupOf(parse(await readFile(LATER_RULES, "utf8")), "cluster");
  await using shellWorld = await worldOf({ parking: "Shell" });
  await using keyWorld = await worldOf({ parking: "Key", parkedMaxAgeSeconds: 0 });
  let fate: FateInput = { kind: "exit", afterMs: 30_000 };
  await using sleepWorld = await startWorld(cluster, {
    node: { fates: () => fate },
    sessions: { warm: 1, maxConcurrent: 2, lease: "Operator", workspace: { type: "Pod", sleepSeconds: 86_400 } },
    container: { command: ["worker"] },
  });
  const [shell, key] = [await warmPod(shellWorld), await warmPod(keyWorld)];
  const returning = await returningSessions(sleepWorld, () => {
    fate = { kind: "run" };
  });
  expect(returning()).toHaveLength(2);
  const pods = () => [shell(), key(), notReady(shell()), ...returning()];
  await using metrics = await serveKubeStateMetrics(pods);
  await using prometheus = await startPrometheus(
    tools.prometheus,
    {
      global: { scrape_interval: INTERVAL, scrape_timeout: INTERVAL, evaluation_interval: INTERVAL },
      scrape_configs: [
        { job_name: "kube-state-metrics", honor_labels: true, static_configs: [{ targets: [metrics.address] }] },
      ],
    },
    {
      "published.yaml": stringify({ groups: [published] }),
      "later.yaml": stringify({ groups: [later] }),
      "end.yaml": stringify({ groups: [scaledRules({ name: "end", rules: [TWO_HOURS] })] }),
    },
  );
  await shellWorld.until("two hours have passed", async () => {
    const ended = await queryPrometheus(prometheus, 'ALERTS{alertname="TwoHours", alertstate="firing"}');
    return ended.length === 5;
  });
  const { groups } = await askPrometheus<{ groups: { rules: { name: string; health: string }[] }[] }>(
    prometheus,
    "rules",
  );
  const unhealthy = groups.flatMap(({ rules }) => rules).filter(({ health }) => health !== "ok");
  expect(unhealthy).toEqual([]);
  // What has fired at any time. The published rules keep the label `job`.
  const seen = async (selected: string) =>
    await queryPrometheus(prometheus, `last_over_time(ALERTS{alertname!="TwoHours", ${selected}}[1h])`);
  const names = new Map([
    [shell().metadata.name, "shell"],
    [key().metadata.name, "key"],
  ]);
  const fired = (await seen('alertstate="firing"')).map(({ metric: { alertname, job, pod = "" } }) => {
    return `${job === undefined ? "later" : "published"} ${alertname} ${names.get(pod) ?? pod}`;
  });
  expect(fired.sort()).toEqual([
    "later KubeContainerWaiting key",
    "later KubePodNotReady key",
    "later KubePodNotReady not-ready",
    "published KubeContainerWaiting key",
    "published KubePodNotReady key",
  ]);
  // Not even about to fire.
  for (const { metadata } of [shell(), ...returning()]) expect(await seen(`pod="${metadata.name}"`)).toEqual([]);
}, 300_000);
