import { LABEL_WORK_ID } from "../../src/api/names.ts";
import { realClock } from "../../src/core/clock.ts";
import type { KubeClient } from "../../src/kube/client.ts";
import { PODS, type Pod } from "../../src/kube/resource.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { Informer } from "../../src/watch/informer.ts";

/** Records through a watch when Pods got their work, in the same way for every server. */
export class Touches implements AsyncDisposable {
  /** Milliseconds since the epoch, by work id. */
  readonly at = new Map<string, number>();
  /** The names of the Pods that got work, by work id. */
  readonly podOf = new Map<string, string>();
  readonly #informer: Informer<Pod>;
  readonly #watching = new AbortController();
  readonly #running: Promise<void>;

  constructor(kube: KubeClient, namespace: string) {
    this.#informer = new Informer({ client: kube, resource: PODS, namespace, clock: realClock, logger: silentLogger });
    this.#informer.subscribe(({ object }) => {
      const workId = object.metadata.labels?.[LABEL_WORK_ID];
      if (workId === undefined || this.at.has(workId)) return;
      this.at.set(workId, Date.now());
      this.podOf.set(workId, object.metadata.name ?? "");
    });
    this.#running = this.#informer.run(this.#watching.signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#watching.abort();
    await this.#running;
  }

  /** The names of the Pods whose container waits for its key. */
  get parked(): string[] {
    return this.#informer
      .list()
      .filter(isParked)
      .map(({ metadata }) => metadata.name ?? "");
  }

  /** Resolves when `count` Pods are parked. */
  untilParked(count: number): Promise<void> {
    return this.#until(() => this.parked.length >= count);
  }

  /** Resolves when no Pod is left. */
  untilGone(): Promise<void> {
    return this.#until(() => this.#informer.list().length === 0);
  }

  async #until(isSo: () => boolean): Promise<void> {
    const done = Promise.withResolvers<void>();
    const look = () => {
      if (isSo()) done.resolve();
    };
    const stop = this.#informer.subscribe(look);
    look();
    await done.promise.finally(stop);
  }
}

function isParked({ status }: Pod): boolean {
  return (status?.containerStatuses ?? []).some(({ state }) => state?.waiting?.reason === "CreateContainerConfigError");
}
