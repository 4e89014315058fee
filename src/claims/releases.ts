import { ANNOTATION_RELEASES } from "../api/names.ts";
import { SECOND_MS } from "../core/clock.ts";
import { hashOf } from "../core/json.ts";
import type { Claim } from "../protocol/claim.ts";
import type { SessionContext } from "../protocol/context.ts";

/**
 * Releases of one item that onPodFailure: Release allows; then the item is stopped. Without a limit, a session that
 * kills its Pod each time would be claimed again forever. An item runs as often if the Work API answers each stop with
 * 409, which says that the item was stopped before, and still offers it again.
 */
export const MOST_RELEASES = 3;

/** How long a count is kept after the last release. */
export const KEPT_MS = 24 * 3_600_000;

/**
 * Most counts kept; the oldest are dropped. An item that kills its Pod again and again stays among the newest. They take
 * 80 KB of the 256 KiB that all annotations of an object may take.
 */
export const MOST_KEPT = 2_000;

interface Count {
  readonly releases: number;
  /** Hash of the UID of the last counted claim's Secret, so that a claim that is settled twice counts once. */
  readonly claim: string;
  /** By the API server's clock. */
  readonly atMs: number;
}

/** By hash of what is counted. */
type Counts = ReadonlyMap<string, Count>;

/**
 * Counts the releases of each item, and its stops that were answered with 409, in an annotation of the Environment,
 * which outlives the Pods and the operator. A count is written before the claim's Secret is deleted, and so before this
 * Environment can claim the item again. If the operator dies in between, the next process settles the claim again and
 * counts it once.
 */
export class Releases {
  readonly #context: SessionContext;
  /** Counts of this process, which the cache of Environments may not show yet. */
  readonly #own = new Map<string, Count>();
  #stored: { readonly text: string; readonly counts: Counts } = { text: "", counts: new Map() };
  #writing: Promise<void> = Promise.resolve();
  #next: Promise<void> | null = null;

  constructor(context: SessionContext) {
    this.#context = context;
  }

  /** Whether the item may return to the queue if its container dies without reporting to the Work API. */
  mayRelease(claim: Readonly<Claim>): boolean {
    return this.#context.environment().spec.sessions?.onPodFailure === "Release" && !this.isSpent(claim);
  }

  /** Whether the item had reached the limit of releases before this claim. */
  isSpent(claim: Readonly<Claim>): boolean {
    return this.#before(claim, releaseOf) >= MOST_RELEASES;
  }

  /** Whether the item may only be claimed to be stopped. */
  mustStop(workId: string): boolean {
    return (this.#countOf(stopOf(workId))?.releases ?? 0) >= MOST_RELEASES;
  }

  /** Counts the release of a claim's item; resolves when the count is durable. @throws KubeApiError */
  async note(claim: Readonly<Claim>): Promise<void> {
    await this.#count(claim, releaseOf);
  }

  /** Counts a stop that was answered with 409; resolves when the count is durable. @throws KubeApiError */
  async noteStopped(claim: Readonly<Claim>): Promise<void> {
    await this.#count(claim, stopOf);
  }

  async #count(claim: Readonly<Claim>, counted: Counted): Promise<void> {
    const { record } = claim;
    this.#own.set(hashOf(counted(record.journal.workId)), {
      releases: this.#before(claim, counted) + 1,
      claim: hashOf(record.secretUid),
      atMs: this.#context.kube.now(),
    });
    await this.#save();
  }

  #before({ record }: Readonly<Claim>, counted: Counted): number {
    const count = this.#countOf(counted(record.journal.workId));
    if (!count) return 0;
    return count.claim === hashOf(record.secretUid) ? count.releases - 1 : count.releases;
  }

  #countOf(counted: string): Count | undefined {
    const stored = this.#read();
    if (this.#own.size === 0 && stored.size === 0) return undefined;
    const key = hashOf(counted);
    return newer(this.#own.get(key), stored.get(key));
  }

  /** The counts of the Environment, as far as the cache shows them: another process may have written some. */
  #read(): Counts {
    const text = this.#context.environment().metadata.annotations?.[ANNOTATION_RELEASES] ?? "";
    if (text !== this.#stored.text) this.#stored = { text, counts: parse(text) };
    return this.#stored.counts;
  }

  /** Sends one write at a time. All counts that arrive during a write share the next one. */
  #save(): Promise<void> {
    if (this.#next) return this.#next;
    const next = this.#writing
      .catch(() => {})
      .then(() => {
        this.#next = null;
        return this.#write();
      });
    this.#next = next;
    this.#writing = next;
    return next;
  }

  async #write(): Promise<void> {
    const { kube, recordReleases } = this.#context;
    const stored = this.#read();
    const fromMs = kube.now() - KEPT_MS;
    const kept = [...new Set([...stored.keys(), ...this.#own.keys()])]
      .flatMap((key) => {
        const count = newer(this.#own.get(key), stored.get(key));
        return count && count.atMs >= fromMs ? [[key, count] as const] : [];
      })
      .sort(([, a], [, b]) => b.atMs - a.atMs)
      .slice(0, MOST_KEPT);
    this.#own.clear();
    for (const [key, count] of kept) this.#own.set(key, count);
    await recordReleases(format(kept));
  }
}

/** What is counted, from an item's id. */
type Counted = (workId: string) => string;

const releaseOf: Counted = (workId) => workId;
const stopOf: Counted = (workId) => `stop of ${workId}`;

function newer(own: Count | undefined, stored: Count | undefined): Count | undefined {
  return own && stored ? (stored.atMs > own.atMs ? stored : own) : (own ?? stored);
}

const COUNT = /^([0-9a-f]{12}) (\d) ([0-9a-f]{12}) (\d{1,12})$/;

function format(counts: readonly (readonly [string, Count])[]): string {
  return counts
    .map(([key, { releases, claim, atMs }]) => `${key} ${releases} ${claim} ${Math.floor(atMs / SECOND_MS)}`)
    .join(",");
}

function parse(text: string): Counts {
  return new Map(
    text.split(",").flatMap((each) => {
      const [, key, releases, claim = "", seconds] = COUNT.exec(each) ?? [];
      return key === undefined
        ? []
        : [[key, { releases: Number(releases), claim, atMs: Number(seconds) * SECOND_MS }] as const];
    }),
  );
}
