import type { ItemRecord } from "../../../../simulator/item.ts";
import type { Violation } from "../../../../simulator/violations.ts";
import { LABEL_PHASE } from "../../../../src/api/names.ts";
import { type Pod, SECRETS } from "../../../../src/kube/resource.ts";
import { readPodState } from "../../../../src/pods/pod-state.ts";
import { newestTurn } from "../../../../src/pods/turns.ts";
import { readJournal } from "../../../../src/protocol/journal.ts";
import { SharedPodError } from "../../../../testbed/node/scripted-runtime.ts";
import { FrameError } from "../../../../testbed/node/session-frame.ts";
import type { World } from "../../../support/world.ts";
import { Witness } from "../witness.ts";
import { runningSession, sessionOf, workOf } from "./looks.ts";
import type { Setting } from "./steps.ts";

/**
 * What must hold at every moment for an Environment with a Pod per session. The numbers are those of the design's
 * invariants.
 */
export class SessionsWitness extends Witness {
  /** By work item: the Pods and turns that ran it. */
  readonly ran = new Map<string, Set<string>>();
  /** The limit of the current spec. */
  maxConcurrentNow: number;
  #maxConcurrent: number;
  readonly #sleeps: boolean;
  /** Sessions that found files of another one, and lines that a container must not get. */
  readonly #shared: string[] = [];

  constructor(world: World, setting: Setting) {
    super(world);
    this.#maxConcurrent = setting.maxConcurrent;
    this.maxConcurrentNow = setting.maxConcurrent;
    this.#sleeps = setting.sleepSeconds > 0;
    this.watch();
    world.node.subscribe((change) => {
      if (change.type !== "fault") return;
      const { error } = change;
      if (error instanceof SharedPodError || error instanceof FrameError) this.#shared.push(error.message);
    });
    world.simulator.on("item", (item, event) => {
      if (event === "acknowledged") this.#acknowledged(item);
    });
  }

  allows(maxConcurrent: number): void {
    this.maxConcurrentNow = maxConcurrent;
    this.#maxConcurrent = Math.max(this.#maxConcurrent, maxConcurrent);
  }

  override async settled(): Promise<void> {
    await super.settled();
    this.check("11 no Pod and no line serves two sessions", this.#shared.length > 0 && this.#shared.join("; "));
  }

  /** A stock worker with the environment key stops its item even if its first heartbeat was not answered. */
  protected override isOurs({ kind, by }: Violation): boolean {
    return kind !== "stop-unfenced" || by.workerId !== undefined;
  }

  protected override podsChanged(pods: readonly Pod[]): void {
    const running = pods.filter(runningSession);
    for (const pod of running) {
      const work = workOf(pod) ?? "";
      this.ran.set(work, (this.ran.get(work) ?? new Set()).add(`${pod.metadata.uid} ${newestTurn(pod)}`));
    }
    for (const pod of pods) this.#oneTurn(pod);
    this.#onePodASession(running);
    this.#countPods(pods);
  }

  #onePodASession(running: readonly Pod[]): void {
    const bySession = new Map<string, string[]>();
    for (const pod of running) {
      const session = sessionOf(pod) ?? "";
      bySession.set(session, [...(bySession.get(session) ?? []), pod.metadata.name ?? ""]);
    }
    const doubled = [...bySession].find(([, names]) => names.length > 1);
    this.check("2 one live Pod a session", doubled && `${doubled[0]} runs in ${doubled[1].join(" and ")}`);
  }

  #oneTurn({ metadata: { name }, status }: Pod): void {
    const turns = (status?.ephemeralContainerStatuses ?? []).filter(({ state }) => state?.running);
    const wrong = turns.length > 1 && `${name} runs ${turns.map((turn) => turn.name).join(" and ")}`;
    this.check("12 one turn of a Pod at a time", wrong);
  }

  /**
   * Counts Pods that use capacity: those that have not ended and are not being deleted. A Pod that a killed operator
   * requested may appear later.
   */
  #countPods(pods: readonly Pod[]): void {
    const live = pods.filter(
      (pod) =>
        !pod.metadata.deletionTimestamp &&
        !["ended", "sleeping"].includes(pod.metadata.labels?.[LABEL_PHASE] ?? "") &&
        readPodState(pod).is !== "ended",
    );
    const byOwner = new Map<string, number>();
    for (const { metadata } of live) {
      const owner = metadata.ownerReferences?.[0]?.uid ?? "";
      byOwner.set(owner, (byOwner.get(owner) ?? 0) + 1);
    }
    // Pods that wake may appear beside free Pods, which are then removed.
    const woken = this.#sleeps ? this.#maxConcurrent : 0;
    const most = this.#maxConcurrent + 1 + woken + this.kills * this.#maxConcurrent;
    const count = Math.max(0, ...byOwner.values());
    this.check("4 no more Pods than maxConcurrent", count > most && `${count} at a time, at most ${most} are allowed`);
  }

  protected override podDeleted(pod: Pod): void {
    if (!runningSession(pod)) return;
    const work = workOf(pod) ?? "";
    const item = this.world.simulator.items(this.world.environmentId).find(({ id }) => id === work);
    const isBusy = item !== undefined && this.isHeld(item) && item.acks.length === 1;
    const wrong = !this.isExcusedFor(pod) && isBusy && `${pod.metadata.name} with ${work}`;
    this.check("4 no busy Pod ended by a change", wrong);
  }

  #acknowledged({ id, type }: ItemRecord): void {
    if (type === "session") this.look(this.#lookForSecret(id));
  }

  async #lookForSecret(workId: string): Promise<void> {
    const { kube, namespace, simulator } = this.world;
    const { items } = await kube.list(SECRETS, { namespace });
    const isThere = items.some((secret) => readJournal(secret)?.workId === workId);
    // An item that has been settled meanwhile needs no record.
    const isLive = simulator.item(workId).state !== "stopped";
    this.check("1 acknowledged with its Secret durable", !isThere && isLive && `${workId} has none`);
  }
}
