import { mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { ScriptInput } from "../../simulator/script.ts";
import type { Simulator } from "../../simulator/simulator.ts";
import { LABEL_WORK_ID } from "../../src/api/names.ts";
import type { Pod } from "../../src/kube/resource.ts";
import { ENVIRONMENTS } from "../../src/reconcile/finalizer.ts";
import { allowVolumes, perSession, provideVolume } from "../../test/support/session-volumes.ts";
import type { Served } from "../support/stand.ts";
import { createEnvironment, type SessionsInput } from "./environment.ts";
import type { Inside } from "./inside.ts";
import { Lane } from "./lane.ts";
import { isSleeping } from "./pod-view.ts";
import type { Start } from "./starts.ts";

/** `volume`: a Pod belongs to one session from its creation, so none waits for any session. */
export type SleepKind = "pod" | "volume";

export interface SleepLaneInput {
  readonly kind: SleepKind;
  /** Also the namespace. */
  readonly name: string;
  readonly simulator: Simulator;
  /** Pods that wait for new sessions: none unless given. */
  readonly warm?: number;
  readonly maxConcurrent: number;
  /** The number of new sessions that will have a volume. */
  readonly volumes?: number;
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
    if (kind === "volume") await provideVolumes(inside, namespace, volumes);
    const sessions = sessionsOf(input, namespace);
    if (!(await createEnvironment(inside, served, sessions))) throw new Error(`the operator refuses ${kind}`);
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
    const session = item.sessionId ?? "";
    const calls = this.served.simulator.session(session).toolCalls.filter(({ answeredBy }) => answeredBy === item.id);
    const outputs = calls.map(({ output = "" }) => output);
    return { ...start, workId: item.id, sessionId: session, uid, outputs };
  }

  /** Resolves when the session sleeps after this item, and its next turn waits. */
  untilAsleep({ workId }: Turn): Promise<Pod> {
    const isIts = (pod: Pod) => isSleeping(pod) && pod.metadata.labels?.[LABEL_WORK_ID] === workId;
    return this.pods.until(`a sleeping Pod after item ${workId}`, (pods) => pods.find(isIts));
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
    await this.pods.until("all Pods to be gone", (pods) => pods.length === 0);
  }
}

function sessionsOf({ kind, warm = 0, maxConcurrent }: SleepLaneInput, namespace: string): SessionsInput {
  const workspace =
    kind === "pod"
      ? { type: "Pod", sleepSeconds: SLEEP_SECONDS }
      : perSession({ namespace }, { sleepSeconds: SLEEP_SECONDS }).workspace;
  return { warm, maxConcurrent, maxSleeping: MAX_SLEEPING, workspace };
}

/** Folders of the node as volumes, each for one session. */
async function provideVolumes({ stand, node }: Inside<unknown>, namespace: string, count: number): Promise<void> {
  const world = { kube: stand.kube, namespace };
  await allowVolumes(world);
  const isThere = { key: "kubernetes.io/hostname", operator: "In", values: [node.nodeName] };
  const nodeAffinity = { required: { nodeSelectorTerms: [{ matchExpressions: [isThere] }] } };
  for (let at = 0; at < count; at += 1) {
    const path = join(dirname(node.podLogs), "volumes", namespace, String(at));
    await mkdir(path, { recursive: true });
    await provideVolume(world, `${namespace}-${at}`, { local: { path }, nodeAffinity });
  }
}
