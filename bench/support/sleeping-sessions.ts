import { randomUUID } from "node:crypto";
import type { Simulator } from "../../simulator/simulator.ts";
import { parseEnvironment } from "../../src/api/environment.ts";
import { ANNOTATION_WORK_ID, LABEL_WORK_ID, toLabelValue } from "../../src/api/names.ts";
import { PODS } from "../../src/kube/resource.ts";
import { newPodName, sessionTemplate } from "../../src/pods/pod-render.ts";
import { sleepPatch } from "../../src/pods/sleep-mark.ts";
import { renderTurn, turnName } from "../../src/pods/turns.ts";
import { ENVIRONMENTS } from "../../src/reconcile/finalizer.ts";
import { NODE_NAME, runningStatus, writeEach } from "./live-sessions.ts";
import type { Stand } from "./stand.ts";

/** Longer than any measurement. */
const SLEEP_SECONDS = 86_400;

/** `spec.sessions` of an Environment whose sessions sleep. */
export function sleepySessions(maxConcurrent: number, more: Readonly<Record<string, unknown>> = {}) {
  const template = { spec: { containers: [{ name: "worker", image: "worker:1", command: ["worker"] }] } };
  return { maxConcurrent, workspace: { type: "Pod", sleepSeconds: SLEEP_SECONDS }, template, ...more };
}

/** Environments, and the number of sessions that sleep in each. */
export interface SleepingStage {
  readonly namespace: string;
  readonly environments: readonly string[];
  readonly sleepingInEach: number;
}

export async function createSleepyEnvironments(
  stand: Stand,
  simulator: Simulator,
  { namespace, environments, sleepingInEach }: SleepingStage,
): Promise<void> {
  for (const name of environments) {
    const { id: environmentId } = simulator.createEnvironment();
    const served = { namespace, name, simulator, environmentId };
    await stand.environment(served, { sessions: sleepySessions(sleepingInEach, { warm: 0 }) });
  }
}

/** Writes Pods as an operator leaves them after a session's first work item, with the status that a kubelet reports. */
export async function writeSleepingPods(stand: Stand, stage: SleepingStage): Promise<void> {
  const writers = await Promise.all(stage.environments.map((name) => podWriter(stand, stage.namespace, name)));
  const waiting = writers.flatMap((write) => Array.from({ length: stage.sleepingInEach }, () => write));
  await writeEach(waiting, (write) => write());
}

async function podWriter(stand: Stand, namespace: string, name: string): Promise<() => Promise<void>> {
  const parsed = parseEnvironment(await stand.kube.get(ENVIRONMENTS, { namespace, name }));
  if (!parsed.ok) throw new Error(parsed.problems.join("; "));
  const { environment } = parsed;
  const template = sessionTemplate(environment);
  return async () => {
    const { kube } = stand;
    const rendered = template.render(newPodName(name));
    const created = await kube.create(PODS, { ...rendered, spec: { ...rendered.spec, nodeName: NODE_NAME } });
    const ref = { namespace, name: created.metadata.name ?? "" };
    const ephemeralContainers = [renderTurn(created, 1), renderTurn(created, 2)];
    const turned = await kube.patch(
      PODS,
      ref,
      { spec: { ephemeralContainers } },
      { type: "strategic", subresource: "ephemeralcontainers" },
    );
    const status = runningStatus(turned, Date.now(), turnName(1));
    const shown = await kube.patch(PODS, ref, { status }, { type: "merge", subresource: "status" });
    const workId = `work_${randomUUID()}`;
    const slept = { sessionId: `session_${randomUUID()}`, endedTurn: 1 };
    const { metadata } = sleepPatch(shown, slept, environment, Date.now());
    const labels = { ...metadata.labels, [LABEL_WORK_ID]: toLabelValue(workId) };
    const annotations = { ...metadata.annotations, [ANNOTATION_WORK_ID]: workId };
    await kube.patch(PODS, ref, { metadata: { ...metadata, labels, annotations } }, { type: "merge" });
  };
}
