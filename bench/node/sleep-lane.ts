import type { ScriptInput } from "../../simulator/script.ts";
import type { Simulator } from "../../simulator/simulator.ts";
import type { Pod } from "../../src/kube/resource.ts";
import { ENVIRONMENTS } from "../../src/reconcile/finalizer.ts";
import { perSession } from "../../test/support/session-volumes.ts";
import type { Served } from "../support/stand.ts";
import { createEnvironment, type SessionsInput } from "./environment.ts";
import type { Inside } from "./inside.ts";
import { Lane } from "./lane.ts";
import { isSleeping } from "./pod-view.ts";
import type { Start } from "./starts.ts";
import { provideLocalVolumes } from "./volumes.ts";
import type { Requests } from "./worker.ts";

/** `volume`: each Pod has a volume, which becomes its session's. */
export type SleepKind = "pod" | "volume";

export interface SleepLaneInput {
  readonly kind: SleepKind;
  /** Also the namespace. */
  readonly name: string;
  readonly simulator: Simulator;
  /** Pods that wait for new sessions: none unless given. */
  readonly warm?: number;
  readonly maxConcurrent: number;
  /** The number of volumes for new Pods. */
  readonly volumes?: number;
  readonly requests?: Requests;
}

/** One item of a session that sleeps before or after it. */
export interface Turn extends Start {
  readonly workId: string;
  readonly sessionId: string;
  /** The Pod's uid. */
  readonly uid: string;
  /** The outputs of the item's tool calls. */
  readonly outputs: readonly string[];
}

/** Longer than any measurement. */
const SLEEP_SECONDS = 86_400;
/** More than fit on the node. */
const MAX_SLEEPING = 1_000;

/** Sessions that sleep in Berth's Pods. */
export class SleepLane extends Lane {
  readonly sleepKind: SleepKind;
  readonly #warm: number;

  private constructor({ kind, warm = 0 }: SleepLaneInput, served: Served, inside: Inside<unknown>) {
    super({ name: kind }, served, inside);
    this.sleepKind = kind;
    this.#warm = warm;
  }

  static async create(input: SleepLaneInput, inside: Inside<unknown>): Promise<SleepLane> {
    const { kind, name, simulator, volumes = 0 } = input;
    const namespace = await inside.stand.namespace(name);
    const { id: environmentId } = simulator.createEnvironment();
    const served = { namespace, name: "bench", simulator, environmentId };
    if (kind === "volume") await provideLocalVolumes(inside, namespace, volumes);
    const sessions = sessionsOf(input, namespace);
    if (!(await createEnvironment(inside, served, sessions, input.requests)))
      throw new Error(`the operator refuses ${kind}`);
    return new SleepLane(input, served, inside);
  }

  async ready(): Promise<void> {
    await this.replacing;
    await this.pods.untilWaiting(this.#warm);
  }

  /** Queues an item of a new session, or of this one, and resolves when the item has ended. */
  async start(script?: ScriptInput, sessionId?: string): Promise<Turn> {
    const item = sessionId === undefined ? this.enqueue(script) : this.say(sessionId, script);
    let uid = "";
    const start = await this.finish(item, async () => {
      const pod = await this.podOf(item);
      uid = pod.metadata.uid ?? "";
      return pod;
    });
    return { ...start, workId: item.id, sessionId: item.sessionId ?? "", uid, outputs: this.outputsOf(item) };
  }

  /** Resolves when the session sleeps after this item, and its next turn waits. */
  untilAsleep({ workId }: Turn): Promise<Pod> {
    return this.pods.untilAsleep(workId);
  }

  /** Does both. */
  async startAndSleep(script?: ScriptInput, sessionId?: string): Promise<Turn> {
    const turn = await this.start(script, sessionId);
    await this.untilAsleep(turn);
    return turn;
  }

  /** The number of sessions that sleep. */
  asleep(): number {
    return this.pods.list.filter(isSleeping).length;
  }

  /** Deletes the session's Pod. `ready` waits until it is gone. */
  end({ pod }: Turn): void {
    this.replacing = this.remove(pod);
  }

  /** Deletes the Environment and resolves when its Pods are gone. */
  async endAll(): Promise<void> {
    const { namespace, name } = this.served;
    await this.replacing;
    await this.stand.kube.delete(ENVIRONMENTS, { namespace, name });
    await this.untilEmpty();
  }
}

function sessionsOf({ kind, warm = 0, maxConcurrent }: SleepLaneInput, namespace: string): SessionsInput {
  const workspace =
    kind === "pod"
      ? { type: "Pod", sleepSeconds: SLEEP_SECONDS }
      : perSession({ namespace }, { sleepSeconds: SLEEP_SECONDS }).workspace;
  return { warm, maxConcurrent, maxSleeping: MAX_SLEEPING, workspace };
}
