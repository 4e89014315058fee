import type { Clock } from "../../src/core/clock.ts";
import { errorText } from "../../src/core/errors.ts";
import type { KubeClient } from "../../src/kube/client.ts";
import type { KubeEvent, Pod } from "../../src/kube/objects.ts";
import { EVENTS } from "../../src/kube/resource.ts";
import type { Logger } from "../../src/observe/logger.ts";

/** A problem that the node reports in an Event and in no status. */
export interface Complaint {
  readonly reason: "FailedMount" | "FailedCreatePodSandBox";
  readonly message: string;
}

/** A repeated complaint increases the count. */
interface Written {
  readonly name: string;
  count: number;
  /** Requests about the same Event are sent one after the other. */
  last: Promise<void>;
}

/** Writes Warnings about Pods like the kubelet's event recorder. A repeated complaint updates the same Event. */
export class EventWriter {
  readonly #client: Pick<KubeClient, "create" | "patch">;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #node: string;
  readonly #written = new Map<string, Map<string, Written>>();
  #sequence = 0;
  /** The network is down, so complaints are lost. */
  isPaused = false;

  constructor(parts: {
    client: Pick<KubeClient, "create" | "patch">;
    clock: Clock;
    logger: Logger;
    node: string;
  }) {
    this.#client = parts.client;
    this.#clock = parts.clock;
    this.#logger = parts.logger;
    this.#node = parts.node;
  }

  /** Never throws. If the API server rejects an Event, it's dropped. */
  tell(pod: Pod, complaint: Complaint): void {
    if (this.isPaused) return;
    const { uid = "", name = "" } = pod.metadata;
    const ofPod = this.#written.get(uid) ?? new Map<string, Written>();
    this.#written.set(uid, ofPod);
    const key = `${complaint.reason} ${complaint.message}`;
    this.#sequence += 1;
    const id = `${this.#clock.now().toString(16)}${this.#sequence.toString(16).padStart(SEQUENCE_DIGITS, "0")}`;
    const event = ofPod.get(key) ?? { name: `${name}.${id}`, count: 0, last: Promise.resolve() };
    ofPod.set(key, event);
    event.count += 1;
    const write = event.count === 1 ? this.#create(pod, event.name, complaint) : this.#count(pod, event);
    event.last = event.last.then(write).catch((error: unknown) => {
      this.#logger.debug({ pod: name, error: errorText(error) }, "could not write an Event");
    });
  }

  forget({ metadata }: Pod): void {
    this.#written.delete(metadata.uid ?? "");
  }

  /** Resolves when no request is in progress. */
  async ended(): Promise<void> {
    this.isPaused = true;
    await Promise.all([...this.#written.values()].flatMap((ofPod) => [...ofPod.values()].map(({ last }) => last)));
  }

  #create({ metadata }: Pod, eventName: string, { reason, message }: Complaint): () => Promise<void> {
    const { namespace = "", name = "", uid = "" } = metadata;
    const at = this.#now();
    const event: KubeEvent = {
      metadata: { name: eventName, namespace },
      involvedObject: { apiVersion: "v1", kind: "Pod", namespace, name, uid },
      type: "Warning",
      reason,
      message,
      count: 1,
      firstTimestamp: at,
      lastTimestamp: at,
      source: { component: "kubelet", host: this.#node },
      reportingComponent: "kubelet",
      reportingInstance: this.#node,
    };
    return async () => void (await this.#client.create(EVENTS, event));
  }

  #count({ metadata: { namespace } }: Pod, { name, count }: Written): () => Promise<void> {
    const patch = { count, lastTimestamp: this.#now() };
    return async () => void (await this.#client.patch(EVENTS, { namespace, name }, patch, { type: "merge" }));
  }

  #now(): string {
    return new Date(this.#clock.now()).toISOString().replace(/\.\d+Z$/, "Z");
  }
}

/** Event names end in about as many hex digits as the kubelet's, which encode nanoseconds. */
const SEQUENCE_DIGITS = 5;
