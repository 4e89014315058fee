import {
  ANNOTATION_SESSION_ID,
  ANNOTATION_WORK_ID,
  LABEL_PHASE,
  LABEL_SESSION_ID,
  LABEL_WORK_ID,
  toLabelValue,
} from "../../src/api/names.ts";
import { realClock } from "../../src/core/clock.ts";
import { KubeClient } from "../../src/kube/client.ts";
import { loadKubeConfig } from "../../src/kube/config.ts";
import { EVENTS, PODS, SECRETS } from "../../src/kube/resource.ts";
import { openingPatch, renderJournal } from "../../src/protocol/journal.ts";
import type { Acknowledged, RawInput } from "./raw.ts";

/**
 * The baseline for throughput: the writes of served sessions, one after the other in each of several lanes, and nothing
 * else. A lane takes a parked Pod, creates its Secret, adds the key, touches the Pod, and creates another one. It
 * deletes the Secret and the Pod of each session that has ended. It polls, acknowledges, watches, and decides nothing,
 * because its items are already acknowledged. Like the operator, it runs in its own process. It takes one JSON
 * argument, then items in messages. It answers each message with how long the sessions took, in milliseconds.
 */
const input = JSON.parse(process.argv[2] ?? "{}") as RawInput;
const { kubeconfig, namespace, podNames, pod, lanes, podPatches, events, sessionMs } = input;
const kube = new KubeClient({ access: loadKubeConfig(kubeconfig), clock: realClock });
const parked = [...podNames];
const over: { readonly name: string; readonly atMs: number }[] = [];
const DEADLINE_S = 86_400;
let made = 0;
let cleared = 0;

process.on("message", (items: Acknowledged[]) => void serveAll(items));
process.once("disconnect", () => process.exit(1));

async function serveAll(items: Acknowledged[]): Promise<void> {
  const startedAt = performance.now();
  await Promise.all(Array.from({ length: lanes }, () => lane(items)));
  process.send?.(performance.now() - startedAt);
}

async function lane(items: Acknowledged[]): Promise<void> {
  for (let item = items.shift(); item; item = items.shift()) {
    await serve(parked.shift() ?? "", item);
    await renew();
    const [first] = over;
    if (first && performance.now() >= first.atMs) {
      over.shift();
      await clear(first.name);
    }
  }
}

async function serve(name: string, { workId, sessionId, workSecret }: Acknowledged): Promise<void> {
  const nowMs = Date.now();
  const { uid: podUid = "" } = pod.metadata;
  const journal = {
    ...({ use: "session", lease: "Worker", environmentUid: podUid, podUid, workId, sessionId } as const),
    ...{ queuedAt: new Date(nowMs).toISOString(), polledFromMs: nowMs, polledUntilMs: nowMs },
  };
  const secret = await kube.create(SECRETS, renderJournal({ name, namespace, environment: "raw" }, journal, ""));
  const { uid = "", resourceVersion = "" } = secret.metadata;
  const credential = Buffer.from(workSecret).toString("base64");
  const opening = openingPatch({ uid, resourceVersion }, credential, journal.queuedAt);
  await kube.patch(SECRETS, { namespace, name }, opening, { type: "merge" });
  await mark(name, {
    labels: {
      [LABEL_PHASE]: "running",
      [LABEL_WORK_ID]: toLabelValue(workId),
      [LABEL_SESSION_ID]: toLabelValue(sessionId),
    },
    annotations: { [ANNOTATION_WORK_ID]: workId, [ANNOTATION_SESSION_ID]: sessionId },
  });
  over.push({ name, atMs: performance.now() + sessionMs });
}

async function renew(): Promise<void> {
  made += 1;
  const name = `${podNames[0]}-${made}`;
  await kube.create(PODS, { ...pod, metadata: { ...pod.metadata, name }, spec: renamed(name) });
  parked.push(name);
}

/** A parked Pod waits for the Secret with its own name. */
function renamed(name: string): typeof pod.spec {
  return JSON.parse(JSON.stringify(pod.spec).replaceAll(pod.metadata.name ?? "", name)) as typeof pod.spec;
}

async function clear(name: string): Promise<void> {
  const at = cleared;
  cleared += 1;
  const more = share(podPatches - 1, at);
  for (let patched = 1; patched <= more; patched += 1)
    await mark(name, { labels: { [LABEL_PHASE]: `finished-${patched}` } });
  const told = share(events, at);
  for (let event = 0; event < told; event += 1) await record(name, event);
  await kube.delete(SECRETS, { namespace, name });
  await kube.delete(PODS, { namespace, name });
}

/** Distributes an average as whole numbers: returns how many the session at this index gets. */
function share(average: number, at: number): number {
  return Math.floor((at + 1) * average) - Math.floor(at * average);
}

async function mark(name: string, metadata: Readonly<Record<string, unknown>>): Promise<void> {
  const patch = { metadata, spec: { activeDeadlineSeconds: DEADLINE_S } };
  await kube.patch(PODS, { namespace, name }, patch, { type: "merge" });
}

async function record(name: string, at: number): Promise<void> {
  const involvedObject = { kind: "Pod", namespace, name };
  const metadata = { name: `${name}.${at}`, namespace };
  await kube.create(EVENTS, { metadata, involvedObject, type: "Normal", reason: "Bench", message: "a raw write" });
}
