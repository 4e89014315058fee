import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import type { ItemRecord } from "../../simulator/item.ts";
import type { ScriptInput } from "../../simulator/script.ts";
import type { Simulator } from "../../simulator/simulator.ts";
import { LABEL_WORK_ID } from "../../src/api/names.ts";
import { isNotFound } from "../../src/kube/errors.ts";
import { PODS, type Pod, SECRETS } from "../../src/kube/resource.ts";
import { STARTED_MARKER } from "../../src/pods/frame.ts";
import { endedTurn, hasTurns, isAsleep, newestTurn, turnName } from "../../src/pods/turns.ts";
import type { ControlPlane, Served, Stand } from "../support/stand.ts";
import type { BareStarter } from "./bare.ts";
import { createEnvironment } from "./environment.ts";
import type { Inside } from "./inside.ts";
import { type BareKind, type BerthKind, type Kind, WARM } from "./kinds.ts";
import { plainPod, type Way } from "./plain-pods.ts";
import { isRemoved, isWaiting, PodView } from "./pod-view.ts";
import { millisecondsOf, type Start } from "./starts.ts";
import { CONTAINER, PROGRAM_STARTED, type Requests } from "./worker.ts";

const PATIENCE_MS = 180_000;
const LOG_PATIENCE_MS = 5_000;
const LOG_LOOK_MS = 20;
/** A session without any turns ends at once. */
const SCRIPT: ScriptInput = { turns: [] };

/**
 * From the moment in which the containers of the previous start have ended and all Pods wait, to the next start. The
 * random part makes it independent of the kubelet's own rhythm.
 */
const SETTLE_MS = 200;
const RANDOM_SETTLE_MS = 300;

/** Resolves when a start can be measured: nothing is left of earlier ones. */
export async function settle(lanes: readonly Pick<Lane, "ready">[], random: () => number): Promise<void> {
  await Promise.all(lanes.map((lane) => lane.ready()));
  await pause(SETTLE_MS + random() * RANDOM_SETTLE_MS);
}

export function shuffled<T>(items: readonly T[], random: () => number): T[] {
  return items
    .map((item) => ({ item, rank: random() }))
    .sort((a, b) => a.rank - b.rank)
    .map(({ item }) => item);
}

/** Queues the next item of a session, whose last one has ended. */
export function sayTo(simulator: Simulator, sessionId: string, script = SCRIPT): ItemRecord {
  const before = simulator.session(sessionId).workIds.length;
  simulator.sendMessage(sessionId, script);
  const id = simulator.session(sessionId).workIds[before];
  if (id === undefined) throw new Error(`session ${sessionId} got no new item`);
  return simulator.item(id);
}

export type LaneKind = Pick<Kind, "name" | "hasProgramMarker">;

/** Starts sessions of one kind in its own namespace, one at a time. */
export abstract class Lane implements AsyncDisposable {
  readonly kind: LaneKind;
  readonly served: Served;
  protected readonly stand: Stand<ControlPlane>;
  protected readonly pods: PodView;
  readonly #podLogs: string;
  /** The removal of the last start's Pod, and the creation of another one. */
  protected replacing: Promise<unknown> = Promise.resolve();

  constructor(kind: LaneKind, served: Served, { stand, node }: Inside<unknown>) {
    this.kind = kind;
    this.served = served;
    this.stand = stand;
    this.pods = new PodView(stand.kube, served.namespace);
    this.#podLogs = node.podLogs;
  }

  /** Resolves when the next session can start, and nothing of the previous one is left. */
  abstract ready(): Promise<void>;
  /** Queues an item and resolves when the session has ended. */
  abstract start(): Promise<Start>;

  async [Symbol.asyncDispose](): Promise<void> {
    await this.replacing;
    await this.pods[Symbol.asyncDispose]();
  }

  /**
   * Deletes the Pod of an ended session while its container exits. Otherwise the kubelet, which looks for ended
   * containers once a second, and then the operator would take two seconds longer.
   */
  protected async remove(name: string): Promise<void> {
    const { namespace } = this.served;
    await this.stand.kube.delete(PODS, { namespace, name }).catch((error: unknown) => {
      if (!isNotFound(error)) throw error;
    });
    const isLeft = (pod: Pod) => pod.metadata.name === name && !isRemoved(pod);
    await this.pods.until(`${name} to end`, (pods) => !pods.some(isLeft));
  }

