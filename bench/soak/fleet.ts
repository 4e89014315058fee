import type { ItemRecord } from "../../simulator/item.ts";
import { API_VERSION, KIND, LABEL_ENVIRONMENT } from "../../src/api/names.ts";
import type { Random } from "../../src/core/backoff.ts";
import { isNotFound, KubeApiError } from "../../src/kube/errors.ts";
import { SECRETS } from "../../src/kube/resource.ts";
import { GATE_CONTAINER } from "../../src/pods/pod-gate.ts";
import { ENVIRONMENTS } from "../../src/reconcile/finalizer.ts";
import type { World } from "../../test/support/world.ts";
import type { FateChooser } from "../../testbed/node/node.ts";
import type { Kind } from "./kinds.ts";

/** The slowest that an end may be: a worker that went without a word, on a machine that is busy. */
const PATIENCE_MS = 240_000;

/** An Environment of the soak. */
export interface Member {
  readonly name: string;
  readonly kind: Kind;
  readonly environmentId: string;
}

/** Chooses fates by the Environment of a Pod; there before the node that asks it. */
export class Fates {
  readonly #kinds = new Map<string, Kind>();
  readonly #random: Random;

  constructor(random: Random) {
    this.#random = random;
  }

  set(name: string, kind: Kind): void {
    this.#kinds.set(name, kind);
  }

  /** The gate runs as what it is, a process. */
  readonly choose: FateChooser = ({ metadata }, { name }) =>
    name === GATE_CONTAINER
      ? undefined
      : this.#kinds.get(metadata.labels?.[LABEL_ENVIRONMENT] ?? "")?.fate(this.#random);
}

/** The Environments of a soak, with a queue and a key each. */
export class Fleet {
  readonly members = new Map<string, Member>();
  readonly #world: World;
  readonly #fates: Fates;
  /** Every id that ever was, for the account at the end. */
  readonly #ids: string[] = [];
  /** Items that are not stopped: looking at all of them again and again would cost more than the soak. */
  readonly #live = new Set<string>();
  #stopped = 0;

  constructor(world: World, fates: Fates) {
    this.#world = world;
    this.#fates = fates;
    world.simulator.on("item", ({ id, state }) => {
      if (state !== "stopped") this.#live.add(id);
      else if (this.#live.delete(id)) this.#stopped += 1;
    });
  }

  /** Sessions that have come to their end. */
  get ended(): number {
    return this.#stopped;
  }

  get items(): ItemRecord[] {
    return this.#ids.flatMap((id) => this.#world.simulator.items(id));
  }

  get environmentIds(): readonly string[] {
    return this.#ids;
  }

  async create(name: string, kind: Kind): Promise<Member> {
    const { simulator, kube, namespace } = this.#world;
    const { id } = simulator.createEnvironment();
    this.#ids.push(id);
    this.#fates.set(name, kind);
    await this.#world.createKey(simulator.environmentKey(id), keyOf(name));
    const api = { baseUrl: simulator.url, keySecretRef: { name: keyOf(name) }, requestTimeoutSeconds: 3 };
    const spec = this.#world.spec({ environmentId: id, api, ...kind.spec(this.#world) });
    const metadata = { name, namespace };
    await kube.create(ENVIRONMENTS, { apiVersion: API_VERSION, kind: KIND, metadata, spec } as never);
    const member = { name, kind, environmentId: id };
    this.members.set(name, member);
    return member;
  }

  /** Deletes it and waits until it is gone, and its key with it. */
  async delete({ name }: Member): Promise<void> {
    const { kube, namespace } = this.#world;
    this.members.delete(name);
    await kube.delete(ENVIRONMENTS, { namespace, name });
    await this.#world.until(`Environment ${name} gone`, () => this.#isGone(name), PATIENCE_MS);
    await kube.delete(SECRETS, { namespace, name: keyOf(name) });
  }

  /** A new key, which the Secret has a moment after the old one ended. */
  async rotateKey({ name, environmentId }: Member): Promise<void> {
    const { simulator, kube, namespace } = this.#world;
    const key = simulator.rotateKey(environmentId);
    const ref = { namespace, name: keyOf(name) };
    await kube.patch(SECRETS, ref, { stringData: { "environment-key": key } }, { type: "merge" });
  }

  /** Another template: parked Pods and workers are replaced. */
  async changeTemplate({ name, kind }: Member, revision: string): Promise<void> {
    const { kube, namespace } = this.#world;
    const template = { metadata: { annotations: { "example.com/revision": revision } } };
    await kube.patch(ENVIRONMENTS, { namespace, name }, { spec: { [kind.mode]: { template } } }, { type: "merge" });
  }

  /**
   * Waits until nothing is under way: every item stopped, no claim, no Environment with a finalizer, and no Pods but those
   * that are kept ready. One whose containers failed to start may not be Ready: it waits for an item to try it with.
   */
  async untilRest(): Promise<void> {
    let restless: string[] = [];
    const isAtRest = async () => {
      try {
        restless = await this.#restless();
      } catch (error) {
        // The API server may just have been started.
        if (!(error instanceof KubeApiError)) throw error;
        restless = [error.message];
      }
      return restless.length === 0;
    };
    try {
      await this.#world.until("nothing under way", isAtRest, PATIENCE_MS);
    } catch {
      // What there is of all Environments takes pages.
      throw new Error(`not at rest within ${PATIENCE_MS / 1_000} s: ${restless.join("; ")}`);
    }
  }

  /** What is still under way. The API server is asked only when nothing else is. */
  async #restless(): Promise<string[]> {
    const { pods, parked, claims, kube, namespace, simulator } = this.#world;
    const warm = [...this.members.values()].reduce((sum, { kind }) => sum + kind.warm, 0);
    const items = [...this.#live].map((id) => `${id} is ${simulator.item(id).state}`);
    const found = [...items, ...claims.map(({ metadata }) => `claim ${metadata.name}`)];
    if (pods.length !== warm || parked.length !== warm) {
      found.push(`${pods.length} Pods, ${parked.length} of them parked, in the place of ${warm}`);
    }
    if (found.length > 0) return found;
    const list = await kube.list(ENVIRONMENTS, { namespace });
    return list.items
      .filter(({ metadata }) => (metadata.finalizers ?? []).length > 0)
      .map(({ metadata }) => `Environment ${metadata.name} has its finalizer`);
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
