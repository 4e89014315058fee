import { parseEnvironment } from "../../src/api/environment.ts";
import {
  ANNOTATION_DO_NOT_DISRUPT,
  ANNOTATION_SAFE_TO_EVICT,
  ANNOTATION_SESSION_ID,
  ANNOTATION_WORK_ID,
  API_VERSION,
  KEY_ACKNOWLEDGED_AT,
  KEY_WORK_SECRET,
  KIND,
  LABEL_PHASE,
  LABEL_SESSION_ID,
  LABEL_WORK_ID,
  toLabelValue,
} from "../../src/api/names.ts";
import { realClock } from "../../src/core/clock.ts";
import { KubeClient } from "../../src/kube/client.ts";
import { loadKubeConfig } from "../../src/kube/config.ts";
import { PODS, type Pod, SECRETS, type Secret } from "../../src/kube/resource.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { newPodName, type SessionTemplate, sessionTemplate } from "../../src/pods/pod-render.ts";
import { renderJournal } from "../../src/protocol/journal.ts";
import { ENVIRONMENTS } from "../../src/reconcile/finalizer.ts";
import { NODE } from "../../testbed/cluster/users.ts";
import { newRecords } from "../../testbed/node/container-record.ts";
import { KubeletServer, type KubeletServerOptions } from "../../testbed/node/kubelet-server.ts";
import { renderStatus } from "../../testbed/node/pod-status.ts";
import { Registration } from "../../testbed/node/registration.ts";
import type { LiveEnvironment, LiveItem, LiveWork } from "./live-work.ts";
import type { Stand } from "./stand.ts";

/**
 * The heap size that Node chooses in a container with the chart's memory limit, 512 MiB. Outside a container, V8 may
 * use gigabytes and collects no garbage until it needs to.
 */
export const HEAP_OF_CHART = ["--max-heap-size=259"] as const;

/** A Node whose Pods nothing runs. */
export const NODE_NAME = "bench-node";
/** The number of sessions to write at the same time. Each takes some requests, one after the other. */
const CONCURRENCY = 32;
const DAY_SECONDS = 86_400;

/** Environments with live sessions. */
export interface LiveStage {
  readonly namespace: string;
  /** Flags for an operator that handles only these Environments. */
  readonly flags: readonly string[];
  /** Writes what the previous operator left of all sessions: running Pods and opened Secrets. */
  writeSessions(): Promise<void>;
}

/** Creates an Environment without sessions for each environment of the Work API, and a node for their Pods. */
export async function prepareLiveStage(stand: Stand, work: LiveWork, things: AsyncDisposableStack): Promise<LiveStage> {
  await registerNode(stand, things);
  const namespace = await stand.namespace("live");
  const templates: { readonly name: string; readonly template: SessionTemplate; readonly of: LiveEnvironment }[] = [];
  for (const [at, of] of work.environments.entries()) {
    const name = `live-${at}`;
    templates.push({ name, template: await createEnvironment(stand, { namespace, name, url: work.url, of }), of });
  }
  return {
    namespace,
    flags: ["--namespace", namespace],
    async writeSessions() {
      const waiting = templates.flatMap(({ of, ...rest }) => of.items.map((item) => ({ ...rest, item })));
      const nowMs = Date.now();
      await writeEach(waiting, (next) => writeSession(stand.kube, { ...next, namespace, nowMs }));
    },
  };
}

/** Calls `write` for each item, for some of them at the same time. */
export async function writeEach<T>(items: readonly T[], write: (item: T) => Promise<void>): Promise<void> {
  const rest = items.values();
  const lane = async () => {
    for (const item of rest) await write(item);
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, lane));
}

/**
 * Registers a Node that reports itself as ready. No kubelet runs behind it, so its Pods don't change.
 * @param find returns the Pods whose containers can be attached to; without it, every attach fails
 */
export async function registerNode(
  stand: Stand,
  things: AsyncDisposableStack,
  find?: KubeletServerOptions["find"],
): Promise<void> {
  const access = loadKubeConfig(await stand.cluster.kubeconfigFor(NODE));
  const client = new KubeClient({ access, clock: realClock });
  things.defer(() => client.close());
  const capacity = { pods: 100_000 };
  const options = { client, clock: realClock, logger: silentLogger, name: NODE_NAME, capacity, labels: {}, taints: [] };
  const registration = new Registration(options);
  if (find) {
    const server = things.adopt(new KubeletServer({ find }), (each) => each.close());
    await server.listen((await registration.clientAuthority()) ?? "");
    registration.kubeletPort = server.port;
  }
  await registration.register();
  const ending = new AbortController();
  const beating = registration.heartbeat(ending.signal);
  things.defer(async () => {
    ending.abort();
    await beating;
  });
}

