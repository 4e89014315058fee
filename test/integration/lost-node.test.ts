import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { realClock } from "../../src/core/clock.ts";
import { KubeClient } from "../../src/kube/client.ts";
import { loadKubeConfig } from "../../src/kube/config.ts";
import type { ContainerStatus, Pod, PodStatus } from "../../src/kube/objects.ts";
import { PODS } from "../../src/kube/resource.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { createMetrics } from "../../src/observe/metrics.ts";
import { FATE_ANNOTATION, type FateInput, startNode } from "../../testbed/node/node.ts";
import { useCluster } from "../support/cluster.ts";
import { LateInformer } from "../support/late-informer.ts";
import { sequence } from "../testbed/node/recorded-sequences.ts";

/**
 * Pod lives that end with their node, produced by the real node controller. The recordings come from a real kubelet and
 * the same controller. Other recordings are played without an API server: test/testbed/node/recorded-sequences.test.ts.
 */
const cluster = useCluster();
/** Far more than any step takes: the node controller waits 40 s before it treats a node as lost. */
const PATIENCE_MS = 180_000;
const NODE_NAME = "lost-recorded-test";

const ENDS_WHEN_TOLD: FateInput = { kind: "run", onTerm: { code: 143 } };
/** What the recorded Pods' containers did, and the state they reached before their node was lost. */
const LIVES: Record<string, { fates: Record<string, FateInput>; isReached: (pod: Pod) => boolean }> = {
  "lost-running": { fates: { c: ENDS_WHEN_TOLD }, isReached: (pod) => state(pod)?.running !== undefined },
  "lost-parked": {
    fates: { c: ENDS_WHEN_TOLD },
    isReached: (pod) => state(pod)?.waiting?.reason === "CreateContainerConfigError",
  },
  "lost-finished": {
    fates: { c: { kind: "exit", afterMs: 500 } },
    isReached: ({ status }) => status?.phase === "Succeeded",
  },
};

let client: KubeClient;
let namespace: string;
let pods: LateInformer<Pod>;
const watching = new AbortController();
/** Every state that a watch showed, by Pod name. */
const histories = new Map<string, Pod[]>();

beforeAll(async () => {
  client = new KubeClient({ access: loadKubeConfig(cluster.kubeconfig) });
  namespace = await cluster.createNamespace("lost");
  const common = { client, namespace, clock: realClock, logger: silentLogger, metrics: createMetrics() };
  pods = new LateInformer({ ...common, resource: PODS });
  pods.subscribe(({ object }) => {
    const { name = "" } = object.metadata;
    histories.set(name, [...(histories.get(name) ?? []), object]);
  });
  void pods.run(watching.signal);
});

afterAll(async () => {
  watching.abort();
  await client?.close();
});

interface State {
  readonly metadata: {
    readonly deletionTimestamp?: string | undefined;
    readonly deletionGracePeriodSeconds?: number | undefined;
  };
  readonly status?: PodStatus | undefined;
}

/** What Berth can derive from one state of a Pod. */
function essence({ metadata, status }: State): Record<string, unknown> {
  const condition = (type: string) => status?.conditions?.find((one) => one.type === type);
  const ready = condition("Ready");
  const states = (all: readonly ContainerStatus[] = []) =>
    all.map(({ state = {} }) => {
      const { waiting, running, terminated } = state;
      if (terminated) return `${terminated.reason} ${terminated.exitCode}`;
      return running ? "running" : waiting?.reason;
    });
  return {
    phase: status?.phase,
    reason: status?.reason ?? "",
    ready: ready && `${ready.status} ${ready.reason ?? ""}`,
    disrupted: condition("DisruptionTarget")?.reason ?? "",
    deleted: metadata.deletionTimestamp === undefined ? "" : `grace ${metadata.deletionGracePeriodSeconds}`,
    init: states(status?.initContainerStatuses),
    containers: states(status?.containerStatuses),
  };
}

/** The states without repetitions in `essence`. */
function essences(states: readonly State[]): Record<string, unknown>[] {
  const seen = states.map(essence);
  return seen.filter((state, at) => JSON.stringify(state) !== JSON.stringify(seen[at - 1]));
}

const last = (name: string) => histories.get(name)?.at(-1);
const state = ({ status }: Pod) => status?.containerStatuses?.[0]?.state;
const isThere = (name: string) => pods.list().some(({ metadata }) => metadata.name === name);

function every(wanted: (name: string) => boolean | undefined): Promise<void> {
  return expect.poll(() => Object.keys(LIVES).filter((name) => !wanted(name)), { timeout: PATIENCE_MS }).toEqual([]);
}

describe("a node that is lost and comes back", () => {
  test("takes each Pod through the same states as a real one", { timeout: 2 * PATIENCE_MS }, async () => {
    // Without a healthy node, the controller assumes that the fault is its own, and evicts no Pods.
    const taints = [{ key: "example.com/nobody", effect: "NoSchedule" }];
    await using _other = await startNode({ client: cluster.nodeKubeconfig, name: "well-recorded-test", taints });
    await using node = await startNode({ client: cluster.nodeKubeconfig, name: NODE_NAME, seed: 3 });
    for (const [name, { fates }] of Object.entries(LIVES)) {
      const own = Object.entries(fates).map(([container, fate]) => [
        `${FATE_ANNOTATION}.${container}`,
        JSON.stringify(fate),
      ]);
      const nodeSelector = { "kubernetes.io/hostname": NODE_NAME };
      const metadata = { name, namespace, annotations: Object.fromEntries(own) };
      await client.create(PODS, { metadata, spec: { ...sequence(name).spec, nodeSelector } });
    }
    await every((name) => {
      const pod = last(name);
      return pod && LIVES[name]?.isReached(pod);
    });
    node.fail();
    await every((name) => !isThere(name) || last(name)?.metadata.deletionTimestamp !== undefined);
    await node.recover();
    await every((name) => !isThere(name));
    for (const name of Object.keys(LIVES)) {
      expect({ name, states: essences(histories.get(name) ?? []) }).toEqual({
        name,
        states: essences(sequence(name).steps),
      });
    }
  });
});
