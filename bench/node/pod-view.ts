import { LABEL_WORK_ID } from "../../src/api/names.ts";
import { realClock } from "../../src/core/clock.ts";
import type { KubeClient } from "../../src/kube/client.ts";
import { PODS, type Pod } from "../../src/kube/resource.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { stateOf } from "../../src/pods/pod-state.ts";
import { hasTurns, isAsleep } from "../../src/pods/turns.ts";
import { Informer } from "../../src/watch/informer.ts";

const PATIENCE_MS = 180_000;

/** The Pods of a namespace, as a watch shows them. */
export class PodView implements AsyncDisposable {
  readonly #informer: Informer<Pod>;
  readonly #watching = new AbortController();
  readonly #running: Promise<void>;

  constructor(kube: KubeClient, namespace: string) {
    this.#informer = new Informer({ client: kube, resource: PODS, namespace, clock: realClock, logger: silentLogger });
    this.#running = this.#informer.run(this.#watching.signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#watching.abort();
    await this.#running;
  }

  get list(): Pod[] {
    return this.#informer.list();
  }

  /** Resolves when `predicate` returns a value. @throws {Error} not within three minutes */
  async until<T>(what: string, predicate: (pods: readonly Pod[]) => T | undefined | false): Promise<T> {
    const found = Promise.withResolvers<T>();
    const look = () => {
      const value = predicate(this.list);
      if (value !== undefined && value !== false) found.resolve(value);
    };
    const stop = this.#informer.subscribe(look);
    const timer = setTimeout(() => {
      const states = this.list.map(({ metadata, status }) => `${metadata.name} ${JSON.stringify(status)}`);
      found.reject(new Error(`waited ${PATIENCE_MS} ms for ${what}: ${states.join("\n")}`));
    }, PATIENCE_MS);
    look();
    try {
      return await found.promise;
    } finally {
      clearTimeout(timer);
      stop();
    }
  }

  /** Resolves when the session of this work item sleeps after it, and its next turn waits. */
  untilAsleep(workId: string): Promise<Pod> {
    const isIts = (pod: Pod) => isSleeping(pod) && pod.metadata.labels?.[LABEL_WORK_ID] === workId;
    return this.until(`a sleeping Pod after item ${workId}`, (pods) => pods.find(isIts));
  }

  /** Resolves with the Pods when these many wait for any session, and all others sleep or have ended. */
  untilWaiting(count: number): Promise<readonly Pod[]> {
    return this.until(`${count} waiting Pods, and others only asleep`, (pods) => {
      const left = pods.filter((pod) => !isRemoved(pod) && !isSleeping(pod));
      return left.length === count && left.every(isWaiting) && left;
    });
  }
}

/** Whether a deleted Pod's containers and its sandbox have ended. The kubelet removes the object up to a second later. */
export function isRemoved({ metadata, status }: Pod): boolean {
  const hasEnded = status?.phase === "Succeeded" || status?.phase === "Failed";
  return metadata.deletionTimestamp !== undefined && hasEnded;
}

/** Whether a Pod's session sleeps, and its next turn waits. */
export function isSleeping(pod: Pod): boolean {
  return isAsleep(pod) && pod.metadata.deletionTimestamp === undefined && stateOf(pod).is === "parked";
}

/** Whether a Pod waits for its session, in any of the ways in which it can. */
export function isWaiting(pod: Pod): boolean {
  const { metadata, status } = pod;
  if (metadata.deletionTimestamp || metadata.labels?.["berth.dev/phase"] !== "warm") return false;
  if (hasTurns(pod)) return stateOf(pod).is === "parked";
  const [container] = status?.containerStatuses ?? [];
  const waitsForKey = container?.state?.waiting?.reason === "CreateContainerConfigError";
  return waitsForKey || container?.state?.running !== undefined;
}