interface Made {
  readonly namespace: string;
  readonly name: string;
  readonly url: string;
  readonly of: LiveEnvironment;
}

async function createEnvironment(stand: Stand, { namespace, name, url, of }: Made): Promise<SessionTemplate> {
  const keySecretRef = { name: `${name}-key` };
  await stand.kube.create(SECRETS, {
    metadata: { namespace, name: keySecretRef.name },
    stringData: { "environment-key": of.key },
  });
  const template = { spec: { containers: [{ name: "worker", image: "worker:1" }] } };
  const created = await stand.kube.create(ENVIRONMENTS, {
    apiVersion: API_VERSION,
    kind: KIND,
    metadata: { name, namespace },
    spec: {
      environmentId: of.id,
      api: { baseUrl: url, keySecretRef },
      sessions: { maxConcurrent: Math.max(1, of.items.length), lease: "Operator", template },
    },
  } as never);
  const parsed = parseEnvironment(created);
  if (!parsed.ok) throw new Error(parsed.problems.join("; "));
  return sessionTemplate(parsed.environment);
}

export interface Session {
  readonly namespace: string;
  /** The name of the Environment. */
  readonly name: string;
  readonly template: SessionTemplate;
  readonly item: LiveItem;
  readonly nowMs: number;
}

/**
 * Writes the Pod and the Secret as claim, opening, and touch leave them, with the status that the kubelet would report.
 */
async function writeSession(kube: KubeClient, session: Session): Promise<void> {
  const { namespace, nowMs } = session;
  const pod = await kube.create(PODS, assignedPod(session));
  await kube.patch(
    PODS,
    { namespace, name: pod.metadata.name ?? "" },
    { status: runningStatus(pod, nowMs) },
    { type: "merge", subresource: "status" },
  );
  await kube.create(SECRETS, journalOf(session, pod));
}

/** @param pod the Pod as it was created */
export function journalOf({ namespace, name, item }: Session, pod: Pod): Secret {
  const secret = renderJournal(
    { name: pod.metadata.name ?? "", namespace, environment: name },
    {
      use: "session",
      lease: "Operator",
      environmentUid: pod.metadata.ownerReferences?.[0]?.uid ?? "",
      podUid: pod.metadata.uid ?? "",
      workId: item.workId,
      sessionId: item.sessionId,
      queuedAt: item.queuedAt,
      polledFromMs: Math.floor(item.polledMs),
      polledUntilMs: Math.ceil(item.polledMs),
    },
    null,
  );
  const opened = { [KEY_WORK_SECRET]: item.secret, [KEY_ACKNOWLEDGED_AT]: item.acknowledgedAt };
  return { ...secret, stringData: { ...secret.stringData, ...opened } };
}

export function assignedPod({ name, template, item }: Session): Pod {
  const pod = template.render(newPodName(name));
  const { labels, annotations } = pod.metadata;
  return {
    ...pod,
    metadata: {
      ...pod.metadata,
      labels: {
        ...labels,
        [LABEL_PHASE]: "running",
        [LABEL_WORK_ID]: toLabelValue(item.workId),
        [LABEL_SESSION_ID]: toLabelValue(item.sessionId),
      },
      annotations: {
        ...annotations,
        [ANNOTATION_WORK_ID]: item.workId,
        [ANNOTATION_SESSION_ID]: item.sessionId,
        [ANNOTATION_SAFE_TO_EVICT]: "false",
        [ANNOTATION_DO_NOT_DISRUPT]: "true",
      },
    },
    spec: { ...pod.spec, nodeName: NODE_NAME, activeDeadlineSeconds: 2 * DAY_SECONDS },
  };
}

/**
 * The status that the kubelet reports for a Pod whose containers run.
 * @param ended the name of a container that has ended
 */
export function runningStatus(pod: Pod, nowMs: number, ended?: string) {
  const startedAt = new Date(nowMs).toISOString().replace(/\.\d+Z$/, "Z");
  const records = newRecords(pod);
  for (const record of records) {
    const containerID = `containerd://${pod.metadata.uid?.replaceAll("-", "").repeat(2)}`;
    const end = { exitCode: 0, reason: "Completed", startedAt, finishedAt: startedAt, containerID };
    record.state = record.spec.name === ended ? { terminated: end } : { running: { startedAt } };
    record.containerID = containerID;
  }
  return renderStatus({
    ...{ pod, records, nowMs, startTimeMs: nowMs, podIP: "10.0.0.1", sandbox: "ready", verdict: undefined },
    ...{ mayRun: true, settled: false, gone: false, previous: undefined },
  });
}