  protected enqueue(script = SCRIPT): ItemRecord {
    return this.served.simulator.enqueue(this.served.environmentId, { script });
  }

  /** Queues the next item of a session, whose last one has ended. */
  protected say(sessionId: string, script = SCRIPT): ItemRecord {
    return sayTo(this.served.simulator, sessionId, script);
  }

  /** What the tool calls of an item printed. */
  protected outputsOf({ id, sessionId = "" }: ItemRecord): string[] {
    const calls = this.served.simulator.session(sessionId).toolCalls.filter(({ answeredBy }) => answeredBy === id);
    return calls.map(({ output = "" }) => output);
  }

  /** Evicts a Pod, as kubectl drain does. Resolves when it is gone. */
  async evict(name: string): Promise<void> {
    const { namespace } = this.served;
    const metadata = { name, namespace };
    await this.stand.kube.raw("POST", `/api/v1/namespaces/${namespace}/pods/${name}/eviction`, {
      ...{ apiVersion: "policy/v1", kind: "Eviction", metadata },
    });
    await this.pods.until(`${name} to end`, (pods) => !pods.some((pod) => pod.metadata.name === name));
  }

  /** Resolves when the namespace has no Pod. */
  async untilEmpty(): Promise<void> {
    await this.pods.until("all Pods to be deleted", (pods) => pods.length === 0);
  }

  /** The Pod that runs this item of a Berth session, or ran it last. */
  protected podOf({ id }: ItemRecord): Promise<Pod> {
    return this.pods.until(`a Pod with item ${id}`, (pods) =>
      pods.find(({ metadata }) => metadata.labels?.[LABEL_WORK_ID] === id),
    );
  }

  /** Resolves when the session of an item has ended. */
  protected async finish(item: ItemRecord, podOf: () => Promise<Pod>): Promise<Start> {
    const { namespace } = this.served;
    await this.until(item, "its first heartbeat", ({ firstBeatAt }) => firstBeatAt !== undefined);
    const pod = await podOf();
    // The log is deleted with the Pod.
    const turn = turnOf(pod);
    const line = this.kind.hasProgramMarker ? STARTED_MARKER : PROGRAM_STARTED;
    const container = turn === 0 ? CONTAINER : turnName(turn);
    const startedAt = await this.#loggedAt(pod, { container, line, since: item.createdAt });
    const last = await this.until(item, "its end", isStopped);
    const { createdAt: queuedAt, offeredAt, acks, firstBeatAt } = last;
    if (offeredAt === undefined || acks.length !== 1 || acks[0] === undefined || firstBeatAt === undefined) {
      throw new Error(`${this.kind.name}: item ${item.id} was not served exactly once: ${JSON.stringify(last)}`);
    }
    const times = { queuedAt, offeredAt, acknowledgedAt: acks[0].at, startedAt, beatAt: firstBeatAt };
    return { kind: this.kind.name, namespace, pod: pod.metadata.name ?? "", turn, ...times };
  }

  protected until({ id }: ItemRecord, event: string, predicate: (item: ItemRecord) => boolean): Promise<ItemRecord> {
    const { simulator } = this.served;
    const look = () => {
      const item = simulator.item(id);
      return predicate(item) && item;
    };
    return simulator.waitFor(look, { what: `${this.kind.name}: item ${id}, ${event}`, timeoutMs: PATIENCE_MS });
  }

  /**
   * When containerd read a line of the container's output, in milliseconds since the epoch.
   * @param since the item was queued: the container may have run earlier ones
   */
  async #loggedAt(
    { metadata }: Pod,
    { container, line, since }: { readonly container: string; readonly line: string; readonly since: number },
  ): Promise<number> {
    const folder = `${metadata.namespace}_${metadata.name}_${metadata.uid}`;
    const file = join(this.#podLogs, folder, container, "0.log");
    const deadline = performance.now() + LOG_PATIENCE_MS;
    for (;;) {
      const text = await readFile(file, "utf8").catch(() => "");
      const lines = text.split("\n").filter((entry) => entry.endsWith(` stdout F ${line}`));
      const found = lines.map((entry) => millisecondsOf(entry.split(" ", 1)[0] ?? "")).find((at) => at >= since);
      if (found !== undefined) return found;
      if (performance.now() > deadline) throw new Error(`${file} does not contain '${line}': ${text}`);
      await pause(LOG_LOOK_MS);
    }
  }
}

/** Sessions in Berth's Pods. */
export class BerthLane extends Lane {
  readonly #warm: number;

