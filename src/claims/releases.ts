import {
  ANNOTATION_ABOUT,
  API_VERSION,
  KIND,
  LABEL_ENVIRONMENT,
  LABEL_ROLE,
  OWN_LABELS,
  toLabelValue,
} from "../api/names.ts";
import { MAX_CONCURRENT } from "../api/sessions-spec.ts";
import { SECOND_MS } from "../core/clock.ts";
import { hashOf } from "../core/json.ts";
import { isAlreadyExists, isNotFound, orNull } from "../kube/errors.ts";
import { SECRETS, type Secret } from "../kube/resource.ts";
import type { Claim } from "../protocol/claim.ts";
import type { SessionContext } from "../protocol/context.ts";

/** The Secret that holds the counts of one Environment; the Environment owns it. */
export const RELEASES_TYPE = "berth.dev/releases";

/**
 * Releases of one item that onPodFailure: Release allows; then the item is stopped. Without a limit, a session that
 * kills its Pod each time would be claimed again forever.
 */
export const MOST_RELEASES = 3;

/** The count of an item that was stopped although the Work API may offer it again. */
const STOPPED = MOST_RELEASES + 1;

/** How long a count is kept after the last release. It is kept longer while its item is claimed. */
export const KEPT_MS = 24 * 3_600_000;

/** Most counts kept. A node failure can release all sessions of an Environment at once. The oldest are dropped. */
const MOST_KEPT = MAX_CONCURRENT;

interface Count {
  readonly releases: number;
  /** Hash of the UID of the last counted claim's Secret, so that a claim that is settled twice counts once. */
  readonly claim: string;
  /** By the API server's clock. */
  readonly atMs: number;
}

/**
 * Counts the releases of each item. The counts survive the Pods and the operator. A count is written before the claim's
 * Secret is deleted, and so before this Environment can claim the item again. If the operator dies in between, the next
 * process settles the claim again and counts it once.
 */
export class Releases {
  readonly #context: SessionContext;
  readonly #claims: Iterable<Claim>;
  /** By hash of the work id, the oldest release first. */
  readonly #counts = new Map<string, Count>();
  /** Keys whose count in `#counts` is not yet in the Secret. */
  readonly #unsaved = new Set<string>();
  #exists = false;
  #writing: Promise<void> = Promise.resolve();
  #next: Promise<void> | null = null;

  constructor({ context, claims }: { context: SessionContext; claims: Iterable<Claim> }) {
    this.#context = context;
    this.#claims = claims;
  }

  get name(): string {
    return `berth-releases-${this.#context.uid}`;
  }

