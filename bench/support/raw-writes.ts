import { realClock } from "../../src/core/clock.ts";
import { KubeClient } from "../../src/kube/client.ts";
import { loadKubeConfig } from "../../src/kube/config.ts";
import { EVENTS, PODS, SECRETS } from "../../src/kube/resource.ts";
import type { FromWriter, RawInput } from "./raw.ts";

/**
 * The limit that throughput is held against: the writes of served sessions, one after the other in so many lanes, and
 * nothing else. A lane takes a parked Pod, creates its Secret, gives it the key, touches the Pod and makes another one; of a
 * session that has ended it deletes Secret and Pod. Nothing is polled, acknowledged, watched or decided. A process of its
 * own, as the operator is. Input: one JSON argument. It serves what does not count, says `ready`, serves the rest when it is
 * told to, and tells how long that took.
 */
const input = JSON.parse(process.argv[2] ?? "{}") as RawInput;
const { kubeconfig, namespace, podNames, pod, warmUp, count, lanes, podPatches, events, sessionMs } = input;
const kube = new KubeClient({ access: loadKubeConfig(kubeconfig), clock: realClock });
const parked = [...podNames];
const over: { readonly name: string; readonly atMs: number }[] = [];
/** About as long as a journal. */
const SECRET_CHARACTERS = 600;
const DEADLINE_S = 86_400;
let made = 0;

process.once("message", () => void run());
process.once("disconnect", () => process.exit(1));
await serveAll(warmUp);
tell("ready");

async function run(): Promise<void> {
  const startedAt = performance.now();
  await serveAll(count);
  tell({ tookMs: performance.now() - startedAt });
}

function tell(what: FromWriter): void {
  process.send?.(what);
}

async function serveAll(sessions: number): Promise<void> {
  let left = sessions;
  await Promise.all(Array.from({ length: lanes }, () => lane(() => left-- > 0)));
}

async function lane(isAnother: () => boolean): Promise<void> {
  while (isAnother()) {
    await serve(parked.shift() ?? "");
    await renew();
    const [first] = over;
    if (first && performance.now() >= first.atMs) {
      over.shift();
      await clear(first.name);
    }
  }
}

async function serve(name: string): Promise<void> {
  const text = "0".repeat(SECRET_CHARACTERS);
  const secret = await kube.create(SECRETS, { metadata: { name, namespace }, stringData: { journal: text } });
  const { uid, resourceVersion } = secret.metadata;
  const opened = { metadata: { uid, resourceVersion }, data: { "work-secret": Buffer.from(name).toString("base64") } };
  await kube.patch(SECRETS, { namespace, name }, opened, { type: "merge" });
  await mark(name, "assigned");
  over.push({ name, atMs: performance.now() + sessionMs });
}

async function renew(): Promise<void> {
  made += 1;
  const name = `${podNames[0]}-${made}`;
  await kube.create(PODS, { ...pod, metadata: { ...pod.metadata, name }, spec: renamed(name) });
  parked.push(name);
}

/** A parked Pod waits for the Secret of its own name. */
function renamed(name: string): typeof pod.spec {
  return JSON.parse(JSON.stringify(pod.spec).replaceAll(pod.metadata.name ?? "", name)) as typeof pod.spec;
}

async function clear(name: string): Promise<void> {
  for (let patched = 1; patched < podPatches; patched += 1) await mark(name, `finished-${patched}`);
  for (let told = 0; told < events; told += 1) await record(name, told);
  await kube.delete(SECRETS, { namespace, name });
  await kube.delete(PODS, { namespace, name });
}

async function mark(name: string, phase: string): Promise<void> {
  const patch = { metadata: { labels: { "berth.dev/phase": phase } }, spec: { activeDeadlineSeconds: DEADLINE_S } };
  await kube.patch(PODS, { namespace, name }, patch, { type: "merge" });
}

async function record(name: string, at: number): Promise<void> {
  const involvedObject = { kind: "Pod", namespace, name };
  const metadata = { name: `${name}.${at}`, namespace };
  await kube.create(EVENTS, { metadata, involvedObject, type: "Normal", reason: "Bench", message: "a raw write" });
}
