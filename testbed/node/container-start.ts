import { type Clock, sleep } from "../../src/core/clock.ts";
import type { Pod } from "../../src/kube/objects.ts";
import { type ContainerRecord, securityOf } from "./container-record.ts";
import {
  EnvironmentError,
  type ReferencedObjects,
  type References,
  referencesOf,
  resolveEnvironment,
} from "./environment.ts";
import type { Fate } from "./fate.ts";
import { backOffMessage, faultOfName, type PullFault, pullFault } from "./image.ts";
import type { Latency } from "./latency.ts";
import { pullDelaySeconds } from "./restart-backoff.ts";
import type { ContainerRuntime } from "./runtime.ts";
import { parkingOf } from "./session-frame.ts";

/** Why a container waits. */
export interface Waiting {
  readonly reason: string;
  readonly message?: string;
}

export interface StartAttempt {
  readonly pod: Pod;
  readonly record: ContainerRecord;
  readonly fate: Fate | undefined;
  readonly runtime: ContainerRuntime;
  readonly latency: Latency;
  readonly read: (pod: Pod, references: References) => Promise<ReferencedObjects>;
  readonly signal: AbortSignal;
}

/**
 * The result of preparing a start: everything is ready, the container waits for a reason, or the attempt was aborted.
 */
export type Preparation =
  | { readonly kind: "ready"; readonly env: Record<string, string> }
  | { readonly kind: "waits"; readonly waiting: Waiting }
  /** Nothing more will happen to the container. */
  | { readonly kind: "stuck" }
  | { readonly kind: "aborted" };

/** The pulls of one container's image: the number of failures, and the time of the next try. */
interface Pulls {
  failures: number;
  nextAtMs: number;
  done: boolean;
}

/**
 * The kubelet's steps before a container runs, in the kubelet's order: image, environment, user, creation. An earlier
 * fault hides later ones (pkg/kubelet/kuberuntime/kuberuntime_container.go, startContainer).
 */
export class ContainerStarter {
  readonly #clock: Clock;
  readonly #pulls = new WeakMap<ContainerRecord, Pulls>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  async prepare(attempt: StartAttempt): Promise<Preparation> {
    const { pod, record, fate, runtime, latency, signal } = attempt;
    if (fate?.kind === "never-starts") return { kind: "stuck" };
    const unpulled = await this.#pull(attempt);
    if (unpulled) return waits(unpulled);
    let env: Record<string, string>;
    try {
      env = resolveEnvironment(pod, record.spec, await attempt.read(pod, referencesOf(record.spec)));
    } catch (error) {
      if (!(error instanceof EnvironmentError)) throw error;
      return waits({ reason: "CreateContainerConfigError", message: error.message });
    }
    if (signal.aborted) return { kind: "aborted" };
    const user = userFault(pod, record, fate);
    if (user !== undefined) return waits({ reason: "CreateContainerConfigError", message: user });
    const create =
      fate?.kind === "create-error" ? (fate.message ?? "no such device") : runtime.createFault?.(record.spec);
    if (create !== undefined) return waits({ reason: "CreateContainerError", message: create });
    // The program of a container that waits for its session starts later, and this delay with it.
    const delayMs = parkingOf(pod, record.spec) === undefined ? latency.of(fate?.startDelayMs) : 0;
    await sleep(this.#clock, latency.draw("start") + delayMs, signal);
    return signal.aborted ? { kind: "aborted" } : { kind: "ready", env };
  }

  async #pull({ record, fate, latency, signal }: StartAttempt): Promise<Waiting | undefined> {
    const image = record.spec.image ?? "";
    const pulls = this.#pulls.get(record) ?? { failures: 0, nextAtMs: 0, done: false };
    this.#pulls.set(record, pulls);
    const fault = pulls.done ? undefined : pullFaultOf(record, fate, pulls.failures);
    if (!fault) {
      if (!pulls.done) await sleep(this.#clock, latency.of(fate?.pullMs), signal);
      pulls.done = true;
      return undefined;
    }
    if (fault.reason !== "ErrImagePull") return fault;
    if (this.#clock.monotonic() < pulls.nextAtMs) {
      return { reason: "ImagePullBackOff", message: backOffMessage(image, fault) };
    }
    pulls.failures += 1;
    pulls.nextAtMs = this.#clock.monotonic() + latency.scaled(pullDelaySeconds(pulls.failures) * 1_000);
    return fault;
  }
}

function waits(waiting: Waiting): Preparation {
  return { kind: "waits", waiting };
}

function pullFaultOf(record: ContainerRecord, fate: Fate | undefined, failures: number): PullFault | undefined {
  if (fate?.kind !== "pull-error") return faultOfName(record.spec);
  if (fate.times !== undefined && failures >= fate.times) return undefined;
  return pullFault(fate.reason, record.spec.image ?? "", fate.message);
}

function userFault(pod: Pod, { spec }: ContainerRecord, fate: Fate | undefined): string | undefined {
  const { runAsNonRoot, runAsUser } = securityOf(pod, spec);
  const where = `(pod: "${pod.metadata.name}_${pod.metadata.namespace}(${pod.metadata.uid})", container: ${spec.name})`;
  if (runAsNonRoot !== true) return undefined;
  if (runAsUser !== undefined) {
    return runAsUser === 0 ? `container's runAsUser breaks non-root policy ${where}` : undefined;
  }
  if (fate?.kind === "root-image") return `container has runAsNonRoot and image will run as root ${where}`;
  if (fate?.kind === "named-user-image") {
    return `container has runAsNonRoot and image has non-numeric user (${fate.user}), cannot verify user is non-root ${where}`;
  }
  return undefined;
}
