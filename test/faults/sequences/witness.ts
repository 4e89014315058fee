import type { ItemRecord } from "../../../simulator/item.ts";
import { type Violation, violationText } from "../../../simulator/violations.ts";
import { realClock } from "../../../src/core/clock.ts";
import type { Pod } from "../../../src/kube/resource.ts";
import { LeakSearch, leakText } from "../../support/leak-search.ts";
import type { World } from "../../support/world.ts";

/** A heartbeat this recent shows that the lease is held, even if it was observed late. */
const FRESH_BEAT_MS = 4_000;

/** Watches one world for states that must never occur, as shown by the API server and the Work API. */
export abstract class Witness {
  readonly wrongs: string[] = [];
  readonly checked = new Map<string, number>();
  kills = 0;
  kubeTroubled = false;
  /** A leader may have been without its Lease for a moment, and then dropped its pending Events. */
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

  /** Starts to observe Pods. */
  protected watch(): void {
    this.world.onPodChange(() => this.#podsChanged());
  }

  /** Whether Berth must answer for a breach of the protocol. */
  protected isOurs(_violation: Violation): boolean {
    return true;
  }

  /** Called when a Pod changed. */
  protected abstract podsChanged(pods: readonly Pod[]): void;

  /** Called when a Pod is first seen being deleted. */
  protected abstract podDeleted(pod: Pod): void;

  /** Records an act that may end this Pod. */
  excuse(pod: Pod): void {
    this.#excused.add(pod.metadata.uid ?? "");
  }

  /** From now on the end of any busy Pod may have a cause that the witness can't see. */
  excuseAll(): void {
    this.#isExcused = true;
  }

  /** The same, because a leader may lose its Lease now. */
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

  /** Whether a client holds this item and no stop was requested. */
  protected isHeld({ id, state, stopRequestedAt }: ItemRecord): boolean {
    const beatMs = this.#beatMs.get(id) ?? Number.NEGATIVE_INFINITY;
    return state === "active" && stopRequestedAt === undefined && realClock.monotonic() - beatMs < FRESH_BEAT_MS;
  }

  /** Registers an asynchronous check. */
  protected look(look: Promise<void>): void {
    this.#looks.add(look);
    void look.finally(() => this.#looks.delete(look));
  }

  check(invariant: string, wrong: string | undefined | false): void {
    this.checked.set(invariant, (this.checked.get(invariant) ?? 0) + 1);
    if (wrong && !this.wrongs.includes(`${invariant}: ${wrong}`)) this.wrongs.push(`${invariant}: ${wrong}`);
  }

  /** Waits for all checks in progress. */
  async settled(): Promise<void> {
    await Promise.all(this.#looks);
    const violations = this.world.simulator.violations.filter((each) => this.isOurs(each));
    this.check("3 the Work API's protocol", violations.length > 0 && violations.map(violationText).join("; "));
  }

  /** Searches for every credential that was ever issued, in every form in which it may appear in a text. */
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
