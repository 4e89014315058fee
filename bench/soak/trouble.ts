import { setTimeout as pause } from "node:timers/promises";
import type { FaultInput } from "../../simulator/faults.ts";
import { LABEL_PHASE } from "../../src/api/names.ts";
import type { Random } from "../../src/core/backoff.ts";
import { isNotFound, KubeApiError } from "../../src/kube/errors.ts";
import { PODS, type Pod } from "../../src/kube/resource.ts";
import type { TcpProxy } from "../../test/support/tcp-proxy.ts";
import type { World } from "../../test/support/world.ts";
import type { Cluster } from "../../testbed/cluster/cluster.ts";
import type { Fleet, Member } from "./fleet.ts";

/** The kinds of trouble, and the milliseconds of load between two of each kind. */
const EVERY_MS = {
  "Pods killed, evicted, deleted": 4_000,
  "keys rotated": 11_000,
  "templates changed": 13_000,
  "connections to the API server cut": 10_000,
  "API server restarted": 40_000,
  "nodes drained": 30_000,
  "operator killed": 6_000,
} as const;

export type TroubleName = keyof typeof EVERY_MS;

/** Rare faults of every kind. Each applies to all calls of the operator and the workers. */
const FAULTS: readonly FaultInput[] = [
  { kind: "status", status: 500, probability: 0.005 },
  { kind: "status", status: 429, retryAfterSeconds: 1, probability: 0.002 },
  { kind: "reset", probability: 0.005 },
  { kind: "lost-reply", probability: 0.005 },
  { kind: "html", probability: 0.003 },
  { kind: "truncated", probability: 0.003 },
  { kind: "latency", ms: 400, probability: 0.01 },
  { kind: "hang", call: "stats", probability: 0.01 },
  { kind: "hang", call: "list", probability: 0.005 },
];

/**
 * Faults for Environments in sessions mode only, because a scripted poller waits for an answer as long as its
 * connection lives.
 */
const OPERATOR_FAULTS: readonly FaultInput[] = [
  { kind: "hang", call: "poll", probability: 0.005 },
  { kind: "hang", call: "ack", after: true, probability: 0.01 },
];

/** An API server that has just started sometimes refuses a request. */
const PERSIST_MS = 60_000;
const AGAIN_MS = 500;

export interface Stage {
  readonly world: World;
  readonly fleet: Fleet;
  readonly cluster: Cluster;
  /** The proxy between the operator and the API server. */
  readonly network: TcpProxy;
  readonly random: Random;
  killOperator(): Promise<void>;
}

/** Makes trouble while sessions arrive. The schedule continues from one round to the next. */
export class Trouble {
  readonly #stage: Stage;
  readonly #counts = new Map<TroubleName, number>();
  readonly #dueInMs = new Map<TroubleName, number>();
  #revision = 0;
  #faults = 0;

  constructor(stage: Stage) {
    this.#stage = stage;
    for (const name of NAMES) {
      this.#counts.set(name, 0);
      this.#dueInMs.set(name, EVERY_MS[name] / 2);
    }
    stage.world.simulator.on("fault", () => {
      this.#faults += 1;
    });
  }

  /** The number of times each kind of trouble was made. */
  get counts(): Readonly<Record<string, number>> {
    return { ...Object.fromEntries(this.#counts), "faults of the Work API": this.#faults };
  }

  /**
   * Makes trouble for `forMs`, one kind at a time, then repairs everything.
   * @param options `kills`: whether operators are killed. A new process has another heap, so rests are not comparable.
   */
  async make(forMs: number, { kills }: { kills: boolean }): Promise<void> {
    const { simulator } = this.#stage.world;
    for (const fault of FAULTS) simulator.inject(fault);
    for (const { kind, environmentId } of this.#stage.fleet.members.values()) {
      if (kind.mode === "sessions") for (const fault of OPERATOR_FAULTS) simulator.inject({ ...fault, environmentId });
    }
    const endsAt = performance.now() + forMs;
    for (;;) {
      const [name, dueInMs] = this.#next(kills);
      const leftMs = endsAt - performance.now();
      const waitedFromMs = performance.now();
      await pause(Math.max(0, Math.min(dueInMs, leftMs)));
      if (dueInMs <= leftMs) await this.#perform(name);
      const passedMs = performance.now() - waitedFromMs;
      for (const [each, due] of this.#dueInMs) this.#dueInMs.set(each, due - passedMs);
      if (dueInMs > leftMs) break;
      this.#dueInMs.set(name, EVERY_MS[name] * (0.5 + this.#stage.random()));
      this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1);
    }
    simulator.clearFaults();
  }

  #next(kills: boolean): [TroubleName, number] {
    const possible = [...this.#dueInMs].filter(([name]) => kills || name !== "operator killed");
    return possible.reduce((soonest, each) => (each[1] < soonest[1] ? each : soonest));
  }

  async #perform(name: TroubleName): Promise<void> {
    const { fleet, network, cluster, random } = this.#stage;
    switch (name) {
      case "Pods killed, evicted, deleted":
        return await this.#endPod();
      case "keys rotated":
        return await persist(() => fleet.rotateKey(this.#anyMember()));
      case "templates changed":
        this.#revision += 1;
        return await persist(() => fleet.changeTemplate(this.#anyMember(), String(this.#revision)));
      case "connections to the API server cut":
        return network.cut();
      case "API server restarted":
        // On SIGTERM, the API server closes every watch. On SIGKILL, it doesn't. In both cases its caches then know no
        // earlier version.
        return await cluster.restartApiServer(random() < 0.5 ? "SIGTERM" : "SIGKILL");
      case "nodes drained":
        return await persist(() => this.#drain());
      case "operator killed":
        return await this.#stage.killOperator();
    }
  }

  /** Ends a random Pod, if possible one that serves a session. */
  async #endPod(): Promise<void> {
    const { world, random } = this.#stage;
    const serving = world.pods.filter(({ metadata }) => metadata.labels?.[LABEL_PHASE] !== undefined);
    const pod = pick(serving.length > 0 ? serving : world.pods, random);
    if (!pod) return;
    const { namespace, name } = pod.metadata;
    const draw = random();
    if (draw < 1 / 3) world.node.kill({ namespace, name }, { by: "OOMKilled" });
    else if (draw < 2 / 3) world.node.evict({ namespace, name });
    else await persist(() => this.#deletePod(pod));
  }

  async #drain(): Promise<void> {
    const { node } = this.#stage.world;
    await node.drain();
    await node.cordon(false);
  }

  async #deletePod({ metadata: { namespace = "", name = "" } }: Pod): Promise<void> {
    try {
      await this.#stage.world.kube.delete(PODS, { namespace, name });
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
  }

  #anyMember(): Member {
    const { fleet, random } = this.#stage;
    const member = pick([...fleet.members.values()], random);
    if (!member) throw new Error("no Environment exists");
    return member;
  }
}

async function persist(act: () => Promise<void>): Promise<void> {
  const endsAt = performance.now() + PERSIST_MS;
  for (;;) {
    try {
      return await act();
    } catch (error) {
      if (!(error instanceof KubeApiError) || performance.now() > endsAt) throw error;
      await pause(AGAIN_MS);
    }
  }
}

const NAMES = Object.keys(EVERY_MS) as TroubleName[];

function pick<T>(values: readonly T[], random: Random): T | undefined {
  return values[Math.floor(random() * values.length)];
}
