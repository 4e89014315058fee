import type { Simulator } from "../../../simulator/simulator.ts";
import { realClock } from "../../../src/core/clock.ts";
import type { KubeObject } from "../../../src/kube/resource.ts";
import { silentLogger } from "../../../src/observe/logger.ts";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import { Informer } from "../../../src/watch/informer.ts";
import type { Served, Stand } from "../../support/stand.ts";

/** The number of Environments to create at the same time. The operator needs the API server too. */
const AT_A_TIME = 16;
const TEMPLATE = { spec: { containers: [{ name: "worker", image: "worker:1" }] } };

/**
 * Idle Environments in one namespace, each with its own key and Secret, and the time when each was first seen ready.
 */
export class Crowd implements AsyncDisposable {
  readonly members: Served[] = [];
  readonly #stand: Stand;
  readonly #simulator: Simulator;
  readonly #namespace: string;
  /**
   * When a watch first showed the condition Ready as True, by Environment name: milliseconds on the monotonic clock.
   */
  readonly #readyMs = new Map<string, number>();
  readonly #informer: Informer<KubeObject>;
  readonly #watching = new AbortController();
  readonly #running: Promise<void>;
  #made = 0;
  #onReady: () => void = () => {};

  constructor(stand: Stand, simulator: Simulator, namespace: string) {
    this.#stand = stand;
    this.#simulator = simulator;
    this.#namespace = namespace;
    const common = { client: stand.kube, clock: realClock, logger: silentLogger };
    // Keep only the fields that are read, because the bench's memory is on the same machine.
    const transform = ({ metadata, status }: KubeObject) => ({ metadata, status: { isReady: isReady(status) } });
    this.#informer = new Informer({ ...common, resource: ENVIRONMENTS, namespace, transform });
    this.#informer.subscribe(({ type, object }) => {
      const { name = "" } = object.metadata;
      if (type === "deleted") this.#readyMs.delete(name);
      else if (isSeenReady(object) && !this.#readyMs.has(name)) this.#readyMs.set(name, performance.now());
      this.#onReady();
    });
    this.#running = this.#informer.run(this.#watching.signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#watching.abort();
    await this.#running;
  }

  /** Creates Environments until there are `size`, and waits until all are ready. */
  async growTo(size: number): Promise<void> {
    let left = size - this.members.length;
    const maker = async () => {
      while (left > 0) {
        left -= 1;
        this.members.push(await this.make(0));
      }
    };
    await Promise.all(Array.from({ length: AT_A_TIME }, maker));
    await this.#until(() => this.#readyMs.size >= size);
  }

  /** Creates an Environment that keeps `warm` Pods warm. */
  async make(warm: number): Promise<Served> {
    this.#made += 1;
    const served: Served = {
      namespace: this.#namespace,
      name: `idle-${this.#made}`,
      simulator: this.#simulator,
      environmentId: this.#simulator.createEnvironment().id,
    };
    await this.#stand.environment(served, { sessions: { maxConcurrent: 2, warm, template: TEMPLATE } });
    return served;
  }

  /** Resolves with the time when the Environment was seen ready, in milliseconds on the monotonic clock. */
  async ready({ name }: Served): Promise<number> {
    await this.#until(() => this.#readyMs.has(name));
    return this.#readyMs.get(name) ?? 0;
  }

  /** Deletes the Environment and waits until it's gone. */
  async remove({ namespace, name }: Served): Promise<void> {
    await this.#stand.kube.delete(ENVIRONMENTS, { namespace, name });
    await this.#until(() => this.#informer.get(namespace, name) === undefined);
  }

  /** The number of Environments that were seen ready. */
  get readyCount(): number {
    return this.#readyMs.size;
  }

  async #until(isSo: () => boolean): Promise<void> {
    while (!isSo()) {
      const next = Promise.withResolvers<void>();
      this.#onReady = next.resolve;
      await next.promise;
    }
  }
}

function isReady(status: unknown): boolean {
  const { conditions = [] } = (status ?? {}) as { conditions?: readonly { type: string; status: string }[] };
  return conditions.some(({ type, status }) => type === "Ready" && status === "True");
}

function isSeenReady(object: KubeObject): boolean {
  return (object.status as { isReady: boolean }).isReady;
}
