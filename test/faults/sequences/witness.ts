import type { ItemRecord } from "../../../simulator/item.ts";
import { violationText } from "../../../simulator/violations.ts";
import { LABEL_PHASE } from "../../../src/api/names.ts";
import { realClock } from "../../../src/core/clock.ts";
import { type Pod, SECRETS } from "../../../src/kube/resource.ts";
import { readJournal } from "../../../src/sessions/journal.ts";
import { readPodState } from "../../../src/sessions/pod-state.ts";
import { LeakSearch, leakText } from "../../support/leak-search.ts";
import type { World } from "../../support/world.ts";
import { runningSession, sessionOf, workOf } from "./looks.ts";
import type { Setting } from "./steps.ts";

/** A beat so recent says that the lease is held, however late it is heard of. */
const FRESH_BEAT_MS = 4_000;

/** What must hold at every moment, and how often it was looked at. The numbers are the design's invariants. */
export type Invariant =
  | "1 acknowledged with its Secret durable"
  | "2 one live Pod a session"
  | "3 the Work API's protocol"
  | "4 no busy Pod ended by a change"
  | "4 no more Pods than maxConcurrent"
  | "7 no credential outside of Secrets"
  | "8 9 no rejection without a handler"
  | "served once, or stopped for a reason that is told"
  | "everything settles"
  | "Ready when all is well"
  | "nothing is left of a deleted Environment";

/** Watches one world for what must never be, as the API server and the Work API have it. */
export class Witness {
  readonly wrongs: string[] = [];
  readonly checked = new Map<Invariant, number>();
  /** By work item: uids of the Pods that ran it. */
  readonly ran = new Map<string, Set<string>>();
  kills = 0;
  kubeTroubled = false;
  environmentDeleted = false;
  /** As the spec has it. */
  maxConcurrentNow: number;
  readonly #world: World;
  readonly #beatMs = new Map<string, number>();
  readonly #excused = new Set<string>();
  readonly #deleting = new Set<string>();
  readonly #seen = new Map<string, string>();
  readonly #looks = new Set<Promise<void>>();
  #search = new LeakSearch([]);
  #searched = 0;
  #isExcused = false;
  #maxConcurrent: number;

  constructor(world: World, setting: Setting) {
    this.#world = world;
    this.#maxConcurrent = setting.maxConcurrent;
    this.maxConcurrentNow = setting.maxConcurrent;
    world.onPodChange(() => this.#podsChanged());
    world.simulator.on("item", (item, event) => {
      if (event === "acknowledged") this.#acknowledged(item);
    });
    world.simulator.on("request", ({ call, status, workId }) => {
      if (call === "heartbeat" && status === 200 && workId) this.#beatMs.set(workId, realClock.monotonic());
    });
  }

  /** Something is done to this Pod that may end it. */
  excuse(pod: Pod): void {
    this.#excused.add(pod.metadata.uid ?? "");
  }

  /** From now on the end of a busy Pod may have a cause that cannot be told from here. */
  excuseAll(): void {
    this.#isExcused = true;
  }

  allows(maxConcurrent: number): void {
    this.maxConcurrentNow = maxConcurrent;
    this.#maxConcurrent = Math.max(this.#maxConcurrent, maxConcurrent);
  }

  check(invariant: Invariant, wrong: string | undefined | false): void {
    this.checked.set(invariant, (this.checked.get(invariant) ?? 0) + 1);
    if (wrong && !this.wrongs.includes(`${invariant}: ${wrong}`)) this.wrongs.push(`${invariant}: ${wrong}`);
  }

  /** What was begun to be looked at is looked at. */
  async settled(): Promise<void> {
    await Promise.all(this.#looks);
    const { violations } = this.#world.simulator;
    this.check("3 the Work API's protocol", violations.length > 0 && violations.map(violationText).join("; "));
  }

  /** Looks for every credential that was ever given out, in every form in which one may get into a text. */
  checkForLeaks(where: string, text: string): void {
    const credentials = this.#world.simulator.credentials();
    if (credentials.length > this.#searched) {
      this.#searched = credentials.length;
      this.#search = new LeakSearch(credentials);
    }
    const leaks = this.#search.find([{ where, text }]);
    this.check("7 no credential outside of Secrets", leaks.length > 0 && leaks.map(leakText).join("; "));
  }

  #podsChanged(): void {
    const { pods } = this.#world;
    const running = pods.filter(runningSession);
    for (const pod of running) {
      const work = workOf(pod) ?? "";
      this.ran.set(work, (this.ran.get(work) ?? new Set()).add(pod.metadata.uid ?? ""));
    }
    this.#onePodASession(running);
    this.#countPods(pods);
    for (const pod of pods) {
      const { uid = "", resourceVersion = "", deletionTimestamp } = pod.metadata;
      if (this.#seen.get(uid) === resourceVersion) continue;
      this.#seen.set(uid, resourceVersion);
      this.checkForLeaks(`Pod ${pod.metadata.name}`, JSON.stringify(pod));
      if (deletionTimestamp && !this.#deleting.has(uid)) {
        this.#deleting.add(uid);
        if (runningSession(pod)) this.#busyPodDeleted(pod);
      }
    }
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

  /** Pods that take room: not over, not going. A Pod that a killed operator had asked for may come to stand later. */
  #countPods(pods: readonly Pod[]): void {
    const live = pods.filter(
      (pod) =>
        !pod.metadata.deletionTimestamp &&
        pod.metadata.labels?.[LABEL_PHASE] !== "finished" &&
        readPodState(pod).is !== "ended",
    );
    const byOwner = new Map<string, number>();
    for (const { metadata } of live) {
      const owner = metadata.ownerReferences?.[0]?.uid ?? "";
      byOwner.set(owner, (byOwner.get(owner) ?? 0) + 1);
    }
    const most = this.#maxConcurrent + 1 + this.kills * this.#maxConcurrent;
    const count = Math.max(0, ...byOwner.values());
    this.check("4 no more Pods than maxConcurrent", count > most && `${count} at a time, at most ${most} are allowed`);
  }

  #busyPodDeleted(pod: Pod): void {
    const work = workOf(pod) ?? "";
    const item = this.#world.simulator.items(this.#world.environmentId).find(({ id }) => id === work);
    const isExcused = this.#isExcused || this.environmentDeleted || this.#excused.has(pod.metadata.uid ?? "");
    const beatMs = this.#beatMs.get(work) ?? Number.NEGATIVE_INFINITY;
    const isBusy =
      item?.state === "active" &&
      item.stopRequestedAt === undefined &&
      item.acks.length === 1 &&
      realClock.monotonic() - beatMs < FRESH_BEAT_MS;
    this.check("4 no busy Pod ended by a change", !isExcused && isBusy && `${pod.metadata.name} with ${work}`);
  }

  #acknowledged({ id, type }: ItemRecord): void {
    if (type !== "session") return;
    const look = this.#lookForSecret(id);
    this.#looks.add(look);
    void look.finally(() => this.#looks.delete(look));
  }

  async #lookForSecret(workId: string): Promise<void> {
    const { kube, namespace, simulator } = this.#world;
    const { items } = await kube.list(SECRETS, { namespace });
    const isThere = items.some((secret) => readJournal(secret)?.workId === workId);
    // Settled by now, it needs no record any more.
    const isLive = simulator.item(workId).state !== "stopped";
    this.check("1 acknowledged with its Secret durable", !isThere && isLive && `${workId} has none`);
  }
}
