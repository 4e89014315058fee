import type { Random } from "../../../src/core/backoff.ts";
import type { Clock } from "../../../src/core/clock.ts";
import { type KubeObject, PERSISTENT_VOLUME_CLAIMS, PODS, type Pod } from "../../../src/kube/resource.ts";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import { type ApiServer, type Kubelet, type RunningContainer, refusal } from "./api-server.ts";
import type { Running } from "./container.ts";
import { KubeletPod, type KubeletPodParts } from "./kubelet-pod.ts";

/**
 * A scheduler, a kubelet and a garbage collector for all Pods. It binds and parks Pods, reads the Secret every 10-15 s
 * and at each change of the Pod, runs the program, reports its end a little later, starts ephemeral containers, and
 * follows deletions and deadlines.
 */
export class Node implements Kubelet {
  readonly #server: ApiServer;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #pods = new Map<string, KubeletPod>();
  readonly running = new Set<Running>();
  readonly #parts: KubeletPodParts;

  constructor(parts: KubeletPodParts) {
    parts.server.kubelet = this;
    this.#parts = parts;
    this.#server = parts.server;
    this.#clock = parts.clock;
    this.#random = parts.random;
    parts.server.subscribe(({ plural, type, object }) => {
      if (plural === "pods") this.#podChanged(type, object as Pod);
      if (plural === "environments" && type === "DELETED") this.#collect();
      if (plural === "pods" && type === "ADDED" && this.#isOrphan(object as Pod)) this.#collect();
    });
  }

  /** Loses the node: the Pod object is deleted and the container runs on. */
  lose(name: string, namespace: string): void {
    this.#pods.get(name)?.lose();
    this.#pods.delete(name);
    this.#server.removePod(namespace, name);
  }

  attach({ metadata: { name = "" } }: Pod, container: string): RunningContainer {
    const running = this.#pods.get(name)?.attached(container);
    if (!running) throw refusal(500, "InternalError", `container ${container} not found in pod ${name}`);
    return running;
  }

  async log({ metadata: { name = "" } }: Pod, container: string): Promise<string> {
    const log = await this.#pods.get(name)?.log(container);
    if (log !== undefined) return log;
    throw refusal(400, "BadRequest", `container "${container}" in pod "${name}" is waiting to start`);
  }

  /** Kills a container from outside: by default the one that a session runs in, or would. */
  kill(name: string, container?: string): void {
    this.#pods.get(name)?.kill(container);
  }

  /** Starts an ended ephemeral container again, as a kubelet that has lost its record does. */
  rerun(name: string, container: string): void {
    this.#pods.get(name)?.rerun(container);
  }

  #podChanged(type: string, pod: Pod): void {
    const name = pod.metadata.name ?? "";
    if (type === "DELETED") {
      this.#pods.get(name)?.objectGone();
      this.#pods.delete(name);
      return;
    }
    const known = this.#pods.get(name);
    if (known) known.changed(pod);
    else if (type === "ADDED") this.#pods.set(name, new KubeletPod(pod, this.#parts, this.running));
  }

  /** The garbage collector deletes Pods and volumes whose owner is gone, including Pods created later. */
  #collect(): void {
    this.#clock.setTimer(
      () => {
        for (const kind of [PODS, PERSISTENT_VOLUME_CLAIMS]) {
          for (const object of this.#server.list<KubeObject>(kind)) {
            const { namespace = "", name = "" } = object.metadata;
            if (this.#isOrphan(object)) this.#server.delete(kind, namespace, name, {});
          }
        }
      },
      100 + this.#random() * 5_000,
    );
  }

  #isOrphan({ metadata }: KubeObject): boolean {
    const owner = metadata.ownerReferences?.[0];
    const live = this.#server.find(ENVIRONMENTS, metadata.namespace ?? "", owner?.name ?? "");
    return owner !== undefined && live?.metadata.uid !== owner.uid;
  }
}
