import type { ItemRecord } from "../../simulator/item.ts";
import type { ScriptInput } from "../../simulator/script.ts";
import type { Simulator } from "../../simulator/simulator.ts";
import { errorText } from "../../src/core/errors.ts";
import { type Pod, SECRETS } from "../../src/kube/resource.ts";
import { stateOf } from "../../src/pods/pod-state.ts";
import { until } from "../support/until.ts";
import { BareStarter } from "./bare.ts";
import type { Inside } from "./inside.ts";
import type { BareKind } from "./kinds.ts";
import { BareLane, settle } from "./lane.ts";
import { SANDBOX_PORT } from "./plain-pods.ts";
import { isWaiting } from "./pod-view.ts";
import type { Start } from "./starts.ts";
import { claimVolume, provideLocalVolumes } from "./volumes.ts";
import type { Requests } from "./worker.ts";

/** A session whose Pod runs between its items. */
export interface Kept {
  readonly sessionId: string;
  /** As last seen before its first item. */
  readonly pod: Pod;
  /** Its volume's claim. */
  readonly claim: string;
}

/** An item of the reference, with what its tool calls printed. */
export interface KeptTurn extends Start {
  readonly sessionId: string;
  readonly outputs: readonly string[];
}

export interface KeptLaneInput {
  /** Also the namespace. */
  readonly name: string;
  readonly simulator: Simulator;
  /** The most sessions: each has a volume. */
  readonly sessions: number;
  readonly requests?: Requests;
}

const RUNNING: BareKind = { server: "bare loop", way: "sandbox", isAhead: false };
const NEW: BareKind = { server: "bare loop", way: "cold", isAhead: false };

/**
 * The reference for sessions that sleep: the Pod of a session is kept running between its items, with a server that
 * starts the stock worker on a POST. When that Pod is gone, the session's next item gets a new one with the session's
 * volume. The bare loop serves it.
 */
export class KeptLane extends BareLane {
  readonly #inside: Inside<unknown>;
  readonly #own: BareStarter;
  #begun = 0;

  private constructor(input: KeptLaneInput, environmentId: string, inside: Inside<unknown>) {
    const { name, simulator, requests } = input;
    const starter = new BareStarter({ kubeconfig: inside.stand.cluster.kubeconfig });
    super({ name: "kept" }, RUNNING, { namespace: name, name, simulator, environmentId }, inside, starter, requests);
    this.#inside = inside;
    this.#own = starter;
  }

  static async create(input: KeptLaneInput, inside: Inside<unknown>): Promise<KeptLane> {
    const namespace = await inside.stand.namespace(input.name);
    await provideLocalVolumes(inside, namespace, input.sessions);
    return new KeptLane(input, input.simulator.createEnvironment().id, inside);
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    this.#own[Symbol.dispose]();
    await super[Symbol.asyncDispose]();
  }

  override async ready(): Promise<void> {
    await this.replacing;
  }

  /** Creates a Pod and serves the first item of a new session in it. */
  async begin(random: () => number, script?: ScriptInput): Promise<Kept> {
    this.#begun += 1;
    const claim = `session-${this.#begun}`;
    await claimVolume(this.#inside, this.served.namespace, claim);
    const { metadata } = await this.createPod(claim);
    const runs = (pod: Pod) => pod.metadata.name === metadata.name && isWaiting(pod);
    const pod = await this.pods.until(`${metadata.name} to run`, (pods) => pods.find(runs));
    const url = `http://${pod.status?.podIP}:${SANDBOX_PORT}/`;
    await until(`${metadata.name} to answer`, () => fetch(url).then(() => null, errorText));
    await settle([this], random);
    const { sessionId } = await this.#serveIn(pod, () => this.enqueue(script));
    return { sessionId, pod, claim };
  }

  /** Serves the session's next item in its Pod. */
  next({ sessionId, pod }: Kept, script?: ScriptInput): Promise<KeptTurn> {
    return this.#serveIn(pod, () => this.say(sessionId, script));
  }

  /** Serves the session's next item in a new Pod with its volume, and deletes that Pod. Its earlier Pod must be gone. */
  async comeBack({ sessionId, claim }: Kept, script?: ScriptInput): Promise<KeptTurn> {
    const pod = await this.render({ way: NEW.way, claim });
    const turn = await this.#serveIn(pod, () => this.say(sessionId, script), NEW);
    this.replacing = this.remove(turn.pod);
    return turn;
  }

  /** Creates Pods until one finds no room on the node. Resolves with the number of those that run. */
  async fill(): Promise<number> {
    for (let count = 0; ; count += 1) {
      const { metadata } = await this.createPod();
      const pod = await this.pods.until(`${metadata.name} to run or to find no room`, (pods) =>
        pods.find((pod) => pod.metadata.name === metadata.name && (isWaiting(pod) || isUnschedulable(pod))),
      );
      if (isUnschedulable(pod)) return count;
    }
  }

  async #serveIn(pod: Pod, enqueue: () => ItemRecord, by?: BareKind): Promise<KeptTurn> {
    const { start, item } = await this.serve(pod, enqueue, by);
    // The next item's journal has the same name.
    await this.stand.kube.delete(SECRETS, { namespace: this.served.namespace, name: start.pod });
    return { ...start, sessionId: item.sessionId ?? "", outputs: this.outputsOf(item) };
  }
}

function isUnschedulable(pod: Pod): boolean {
  const state = stateOf(pod);
  return state.is === "unscheduled" && state.reason !== "";
}
