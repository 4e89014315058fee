import { realClock } from "../../src/core/clock.ts";
import { KubeClient } from "../../src/kube/client.ts";
import { loadKubeConfig } from "../../src/kube/config.ts";
import { PODS, SECRETS } from "../../src/kube/resource.ts";
import { WorkApiClient } from "../../src/work/client.ts";
import { WorkHttp } from "../../src/work/http.ts";
import type { BareInput } from "./bare.ts";

/**
 * The baseline for pick-up: the same calls in the same order with the same libraries, and nothing else. It polls,
 * creates the Secret, reads the Pod, acknowledges, adds the key to the Secret, and touches the Pod. It has no recovery,
 * no rules, and no watch. Like the operator, it runs in its own process. It takes one JSON argument, serves `count`
 * items, and ends when its input ends.
 */
const input = JSON.parse(process.argv[2] ?? "{}") as BareInput;
const { kubeconfig, baseUrl, environmentId, key, namespace, podNames, count } = input;
const kube = new KubeClient({ access: loadKubeConfig(kubeconfig), clock: realClock });
const http = new WorkHttp({ clock: realClock });
const work = new WorkApiClient({
  baseUrl,
  environmentId,
  key: () => key,
  workerId: "bare-loop",
  http,
  clock: realClock,
});
const free = [...podNames];
const underWay: Promise<void>[] = [];
process.stdout.write("ready\n");
for (let taken = 0; taken < count; ) {
  const { value: item } = await work.poll({ blockMs: 999, reclaimOlderThanMs: 15_000 });
  if (item === null) continue;
  taken += 1;
  underWay.push(serve(item.id, item.data.id, item.secret ?? "", free.shift() ?? ""));
}
await Promise.all(underWay);
process.stdin.resume().once("end", () => process.exit(0));

async function serve(workId: string, sessionId: string, secret: string, name: string): Promise<void> {
  const data = { "work-id": workId, "session-id": sessionId };
  const labels = { "berth.dev/environment": "bench", "berth.dev/role": "session" };
  await kube.create(SECRETS, { metadata: { name, namespace, labels }, stringData: { ...data, credential: secret } });
  const pod = await kube.get(PODS, { namespace, name });
  await work.ack(workId);
  const opened = { data: { "work-secret": Buffer.from(secret).toString("base64"), credential: null } };
  await kube.patch(SECRETS, { namespace, name }, opened, { type: "merge" });
  const touch = {
    metadata: { uid: pod.metadata.uid, labels: { "berth.dev/phase": "running", "berth.dev/work-id": workId } },
    spec: { activeDeadlineSeconds: 86_400 },
  };
  await kube.patch(PODS, { namespace, name }, touch, { type: "merge" });
}
