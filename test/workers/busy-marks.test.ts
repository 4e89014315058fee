import { expect, test } from "vitest";
import { NO_POINTS } from "../../src/core/points.ts";
import { BUSY_COST, BusyWatch } from "../../src/workers/busy-watch.ts";
import type { WorkersContext } from "../../src/workers/context.ts";
import { readWorkerPod } from "../../src/workers/worker-pod.ts";
import { FakeKube } from "../reconcile/fake-kube.ts";
import { podOf } from "./worker-pods.ts";

test("a mark names the worker by its uid", async () => {
  const kube = new FakeKube(() => podOf("a", { cost: BUSY_COST }));
  const environment = () => ({ spec: { workers: { template: {} } } });
  const context = { namespace: "agents", kube: kube.client, points: NO_POINTS, environment };
  const watch = new BusyWatch({
    context: context as unknown as WorkersContext,
    prober: async () => "unknown",
    pods: () => [],
    onChange: () => {},
  });
  expect(await watch.mark(readWorkerPod(podOf("a")), BUSY_COST)).toBe(BUSY_COST);
  expect(kube.calls).toMatchObject([{ verb: "patch", body: { metadata: { uid: "uid-a" } } }]);
});
