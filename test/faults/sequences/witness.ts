import type { ItemRecord } from "../../../simulator/item.ts";
import { type Violation, violationText } from "../../../simulator/violations.ts";
import { realClock } from "../../../src/core/clock.ts";
import type { Pod } from "../../../src/kube/resource.ts";
import { LeakSearch, leakText } from "../../support/leak-search.ts";
import type { World } from "../../support/world.ts";

/** A beat so recent says that the lease is held, however late it is heard of. */
const FRESH_BEAT_MS = 4_000;

/** Watches one world for what must never be, as the API server and the Work API have it. */
export abstract class Witness {
  readonly wrongs: string[] = [];
  readonly checked = new Map<string, number>();
  kills = 0;
  kubeTroubled = false;
  /** A leader may have found itself without its Lease for a moment: Events that waited then were dropped. */
  leadershipShaken = false;
  environmentDeleted = false;
  protected readonly world: World;
  readonly #beatMs = new Map<string, number>();
  readonly #excused = new Set<string>();
  readonly #deleting = new Set<string>();
  readonly #seen = new Map<string, string>();
  readonly #looks = new Set<Promise<void>>();
  #search = new LeakSearch([]);
  #searched = 0;
  #isExcused = false;

  protected constructor(world: World) {
    this.world = world;
    world.simulator.on("request", ({ call, status, workId }) => {
      if (call === "heartbeat" && status === 200 && workId) this.#beatMs.set(workId, realClock.monotonic());
    });
  }

  /** From now on Pods are looked at. */
  protected watch(): void {
    this.world.onPodChange(() => this.#podsChanged());
  }

  /** Whether a breach of the protocol is the operator's, or one that it has to answer for. */
  protected isOurs(_violation: Violation): boolean {
    return true;
  }

  /** Some Pod changed. */
  protected abstract podsChanged(pods: readonly Pod[]): void;

  /** The first time that somebody deleted this Pod. */
  protected abstract podDeleted(pod: Pod): void;

  /** Something is done to this Pod that may end it. */
  excuse(pod: Pod): void {
    this.#excused.add(pod.metadata.uid ?? "");
  }

  /** From now on the end of a busy Pod may have a cause that cannot be told from here. */
  excuseAll(): void {
    this.#isExcused = true;
  }

  /** The same, since a leader may lose its Lease now. */
  shakeLeadership(): void {
    this.leadershipShaken = true;
    this.excuseAll();
  }

  get isExcused(): boolean {
    return this.#isExcused;
  }

  /** Whether the end of this Pod may have a cause other than Berth. */
  protected isExcusedFor(pod: Pod): boolean {
    return this.#isExcused || this.environmentDeleted || this.#excused.has(pod.metadata.uid ?? "");
  }

  /** Somebody holds this item, and nobody wants it stopped. */
  protected isHeld({ id, state, stopRequestedAt }: ItemRecord): boolean {
    const beatMs = this.#beatMs.get(id) ?? Number.NEGATIVE_INFINITY;
    return state === "active" && stopRequestedAt === undefined && realClock.monotonic() - beatMs < FRESH_BEAT_MS;
  }

  /** A look that takes a while. */
  protected look(look: Promise<void>): void {
    this.#looks.add(look);
    void look.finally(() => this.#looks.delete(look));
  }

  check(invariant: string, wrong: string | undefined | false): void {
    this.checked.set(invariant, (this.checked.get(invariant) ?? 0) + 1);
    if (wrong && !this.wrongs.includes(`${invariant}: ${wrong}`)) this.wrongs.push(`${invariant}: ${wrong}`);
  }

  /** What was begun to be looked at is looked at. */
  async settled(): Promise<void> {
    await Promise.all(this.#looks);
    const violations = this.world.simulator.violations.filter((each) => this.isOurs(each));
    this.check("3 the Work API's protocol", violations.length > 0 && violations.map(violationText).join("; "));
  }

  /** Looks for every credential that was ever given out, in every form in which one may get into a text. */
  checkForLeaks(where: string, text: string): void {
    const credentials = this.world.simulator.credentials();
    if (credentials.length > this.#searched) {
      this.#searched = credentials.length;
      this.#search = new LeakSearch(credentials);
    }
    const leaks = this.#search.find([{ where, text }]);
    this.check("7 no credential outside of Secrets", leaks.length > 0 && leaks.map(leakText).join("; "));
  }

  #podsChanged(): void {
    const { pods } = this.world;
    this.podsChanged(pods);
    for (const pod of pods) {
      const { uid = "", resourceVersion = "", deletionTimestamp } = pod.metadata;
      if (this.#seen.get(uid) === resourceVersion) continue;
      this.#seen.set(uid, resourceVersion);
      this.checkForLeaks(`Pod ${pod.metadata.name}`, JSON.stringify(pod));
      if (deletionTimestamp && !this.#deleting.has(uid)) {
        this.#deleting.add(uid);
        this.podDeleted(pod);
      }
    }
  }
}
