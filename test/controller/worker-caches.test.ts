import { expect, test } from "vitest";
import { WorkerCaches } from "../../src/controller/worker-caches.ts";
import { KubeClient } from "../../src/kube/client.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { createMetrics } from "../../src/observe/metrics.ts";
import { FakeApiServer, send } from "../kube/api-server.ts";
import { settled, until } from "../kube/until.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const MESSAGE = "deployments.apps is forbidden";

test("does not make a namespace's workers wait for another namespace's lists, or show its errors, which it reports", async () => {
  await using server = await FakeApiServer.start();
  let isForbidden = true;
  server.scripts.push((seen, response) => {
    if (!isForbidden || !seen.path.includes("namespaces/gone/deployments")) return false;
    send(response, 403, { kind: "Status", status: "Failure", reason: "Forbidden", code: 403, message: MESSAGE });
    return true;
  });
  for (const namespace of ["gone", "kept"]) {
    server.put(`/apis/apps/v1/namespaces/${namespace}/deployments/berth-research-1`, {
      metadata: {
        name: "berth-research-1",
        namespace,
        labels: { "berth.dev/role": "worker", "berth.dev/environment": "research" },
      },
      spec: {},
    });
  }
  const clock = new VirtualClock();
  const client = new KubeClient({ access: server.access });
  const common = { client, clock, random: Math.random, logger: silentLogger, metrics: createMetrics() };
  const caches = new WorkerCaches(common, (make) => ["gone", "kept"].map(make));
  caches.renew();
  const ending = new AbortController();
  const running = caches.run(ending.signal, () => {});

  const kept = caches.of({ namespace: "kept", name: "research" });
  await settled(clock, kept.synced);
  expect(kept.deployments.list().map(({ metadata }) => metadata.namespace)).toEqual(["kept"]);
  const gone = caches.of({ namespace: "gone", name: "research" });
  await until(clock, () => gone.problem() !== null);
  expect(gone.problem()).toContain(MESSAGE);
  expect(kept.problem()).toBeNull();
  isForbidden = false;
  await settled(clock, gone.synced);
  expect(gone.deployments.list()).toHaveLength(1);
  expect(gone.problem()).toBeNull();

  // Later, too.
  isForbidden = true;
  caches.renew();
  await until(clock, () => gone.problem() !== null);
  expect(gone.problem()).toContain(MESSAGE);

  ending.abort();
  await running;
  await client.close();
});
