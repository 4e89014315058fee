import type { ItemRecord } from "../../simulator/item.ts";
import { API_VERSION, KIND, LABEL_ENVIRONMENT } from "../../src/api/names.ts";
import type { Random } from "../../src/core/backoff.ts";
import { isNotFound, KubeApiError } from "../../src/kube/errors.ts";
import { SECRETS } from "../../src/kube/resource.ts";
import { endedTurn, hasTurns } from "../../src/pods/turns.ts";
import { ENVIRONMENTS } from "../../src/reconcile/finalizer.ts";
import type { World } from "../../test/support/world.ts";
import type { FateChooser } from "../../testbed/node/node.ts";
import { SharedPodError } from "../../testbed/node/scripted-runtime.ts";
import type { Kind } from "./kinds.ts";

/** The longest time that an end may take: a worker that died silently, on a busy machine. */
const PATIENCE_MS = 240_000;

/** An Environment of the soak. */
export interface Member {
  readonly name: string;
  readonly kind: Kind;
  readonly environmentId: string;
}

/** Chooses fates by the Environment of a Pod. It must exist before the node, which asks it. */
export class Fates {
  readonly #kinds = new Map<string, Kind>();
  readonly #random: Random;

  constructor(random: Random) {
    this.#random = random;
  }

  set(name: string, kind: Kind): void {
    this.#kinds.set(name, kind);
  }

  readonly choose: FateChooser = ({ metadata }) =>
    this.#kinds.get(metadata.labels?.[LABEL_ENVIRONMENT] ?? "")?.fate(this.#random);
}

/** The Environments of a soak, each with its own queue and key. */
export class Fleet {
  readonly members = new Map<string, Member>();
  readonly #world: World;
  readonly #fates: Fates;
  /** Every id that was ever used, for the account at the end. */
  readonly #ids: string[] = [];
  /** Items that aren't stopped. Scanning all items repeatedly would cost more than the soak itself. */
  readonly #live = new Set<string>();
  #stopped = 0;
  /** The number of items that each Pod with turns has served, by its uid. */
  readonly #turns = new Map<string, number>();
  readonly #strangers: string[] = [];

  constructor(world: World, fates: Fates) {
    this.#world = world;
    this.#fates = fates;
    world.simulator.on("item", ({ id, state }) => {
      if (state !== "stopped") this.#live.add(id);
      else if (this.#live.delete(id)) this.#stopped += 1;
    });
    world.onPodChange(() => {
      for (const pod of world.pods) if (hasTurns(pod)) this.#turns.set(pod.metadata.uid ?? "", endedTurn(pod));
    });
    world.node.subscribe((change) => {
      if (change.type === "fault" && change.error instanceof SharedPodError) this.#strangers.push(change.error.message);
    });
  }

  /** The number of sessions that have ended. */
  get ended(): number {
    return this.#stopped;
  }

  get items(): ItemRecord[] {
    return this.#ids.flatMap((id) => this.#world.simulator.items(id));
  }

  /** What is known about sessions that came back. */
  get returns() {
    const items = Map.groupBy(this.items, ({ sessionId }) => sessionId);
    const wakes = [...this.#turns.values()].reduce((sum, turns) => sum + Math.max(0, turns - 1), 0);
    const mostItems = Math.max(0, ...[...items.values()].map(({ length }) => length));
    return { wakes, mostItems, strangers: this.#strangers };
  }

  get environmentIds(): readonly string[] {
    return this.#ids;
  }

  async create(name: string, kind: Kind): Promise<Member> {
    const { kube, namespace } = this.#world;
    const queue = await this.#world.createQueue(keyOf(name));
    this.#ids.push(queue.environmentId);
    this.#fates.set(name, kind);
    const spec = this.#world.spec({ ...queue, ...kind.spec(this.#world) });
    const metadata = { name, namespace };
    await kube.create(ENVIRONMENTS, { apiVersion: API_VERSION, kind: KIND, metadata, spec } as never);
    const member = { name, kind, environmentId: queue.environmentId };
    this.members.set(name, member);
    return member;
  }

  /** Deletes an Environment and its key, and waits until the Environment is gone. */
  async delete({ name }: Member): Promise<void> {
    const { kube, namespace } = this.#world;
    this.members.delete(name);
    await kube.delete(ENVIRONMENTS, { namespace, name });
    await this.#world.until(`Environment ${name} gone`, () => this.#isGone(name), PATIENCE_MS);
    await kube.delete(SECRETS, { namespace, name: keyOf(name) });
  }

  /** Rotates the key. The Secret gets the new key shortly after the old one became invalid. */
  async rotateKey({ name, environmentId }: Member): Promise<void> {
    const { simulator, kube, namespace } = this.#world;
    const key = simulator.rotateKey(environmentId);
    const ref = { namespace, name: keyOf(name) };
    await kube.patch(SECRETS, ref, { stringData: { "environment-key": key } }, { type: "merge" });
  }

  /** Changes the template, so that the operator replaces parked Pods and workers. */
  async changeTemplate({ name, kind }: Member, revision: string): Promise<void> {
    const { kube, namespace } = this.#world;
    const template = { metadata: { annotations: { "example.com/revision": revision } } };
    await kube.patch(ENVIRONMENTS, { namespace, name }, { spec: { [kind.mode]: { template } } }, { type: "merge" });
  }

  /**
   * Waits until nothing is in progress: every item is stopped, there are no claims and no Environments with a
   * finalizer, and the only Pods are those that are kept ready. A Pod whose containers failed to start may not be
   * Ready, because it waits for an item to try it with.
   */
  async untilRest(): Promise<void> {
    let restless: string[] = [];
    const isAtRest = async () => {
      try {
        restless = await this.#restless();
      } catch (error) {
        // The API server may have just been started.
        if (!(error instanceof KubeApiError)) throw error;
        restless = [error.message];
      }
      return restless.length === 0;
    };
    try {
      await this.#world.until("all work to end", isAtRest, PATIENCE_MS);
    } catch {
      // The error of `until` lists all objects of all Environments, which takes pages.
      throw new Error(`work did not end within ${PATIENCE_MS / 1_000} s: ${restless.join("; ")}`);
    }
  }

  /** Lists what is still in progress. It queries the API server only if nothing else is. */
  async #restless(): Promise<string[]> {
    const { pods, parked, claims, kube, namespace, simulator } = this.#world;
    const warm = [...this.members.values()].reduce((sum, { kind }) => sum + kind.warm, 0);
    const items = [...this.#live].map((id) => `${id} is ${simulator.item(id).state}`);
    const found = [...items, ...claims.map(({ metadata }) => `claim ${metadata.name}`)];
    if (pods.length !== warm || parked.length !== warm) {
      found.push(`${pods.length} Pods, ${parked.length} of them parked, instead of ${warm}`);
    }
    if (found.length > 0) return found;
    const list = await kube.list(ENVIRONMENTS, { namespace });
    return list.items
      .filter(({ metadata }) => (metadata.finalizers ?? []).length > 0)
      .map(({ metadata }) => `Environment ${metadata.name} still has its finalizer`);
  }

  async #isGone(name: string): Promise<boolean> {
    const { kube, namespace } = this.#world;
    try {
      await kube.get(ENVIRONMENTS, { namespace, name });
      return false;
    } catch (error) {
      if (isNotFound(error)) return true;
      throw error;
    }
  }
}

const keyOf = (name: string) => `key-of-${name}`;
