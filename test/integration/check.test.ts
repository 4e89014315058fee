import { describe, expect, test } from "vitest";
import { type CheckReport, check } from "../../src/commands/check.ts";
import { type Clock, realClock } from "../../src/core/clock.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { useCluster } from "../support/cluster.ts";

const cluster = useCluster();

/** Time passes so much faster. A request of half a minute still has some seconds, on a machine that is busy. */
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

/** A Deployment whose Pods no node takes. */
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

// What it says of an operator that works is in chart-upgrade.test.ts.
describe.concurrent("the check of an operator", () => {
  test("fails where there is none, and names it", async () => {
    const namespace = await cluster.createNamespace("check");
    expect(await checkOf(namespace)).toEqual({
      ok: false,
      deployment: `${namespace}/berth-operator`,
      environments: 0,
      replicas: null,
      problem: `Deployment ${namespace}/berth-operator is not there: install the operator, or name its Deployment`,
    });
  });

  test("fails at once where it is scaled to nothing", async () => {
    expect(await checkOf(await deployed(0))).toMatchObject({
      ok: false,
      replicas: { wanted: 0, ready: 0 },
      problem: expect.stringMatching(/is scaled to nothing: set its replicas/),
    });
  });

  test("waits for its replicas, and says how many are ready when time is up", async () => {
    expect(await checkOf(await deployed(2))).toMatchObject({
      ok: false,
      replicas: { wanted: 2, ready: 0 },
      problem: expect.stringMatching(/has 0 of 2 replicas ready: look at its Pods/),
    });
  });
});
