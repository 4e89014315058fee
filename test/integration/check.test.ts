import { describe, expect, test } from "vitest";
import { type CheckReport, check } from "../../src/commands/check.ts";
import { type Clock, realClock } from "../../src/core/clock.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { useCluster } from "../support/cluster.ts";

const cluster = useCluster();

/** How much faster time passes. A request timeout of half a minute still leaves some seconds on a busy machine. */
const HASTE = 6;
const hasty: Clock = {
  now: () => realClock.now(),
  monotonic: () => realClock.monotonic() * HASTE,
  setTimer: (fn, delayMs) => realClock.setTimer(fn, delayMs / HASTE),
};
const LABELS = { app: "berth-operator" };

function checkOf(namespace: string): Promise<CheckReport> {
  const deployment = { namespace, name: "berth-operator" };
  const settings = { kubeconfig: cluster.kubeconfig, kubeEnvironment: {}, proxy: {}, deployment, timeoutSeconds: 12 };
  return check({ ...settings, output: "text" }, { clock: hasty, logger: silentLogger });
}

/** A Deployment whose Pods fit no node. */
async function deployed(replicas: number): Promise<string> {
  const namespace = await cluster.createNamespace("check");
  const containers = [{ name: "berth", image: "berth" }];
  await cluster.api.create(`/apis/apps/v1/namespaces/${namespace}/deployments`, {
    metadata: { name: "berth-operator" },
    spec: {
      replicas,
      selector: { matchLabels: LABELS },
      template: { metadata: { labels: LABELS }, spec: { nodeSelector: { node: "none" }, containers } },
    },
  });
  return namespace;
}

// The report about a working operator is tested in chart-upgrade.test.ts.
describe.concurrent("the check of an operator", () => {
  test("fails when there is no operator, and names its Deployment", async () => {
    const namespace = await cluster.createNamespace("check");
    expect(await checkOf(namespace)).toEqual({
      ok: false,
      deployment: `${namespace}/berth-operator`,
      environments: 0,
      replicas: null,
      problem: `Deployment ${namespace}/berth-operator does not exist; install the operator, or name its Deployment`,
    });
  });

  test("fails immediately when the operator is scaled to zero", async () => {
    expect(await checkOf(await deployed(0))).toMatchObject({
      ok: false,
      replicas: { wanted: 0, ready: 0 },
      problem: expect.stringMatching(/is scaled to 0 replicas; set its replicas/),
    });
  });

  test("waits for the replicas, and reports how many are ready at the timeout", async () => {
    expect(await checkOf(await deployed(2))).toMatchObject({
      ok: false,
      replicas: { wanted: 2, ready: 0 },
      problem: expect.stringMatching(/has 0 of 2 replicas ready; check its Pods/),
    });
  });
});
