import { afterAll, beforeAll, expect, test } from "vitest";
import { realClock } from "../../src/core/clock.ts";
import { KubeClient } from "../../src/kube/client.ts";
import { loadKubeConfig } from "../../src/kube/config.ts";
import { EventRecorder } from "../../src/kube/events.ts";
import { CONFIG_MAPS, EVENTS, type KubeObject } from "../../src/kube/resource.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { useCluster } from "../support/cluster.ts";

const cluster = useCluster();
let client: KubeClient;
let recorder: EventRecorder;
let subject: KubeObject;

beforeAll(async () => {
  client = new KubeClient({ access: loadKubeConfig(cluster.kubeconfig) });
  recorder = new EventRecorder({ client, clock: realClock, logger: silentLogger, instance: "berth-0" });
  const namespace = await cluster.createNamespace("events");
  subject = await client.create(CONFIG_MAPS, { metadata: { name: "subject", namespace } });
});

afterAll(() => client.close());

/** Lists Events as kubectl describe does. */
async function described() {
  const { namespace, name, uid } = subject.metadata;
  const fieldSelector = `involvedObject.name=${name},involvedObject.namespace=${namespace},involvedObject.kind=ConfigMap,involvedObject.uid=${uid}`;
  const { items } = await client.list(EVENTS, { namespace, fieldSelector });
  return items.map(({ type, reason, message, count }) => `${type} ${reason} x${count}: ${message}`).sort();
}

test("finds Events by their object, and raises the count of a repeated one", async () => {
  recorder.event(subject, "Warning", "SessionFailed", "exit code 1");
  recorder.event(subject, "Normal", "SessionStarted", "first session");
  await recorder.flush();
  expect(await described()).toEqual([
    "Normal SessionStarted x1: first session",
    "Warning SessionFailed x1: exit code 1",
  ]);
  recorder.event(subject, "Warning", "SessionFailed", "exit code 1");
  recorder.event(subject, "Warning", "SessionFailed", "exit code 1");
  recorder.event(subject, "Warning", "SessionFailed", "exit code 2");
  await recorder.flush();
  expect(await described()).toEqual([
    "Normal SessionStarted x1: first session",
    "Warning SessionFailed x1: exit code 2",
    "Warning SessionFailed x3: exit code 1",
  ]);
});

test("the API server accepts the longest message, and an Event about a cluster-scoped object", async () => {
  const namespace = await client.raw("GET", "/api/v1/namespaces/default");
  recorder.event(namespace as KubeObject, "Normal", "Noted", "ü".repeat(3_000));
  await recorder.flush();
  const { items } = await client.list(EVENTS, { namespace: "default", fieldSelector: "reason=Noted" });
  expect(items.map(({ message }) => message?.length)).toEqual([1_024]);
});
