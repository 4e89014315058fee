import { setTimeout as pause } from "node:timers/promises";
import { FINALIZER } from "../../src/api/names.ts";
import { realClock } from "../../src/core/clock.ts";
import { KubeClient } from "../../src/kube/client.ts";
import { loadKubeConfig } from "../../src/kube/config.ts";
import { DEPLOYMENTS } from "../../src/kube/resource.ts";
import { ENVIRONMENTS } from "../../src/reconcile/finalizer.ts";
import { WorkApiClient } from "../../src/work/client.ts";
import { WorkHttp } from "../../src/work/http.ts";

/** The input of the process, as JSON. */
export interface BareScalerInput {
  readonly kubeconfig: string;
  readonly baseUrl: string;
  readonly namespace: string;
  /** The pause between two readings of an empty queue, in milliseconds, before jitter. */
  readonly pauseMs: number;
  readonly sessionsPerReplica: number;
  readonly queues: readonly { readonly name: string; readonly environmentId: string; readonly key: string }[];
}

const SPREAD = 0.1;

/**
 * The baseline for scale decisions: the same calls in the same order, and nothing else. It reads a queue's statistics
 * at Berth's own pace. When they show work, it requests the list of items, the Environment, its finalizer, and the
 * Deployment. It applies no rules, watches nothing, and remembers nothing. It ends when every queue has its workers.
 */
const input = JSON.parse(process.argv[2] ?? "{}") as BareScalerInput;
const kube = new KubeClient({ access: loadKubeConfig(input.kubeconfig), clock: realClock });
const http = new WorkHttp({ clock: realClock });
process.stdout.write("ready\n");
await Promise.all(input.queues.map(follow));
process.exit(0);

async function follow({ name, environmentId, key }: BareScalerInput["queues"][number]): Promise<void> {
  const { baseUrl, namespace, pauseMs, sessionsPerReplica } = input;
  const common = { baseUrl, environmentId, http, clock: realClock };
  const work = new WorkApiClient({ ...common, key: () => key, workerId: "bare-scaler" });
  for (;;) {
    const { depth, pending } = (await work.stats()).value;
    const replicas = Math.ceil((depth + pending) / sessionsPerReplica);
    if (replicas > 0) {
      await work.list();
      const { metadata } = await kube.get(ENVIRONMENTS, { namespace, name });
      const finalizers = [...(metadata.finalizers ?? []), FINALIZER];
      await kube.patch(ENVIRONMENTS, { namespace, name }, { metadata: { finalizers } }, { type: "merge" });
      const labels = { "berth.dev/environment": name };
      const template = { metadata: { labels }, spec: { containers: [{ name: "worker", image: "worker:1" }] } };
      const spec = { replicas, selector: { matchLabels: labels }, template };
      await kube.create(DEPLOYMENTS, { metadata: { name, namespace, labels }, spec });
      return;
    }
    await pause(pauseMs * (1 + SPREAD * (2 * Math.random() - 1)));
  }
}