  /** Reads the counts of an earlier process, if their Secret is among the listed ones. @throws KubeApiError */
  async recover(listed: readonly Secret[]): Promise<void> {
    if (!listed.some(({ type, metadata }) => type === RELEASES_TYPE && metadata.name === this.name)) return;
    const { kube, points } = this.#context;
    const secret = await orNull(points.run("recover.list", {}, () => kube.get(SECRETS, this.#ref)));
    if (secret?.type !== RELEASES_TYPE) return;
    this.#exists = true;
    const found = Object.entries(secret.data ?? {}).flatMap(([key, value]) => {
      const count = parse(value);
      return count ? [[key, count] as const] : [];
    });
    for (const [key, count] of found.sort(([, a], [, b]) => a.atMs - b.atMs)) this.#counts.set(key, count);
  }

  /** Whether the item may return to the queue if its container dies without reporting to the Work API. */
  mayRelease(claim: Readonly<Claim>): boolean {
    return this.#context.environment().spec.sessions?.onPodFailure === "Release" && !this.isSpent(claim);
  }

  /** Whether the item had reached the limit of releases before this claim. */
  isSpent(claim: Readonly<Claim>): boolean {
    return this.#before(claim) >= MOST_RELEASES;
  }

  /**
   * Whether a stop of this item was answered with 409, which says that it was stopped before. A server that offers it
   * again contradicts itself, and each run would end with the same answer.
   */
  isStopped(workId: string): boolean {
    return this.#counts.size > 0 && this.#counts.get(hashOf(workId))?.releases === STOPPED;
  }

  /** Counts the release of a claim's item; resolves when the count is durable. @throws KubeApiError */
  async note(claim: Readonly<Claim>): Promise<void> {
    await this.#note(claim, this.#before(claim) + 1);
  }

  /** Notes an item whose stop was answered with 409; resolves when that is durable. @throws KubeApiError */
  async noteStopped(claim: Readonly<Claim>): Promise<void> {
    await this.#note(claim, STOPPED);
  }

  async #note(claim: Readonly<Claim>, releases: number): Promise<void> {
    const key = keyOf(claim);
    const count = {
      releases,
      claim: hashOf(claim.record.secretUid),
      atMs: this.#context.kube.now(),
    };
    this.#counts.delete(key);
    this.#counts.set(key, count);
    this.#unsaved.add(key);
    this.#prune();
    await this.#save();
  }

  /** The item has ended: the next write deletes its count. */
  ended(claim: Readonly<Claim>): void {
    const key = keyOf(claim);
    if (this.#counts.delete(key)) this.#unsaved.add(key);
  }

  #before(claim: Readonly<Claim>): number {
    if (this.#counts.size === 0) return 0;
    const count = this.#counts.get(keyOf(claim));
    if (!count) return 0;
    return count.claim === hashOf(claim.record.secretUid) ? count.releases - 1 : count.releases;
  }

  #prune(): void {
    const fromMs = this.#context.kube.now() - KEPT_MS;
    let claimed: ReadonlySet<string> | undefined;
    for (const [key, { atMs }] of this.#counts) {
      if (atMs >= fromMs && this.#counts.size <= MOST_KEPT) return;
      claimed ??= new Set([...this.#claims].map(keyOf));
      if (claimed.has(key)) continue;
      this.#counts.delete(key);
      this.#unsaved.add(key);
    }
  }

  /** Sends one write at a time. All counts that arrive during a write share the next one. */
  #save(): Promise<void> {
    if (this.#next) return this.#next;
    const next = this.#writing
      .catch(() => {})
      .then(() => {
        this.#next = null;
        return this.#flush();
      });
    this.#next = next;
    this.#writing = next;
    return next;
  }

  async #flush(): Promise<void> {
    const keys = [...this.#unsaved];
    if (keys.length === 0) return;
    this.#unsaved.clear();
    try {
      await this.#write(keys);
    } catch (error) {
      for (const key of keys) this.#unsaved.add(key);
      throw error;
    }
  }

  async #write(keys: readonly string[]): Promise<void> {
    const { kube, points } = this.#context;
    if (!this.#exists && (await this.#create())) return;
    const patch = { data: Object.fromEntries(keys.map((key) => [key, format(this.#counts.get(key))])) };
    try {
      await points.run("session.count-release", {}, () => kube.patch(SECRETS, this.#ref, patch, { type: "merge" }));
    } catch (error) {
      if (isNotFound(error)) this.#exists = false;
      throw error;
    }
  }

  /** Creates the Secret. Returns false if it already exists. */
  async #create(): Promise<boolean> {
    const { kube, points, name, uid } = this.#context;
    const counts = [...this.#counts].map(([key, count]) => [key, format(count) ?? ""]);
    const secret: Secret = {
      metadata: {
        ...this.#ref,
        labels: {
          ...OWN_LABELS,
          [LABEL_ENVIRONMENT]: toLabelValue(name),
          [LABEL_ROLE]: "session",
        },
        annotations: {
          [ANNOTATION_ABOUT]:
            "Counts how often onPodFailure: Release put work items back into the queue. Holds no secret.",
        },
        ownerReferences: [{ apiVersion: API_VERSION, kind: KIND, name, uid, controller: true }],
      },
      type: RELEASES_TYPE,
      data: Object.fromEntries(counts),
    };
    try {
      await points.run("session.count-release", {}, () => kube.create(SECRETS, secret));
    } catch (error) {
      if (!isAlreadyExists(error)) throw error;
      this.#exists = true;
      return false;
    }
    this.#exists = true;
    return true;
  }

  get #ref(): { namespace: string; name: string } {
    return { namespace: this.#context.namespace, name: this.name };
  }
}

function keyOf({ record: { journal } }: Pick<Claim, "record">): string {
  return hashOf(journal.workId);
}

const COUNT = /^(\d{1,4}) ([0-9a-f]{12}) (\d{1,12})$/;

/** The stored form of a count. Null deletes the key in a merge patch. */
function format(count: Count | undefined): string | null {
  if (!count) return null;
  const text = `${count.releases} ${count.claim} ${Math.floor(count.atMs / SECOND_MS)}`;
  return Buffer.from(text).toString("base64");
}

function parse(value: string): Count | null {
  const [, releases, claim = "", seconds] = COUNT.exec(Buffer.from(value, "base64").toString("utf8")) ?? [];
  return releases === undefined ? null : { releases: Number(releases), claim, atMs: Number(seconds) * SECOND_MS };
}
