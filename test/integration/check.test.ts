import { describe, expect, test } from "vitest";
import { check } from "../../src/check.ts";
import { type Clock, realClock } from "../../src/core/clock.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { useCluster } from "../support/cluster.ts";

const cluster = useCluster();

/** Time passes so much faster that a minute of patience is a second. */
const HASTE = 60;
const hasty: Clock = {
  now: () => realClock.now(),
  monotonic: () => realClock.monotonic() * HASTE,
  setTimer: (fn, delayMs) => realClock.setTimer(fn, delayMs / HASTE),
};
const LABELS = { app: "berth-operator" };

function checkOf(namespace: string): Promise<void> {
  const deployment = { namespace, name: "berth-operator" };
  const settings = { kubeconfig: cluster.kubeconfig, kubeEnvironment: {}, proxy: {}, deployment, timeoutSeconds: 60 };
  return check(settings, { clock: hasty, logger: silentLogger });
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
    await expect(checkOf(namespace)).rejects.toThrow(`Deployment ${namespace}/berth-operator is not there`);
  });

  test("fails at once where it is scaled to nothing", async () => {
    await expect(checkOf(await deployed(0))).rejects.toThrow(/is scaled to nothing: set its replicas/);
  });

  test("waits for its replicas, and says how many are ready when time is up", async () => {
    await expect(checkOf(await deployed(2))).rejects.toMatchObject({
      code: "CheckFailed",
      message: expect.stringMatching(/has 0 of 2 replicas ready: look at its Pods/),
    });
  });
});
