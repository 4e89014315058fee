import type { ItemRecord } from "../../simulator/item.ts";
import { API_VERSION, KIND } from "../../src/api/names.ts";
import { LEASES, type Lease } from "../../src/kube/resource.ts";
import { ENVIRONMENTS } from "../../src/reconcile/finalizer.ts";
import type { World } from "./world.ts";

/**
 * Covers a backlog of minutes on a busy machine, and items that return after their lease's time: those of an ended
 * replica, and those whose acknowledgement came too late. Such an item was offered again after 150 s.
 */
const SERVED_PATIENCE_MS = 360_000;

/** Several Environments of one world, each with its own queue, and the Leases of the replicas that serve them. */
export class ManyEnvironments {
  /** Environment ids by name. */
  readonly ids = new Map<string, string>();
  readonly #world: World;

  private constructor(world: World) {
    this.#world = world;
  }

  /** @param api fields that override a plain `spec.api` */
  static async create(world: World, count: number, api: Record<string, unknown> = {}): Promise<ManyEnvironments> {
    const many = new ManyEnvironments(world);
    for (let i = 0; i < count; i += 1) {
      const name = `env-${i}`;
      const queue = await world.createQueue(`key-${i}`);
      const spec = world.spec({ ...queue, api: { ...queue.api, ...api } });
      const metadata = { name, namespace: world.namespace };
      await world.kube.create(ENVIRONMENTS, { apiVersion: API_VERSION, kind: KIND, metadata, spec } as never);
      many.ids.set(name, queue.environmentId);
    }
    return many;
  }

  /** By the queue, the operator assigns shards. */
  queueOf(environmentId: string): string {
    return `${this.#world.simulator.url} ${environmentId}`;
  }

  get items(): ItemRecord[] {
    return [...this.ids.values()].flatMap((id) => this.#world.simulator.items(id));
  }

  /** Runs Poisson arrivals at every queue, each with its own times. Resolves with the total number of items. */
  async arrivals(plan: { ratePerSecond: number; durationSeconds: number; seed: number }): Promise<number> {
    const handles = [...this.ids.values()].map((id, i) =>
      this.#world.simulator.arrivals(id, { kind: "poisson", ...plan, seed: plan.seed + i }),
    );
    const counts = await Promise.all(handles.map(({ done }) => done));
    return counts.reduce((sum, count) => sum + count, 0);
  }

  async untilServed(count: number): Promise<void> {
    const served = () => {
      const { items } = this;
      return (
        items.length >= count && items.every(({ state }) => state === "stopped") && this.#world.claims.length === 0
      );
    };
    try {
      await this.#world.until(`${count} items served and settled`, served, SERVED_PATIENCE_MS);
    } catch (error) {
      throw new Error(`of ${count} items are not served: ${this.#unserved().join(", ") || "none"}`, { cause: error });
    }
  }

  #unserved(): string[] {
    const live = this.items.filter(({ state }) => state !== "stopped");
    return live.map(({ environmentId, id, state, offers, acks }) => {
      const [name] = [...this.ids].find(([, of]) => of === environmentId) ?? [];
      return `${name} ${id} ${state} (${offers.length} offers, ${acks.length} acks)`;
    });
  }

  /** The holders of the shards' Leases, by Lease. */
  async holders(): Promise<Map<string, string>> {
    const { namespace, kube } = this.#world;
    const { items } = await kube.list(LEASES, { namespace, labelSelector: "berth.dev/lease=shard" });
    const held = items.filter((lease: Lease) => (lease.spec?.holderIdentity ?? "") !== "");
    return new Map(held.map(({ metadata, spec }) => [metadata.name ?? "", spec?.holderIdentity ?? ""]));
  }

  /** Waits until every shard has a holder, no shard of another division has one, and this many replicas hold shards. */
  untilShared(shards: number, replicas: number): Promise<Map<string, string>> {
    return this.#world.until(`${shards} shards held by ${replicas} replicas`, async () => {
      const holders = await this.holders();
      const ofDivision = [...holders.keys()].every((name) => name.endsWith(`-of-${shards}`));
      return ofDivision && holders.size === shards && new Set(holders.values()).size === replicas && holders;
    });
  }
}
