import { realClock } from "../../../src/core/clock.ts";
import type { KubeClient } from "../../../src/kube/client.ts";
import {
  EVENTS,
  type KubeEvent,
  type KubeObject,
  PODS,
  type Pod,
  SECRETS,
  type Secret,
} from "../../../src/kube/resource.ts";
import { silentLogger } from "../../../src/observe/logger.ts";
import { createMetrics } from "../../../src/observe/metrics.ts";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import { LateInformer } from "../../support/late-informer.ts";

/** Watches of the objects in one namespace. */
export class Views {
  readonly pods: LateInformer<Pod>;
  readonly secrets: LateInformer<Secret>;
  readonly environments: LateInformer<KubeObject>;
  readonly events: LateInformer<KubeEvent>;
  readonly #watching = new AbortController();
  readonly #histories = new Map<string, Pod[]>();
  readonly #texts = new Set<string>();

  /** @param changed called after every change */
  constructor(client: KubeClient, namespace: string, changed: () => void) {
    const common = { client, namespace, clock: realClock, logger: silentLogger, metrics: createMetrics() };
    this.pods = new LateInformer({ ...common, resource: PODS });
    this.secrets = new LateInformer({ ...common, resource: SECRETS });
    this.environments = new LateInformer<KubeObject>({ ...common, resource: ENVIRONMENTS });
    this.events = new LateInformer({ ...common, resource: EVENTS });
    this.pods.subscribe(({ object }) => {
      const { uid = "" } = object.metadata;
      const history = this.#histories.get(uid);
      if (history) history.push(object);
      else this.#histories.set(uid, [object]);
    });
    for (const informer of [this.pods, this.environments, this.events] as const) {
      informer.subscribe(({ object }: { object: KubeObject }) => void this.#texts.add(JSON.stringify(object)));
    }
    for (const informer of [this.pods, this.secrets, this.environments, this.events] as const) {
      informer.subscribe(changed);
      void informer.run(this.#watching.signal);
    }
  }

  /** Every state of a Pod that the watch showed, oldest first, even if the Pod is deleted. */
  history(uid: string): readonly Pod[] {
    return this.#histories.get(uid) ?? [];
  }

  /** Every Pod that ever existed, in its last known state. */
  get everyPod(): Pod[] {
    return [...this.#histories.values()].flatMap((history) => history.slice(-1));
  }

  /** Every state of every object except Secrets that the watches showed, as JSON. */
  get texts(): Iterable<string> {
    return this.#texts;
  }

  stop(): void {
    this.#watching.abort();
  }
}