  private constructor(kind: Kind, { sessions }: BerthKind, served: Served, inside: Inside<unknown>) {
    super(kind, served, inside);
    this.#warm = sessions.warm;
  }

  /** Creates the Environment. Null: the operator's CRD doesn't have this way of parking. */
  static async create(kind: Kind, by: BerthKind, served: Served, inside: Inside<unknown>): Promise<BerthLane | null> {
    const sessions = { maxConcurrent: 2 * WARM, ...by.sessions };
    if (!(await createEnvironment(inside, served, sessions))) return null;
    return new BerthLane(kind, by, served, inside);
  }

  async ready(): Promise<void> {
    await this.replacing;
    await this.pods.untilWaiting(this.#warm);
  }

  async start(): Promise<Start> {
    const item = this.enqueue();
    const start = await this.finish(item, () => this.podOf(item));
    this.replacing = this.remove(start.pod);
    return start;
  }
}

/** Sessions in plain Pods, served by the bare loop. */
export class BareLane extends Lane {
  readonly #by: BareKind;
  readonly #requests: Requests | undefined;
  readonly #starter: BareStarter;
  #made = 0;

  constructor(
    kind: LaneKind,
    by: BareKind,
    served: Served,
    inside: Inside<unknown>,
    starter: BareStarter,
    requests?: Requests,
  ) {
    super(kind, served, inside);
    this.#by = by;
    this.#requests = requests;
    this.#starter = starter;
  }

  async ready(): Promise<void> {
    const warm = this.#by.way === "cold" ? 0 : WARM;
    while (this.#made < warm) await this.createPod();
    await this.replacing;
    await this.pods.untilWaiting(warm);
  }

  async start(): Promise<Start> {
    const pod = this.#by.way === "cold" ? await this.render() : oldest(this.pods.list.filter(isWaiting));
    const { name = "" } = pod.metadata;
    const { start } = await this.serve(pod, () => this.enqueue());
    this.replacing = Promise.all([this.#delete(name), this.#by.way === "cold" ? undefined : this.createPod()]);
    return start;
  }

  /** Has the bare loop give this Pod the item that `enqueue` queues. Resolves when the item has ended. */
  protected async serve(
    pod: Pod,
    enqueue: () => ItemRecord,
    by = this.#by,
  ): Promise<{ start: Start; item: ItemRecord }> {
    const { simulator, namespace, environmentId } = this.served;
    const { name = "" } = pod.metadata;
    const started = this.#starter.serve({
      ...{ ...by, namespace, pod, environmentId },
      baseUrl: simulator.url,
      key: simulator.environmentKey(environmentId),
    });
    const polls = () => simulator.pollsWaiting(environmentId) > 0;
    await simulator.waitFor(polls, { what: `${this.kind.name} to poll`, timeoutMs: PATIENCE_MS });
    const item = enqueue();
    const current = () => this.pods.until(`Pod ${name}`, (pods) => pods.find(({ metadata }) => metadata.name === name));
    const start = await this.finish(item, current);
    await started;
    return { start, item };
  }

  protected async createPod(claim?: string): Promise<Pod> {
    return await this.stand.kube.create(PODS, await this.render({ claim }));
  }

  async #delete(name: string): Promise<void> {
    const { namespace } = this.served;
    await this.stand.kube.delete(SECRETS, { namespace, name });
    await this.remove(name);
  }

  protected async render({ way = this.#by.way, claim }: { way?: Way; claim?: string | undefined } = {}): Promise<Pod> {
    const { namespace, simulator, environmentId } = this.served;
    this.#made += 1;
    const input = { namespace, name: `plain-${this.#made}`, baseUrl: simulator.url, environmentId, claim };
    return await plainPod(way, { ...input, requests: this.#requests });
  }
}

/** The turn that runs the Pod's item, or ran it last. 0: the Pod has no turns. */
function turnOf(pod: Pod): number {
  if (!hasTurns(pod)) return 0;
  return isAsleep(pod) ? endedTurn(pod) : newestTurn(pod);
}

const isStopped = ({ state }: ItemRecord) => state === "stopped";

function oldest(pods: readonly Pod[]): Pod {
  const [first] = pods.toSorted((a, b) => createdAt(a) - createdAt(b));
  if (!first) throw new Error("no Pod waits");
  return first;
}

const createdAt = ({ metadata }: Pod) => Date.parse(metadata.creationTimestamp ?? "");
