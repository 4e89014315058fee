import { request } from "undici";
import { realClock } from "../../src/core/clock.ts";
import { KubeClient } from "../../src/kube/client.ts";
import { loadKubeConfig } from "../../src/kube/config.ts";
import { PODS, type Pod, SECRETS } from "../../src/kube/resource.ts";
import { programFrame, type SessionVariables, STARTED_MARKER, shellFrame } from "../../src/pods/frame.ts";
import { WorkApiClient } from "../../src/work/client.ts";
import { WorkHttp } from "../../src/work/http.ts";
import type { WorkItem } from "../../src/work/types.ts";
import type { BareInput, BareMessage, BareStart } from "./bare.ts";
import { SANDBOX_PORT } from "./plain-pods.ts";
import { CONTAINER, WORKER_COMMAND } from "./worker.ts";

/**
 * The floor of a start: the same requests in the same order over the same libraries, and nothing else. For each message
 * it polls until it has an item, creates the Secret, reads the Pod, acknowledges, patches the Secret and the Pod in
 * parallel, and delivers the session to the Pod. It has no recovery, no rules, and no watch. Like the operator, it runs
 * in its own process.
 */
const { kubeconfig } = JSON.parse(process.argv[2] ?? "{}") as BareInput;
const kube = new KubeClient({ access: loadKubeConfig(kubeconfig), clock: realClock });
const http = new WorkHttp({ clock: realClock });
const STARTED_WITHIN_MS = 60_000;
const clients = new Map<string, WorkApiClient>();
process.on("message", (start: BareStart) => void serve(start));
process.once("disconnect", () => process.exit(0));

async function serve(start: BareStart): Promise<void> {
  const work = clientOf(start);
  const { way, namespace, pod } = start;
  const name = pod.metadata.name ?? "";
  const at = { namespace, name };
  const isAttached = way === "shell" || way === "program";
  const ahead = isAttached && start.isAhead ? await kube.attach(at, { container: CONTAINER }) : undefined;
  // Idle connections are closed after a while. Those of an operator that serves many Environments are open.
  await Promise.all([kube.list(PODS, { namespace }), kube.list(PODS, { namespace })]);

  const item = await poll(work);
  const variables = variablesOf(item);
  const data = { "work-id": item.id, "session-id": item.data.id };
  const labels = { "berth.dev/environment": "bench", "berth.dev/role": "session" };
  await kube.create(SECRETS, {
    metadata: { name, namespace, labels },
    stringData: { ...data, credential: item.secret ?? "" },
  });
  if (way === "cold") {
    await work.ack(item.id);
    await kube.patch(SECRETS, at, { stringData: variables }, { type: "merge" });
    await kube.create(PODS, pod);
    tell({ served: true });
    return;
  }
  const { metadata } = await kube.get(PODS, at);
  await work.ack(item.id);
  await Promise.all([
    kube.patch(SECRETS, at, { data: { opened: "dHJ1ZQ==", credential: null } }, { type: "merge" }),
    kube.patch(PODS, at, assignment(metadata.uid ?? "", item), { type: "merge" }),
  ]);
  if (way === "sandbox") {
    execute(pod, variables);
  } else {
    const stream = ahead ?? (await kube.attach(at, { container: CONTAINER }));
    stream.send((way === "shell" ? shellFrame(variables) : programFrame(variables)) ?? "");
    const isStarted = await stream.waitFor(STARTED_MARKER, AbortSignal.timeout(STARTED_WITHIN_MS));
    if (!isStarted) throw new Error(`${name} did not start: ${await stream.closed}`);
    stream.close();
  }
  tell({ served: true });
}

function clientOf({ baseUrl, environmentId, key }: BareStart): WorkApiClient {
  const known = clients.get(environmentId);
  if (known) return known;
  const client = new WorkApiClient({
    ...{ baseUrl, environmentId, key: () => key, workerId: "bare-starts", http, clock: realClock },
  });
  clients.set(environmentId, client);
  return client;
}

async function poll(work: WorkApiClient): Promise<WorkItem> {
  for (;;) {
    const { value: item } = await work.poll({ blockMs: 999, reclaimOlderThanMs: 15_000 });
    if (item) return item;
  }
}

function variablesOf(item: WorkItem): SessionVariables {
  return {
    ANTHROPIC_SESSION_ID: item.data.id,
    ANTHROPIC_WORK_ID: item.id,
    ANTHROPIC_WORK_SECRET: item.secret ?? "",
  };
}

function assignment(uid: string, item: WorkItem) {
  return {
    metadata: {
      uid,
      labels: { "berth.dev/phase": "running", "berth.dev/work-id": item.id },
      annotations: { "berth.dev/assigned-at": new Date().toISOString() },
    },
    spec: { activeDeadlineSeconds: 86_400 },
  };
}

/** Sends the call of agent-sandbox's clients to its runtime. The answer comes when the program has ended. */
function execute({ status }: Pod, env: SessionVariables): void {
  const url = `http://${status?.podIP}:${SANDBOX_PORT}/execute`;
  const body = JSON.stringify({ command: WORKER_COMMAND, env });
  request(url, { method: "POST", body, headersTimeout: 0 }).then(
    ({ body }) => body.dump(),
    // Its Pod is deleted.
    () => {},
  );
}

function tell(message: BareMessage): void {
  process.send?.(message);
}
