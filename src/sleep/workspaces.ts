import { Backoff } from "../core/backoff.ts";
import { SECOND_MS } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { Passes } from "../core/passes.ts";
import { isConflict, isForbidden, isNotFound, KubeApiError, LeadershipLostError } from "../kube/errors.ts";
import { PERSISTENT_VOLUME_CLAIMS } from "../kube/resource.ts";
import { stateOf } from "../pods/pod-state.ts";
import { isPerSession, usesVolume, workspaceOf } from "../pods/workspace-pods.ts";
import type { ClaimTable } from "../protocol/claim-table.ts";
import type { PoolContext } from "../protocol/context.ts";
import { changing, type SessionVolumes, TRIES } from "./session-volumes.ts";
import type { WaitingItems } from "./sleep-plan.ts";
import { planVolumes } from "./volume-plan.ts";
import type { Volume } from "./workspace-volume.ts";

/** The least time between two timed passes. */
const MIN_WAKE_MS = 1_000;

/** Pods change many times a second, and a pass looks at all of them. */
const REST_MS = 200;

/** Time until the next list after a volume differed from what was known. */
const LIST_SOON_MS = 5_000;

/** Volumes written at the same time. */
const CONCURRENCY = 8;

export interface WorkspacesOptions {
  readonly context: PoolContext;
  readonly claims: ClaimTable;
  readonly volumes: SessionVolumes;
  /** Whether a Pod of this session is being created or will be. */
  readonly awaited: (sessionId: string) => boolean;
  readonly items: Pick<WaitingItems, "waits">;
  /** Whether the creation of this Pod may be in flight. */
  readonly expected: (pod: string) => boolean;
  readonly onChange: () => void;
}

/**
 * Keeps the volumes of an Environment with `workspace: PerSession`. A session's volume is marked with the time when no
 * Pod uses it any more, and deleted `retainSeconds` later. A volume without a session is deleted with its Pod. The
 * Environment owns its volumes, and they are deleted with it. The marks are the only memory, so a restart loses
 * nothing.
 *
 * A volume about to be used has no mark, and each write names the resourceVersion that was read: if a deletion and a
 * use race, one of them is refused.
 */
export class Workspaces {
  readonly #options: WorkspacesOptions;
  readonly #context: PoolContext;
  readonly #volumes: SessionVolumes;
  readonly #passes: Passes;
  /**
   * Volumes without a session whose Pod was seen, so that its creation is not in flight. `bound`: it was read since its
   * Pod was parked.
   */
  readonly #seen = new Map<string, "preparing" | "bound">();
  /** No list before this (monotonic), unless the volumes are due for one. */
  #listSoonMs = Number.POSITIVE_INFINITY;
  /** Between failed passes, even if something changes: Pods of a busy Environment change many times a second. */
  readonly #backoff: Backoff;
  #reported = "";
  /** Whether sessions wait for their first volume, since it is not known which sessions have one. */
  #isHeldUp = false;

  constructor(options: WorkspacesOptions) {
    this.#options = options;
    this.#context = options.context;
    this.#volumes = options.volumes;
    const { clock, timing, random } = options.context;
    this.#backoff = new Backoff({ baseMs: timing.retryBaseMs, maxMs: timing.retryMaxMs }, random);
    this.#passes = new Passes({
      clock,
      pass: () => this.#pass(),
      failed: (error) => this.#failed(error),
      retryMs: timing.retryMaxMs,
      minWakeMs: MIN_WAKE_MS,
      restMs: REST_MS,
    });
  }

  /** Starts once the table holds all claims of an earlier process: before that, every volume looks unused. */
  start(signal: AbortSignal): void {
    this.#passes.start(signal);
  }

  /** A Pod, a claim or the spec changed. */
  poke(): void {
    if (this.#isWanted) this.#passes.poke();
  }

  /** Resolves when nothing is in flight, after the signal aborted. */
  ended(): Promise<void> {
    return this.#passes.ended();
  }

  /** The number of volumes; null: not known, or this Environment uses none. */
  get volumes(): number | null {
    if (!this.#isWanted || this.#volumes.listedMs === Number.NEGATIVE_INFINITY) return null;
    return this.#volumes.size;
  }

  /** Also true after the spec turned volumes off, until the existing ones are deleted. */
  get #isWanted(): boolean {
    const environment = this.#context.environment();
    return isPerSession(environment) || (environment.status?.workspaces?.volumes ?? 0) > 0;
  }

  async #pass(): Promise<void> {
    const { clock, kube, timing, environment } = this.#context;
    const workspace = environment().spec.sessions?.workspace;
    if (!workspace || !this.#isWanted) return;
    const heldMs = this.#backoff.untilMs - clock.monotonic();
    if (heldMs > 0) return this.#passes.wakeAfter(heldMs);
    // A failing list must not delay this.
    await this.#volumes.settle();
    const listDueMs = () => Math.min(this.#volumes.listedMs + timing.workspaceCheckMs, this.#listSoonMs);
    if (clock.monotonic() >= listDueMs()) {
      this.#listSoonMs = Number.POSITIVE_INFINITY;
      await this.#volumes.list();
    }
    await this.#volumes.settle();
    if (this.#isHeldUp) this.#context.holds.succeeded("assign");
    this.#isHeldUp = false;
    if (this.#context.pods.list().some((pod) => this.#volumes.bindingOf(pod).is === "unknown")) this.#listSoon();
    await this.#followUnassigned();
    const all = this.#volumes.all();
    const inUse = this.#inUse();
    const plan = planVolumes(all, kube.now(), {
      inUse,
      mayWait: ({ sessionId }) => isPerSession(environment()) && this.#options.items.waits(sessionId ?? "") !== false,
      podOf: ({ name }) => this.#podOf(name),
      creationMs: VOLUME_CREATION_LATENESS * timing.lateRecordsMs,
      retainMs: workspace.retainSeconds * SECOND_MS,
    });
    const at = new Date(kube.now()).toISOString();
    await this.#inBatches(plan.take, (volume) => this.#remark(volume, null));
    await this.#inBatches(plan.leave, (volume) => this.#remark(volume, at));
    await this.#inBatches(plan.expire, async (volume) => {
      // The answers to the earlier requests took time.
      if (!inUse(volume) && !this.#isNamed(volume)) await this.#expire(volume);
    });
    await this.#inBatches(plan.discard, async (volume) => {
      if (this.#podOf(volume.name) !== "there") await this.#delete(volume);
    });
    this.#reported = "";
    this.#backoff.reset();
    this.#passes.wakeAfter(listDueMs() - clock.monotonic());
    if (plan.nextAtMs !== null) this.#passes.wakeAfter(plan.nextAtMs - kube.now());
    if (plan.leave.length > 0) this.#passes.poke();
  }

  /** Whether a Pod uses a volume, or will. The cache shows a Pod's end late, never early. */
  #inUse(): (volume: Volume) => boolean {
    const { claims, awaited } = this.#options;
    const names = new Set(
      this.#context.pods.list().flatMap((pod) => (usesVolume(pod) ? (workspaceOf(pod) ?? []) : [])),
    );
    return ({ name, sessionId }) =>
      names.has(name) || (sessionId !== null && (claims.runs(sessionId) || awaited(sessionId)));
  }

  /**
   * Notes the Pods of volumes without a session, and reads each such volume once when its Pod is parked: it was written
   * when it was bound, so an assignment by what was known before would meet a conflict.
   */
  async #followUnassigned(): Promise<void> {
    const { pods } = this.#context;
    const unassigned = this.#volumes.all().filter(({ sessionId }) => sessionId === null);
    const names = new Set(unassigned.map(({ name }) => name));
    for (const name of this.#seen.keys()) if (!names.has(name)) this.#seen.delete(name);
    const bound: Volume[] = [];
    for (const volume of unassigned) {
      const pod = pods.get(volume.name);
      if (pod && !this.#seen.has(volume.name)) this.#seen.set(volume.name, "preparing");
      if (pod && this.#seen.get(volume.name) === "preparing" && stateOf(pod).is === "parked") bound.push(volume);
    }
    await this.#inBatches(bound, async ({ name }) => {
      await this.#volumes.read(name);
      this.#seen.set(name, "bound");
    });
  }

  /** The Pod of a volume without a session. */
  #podOf(name: string): "there" | "gone" | "never-seen" {
    if (this.#context.pods.get(name) || this.#options.expected(name)) return "there";
    return this.#seen.has(name) ? "gone" : "never-seen";
  }

  /**
   * Whether a Pod names the volume, including an ended one kept for its logs. Until such a Pod is gone, Kubernetes
   * would keep a deleted volume (`kubernetes.io/pvc-protection`) and so delay the session's next item.
   */
  #isNamed({ name }: Volume): boolean {
    return this.#context.pods.list().some((pod) => workspaceOf(pod) === name);
  }

  /**
   * Marks a volume in its current version if another client wrote to it meanwhile: the volume binder writes once, after
   * creation.
   */
  async #remark(volume: Volume, lastUsed: string | null): Promise<void> {
    let at = volume;
    for (let tries = 0; tries < TRIES; tries += 1) {
      if (await this.#volumes.mark(at, lastUsed)) return;
      const now = await this.#volumes.read(volume.name);
      if (!now) break;
      // If the volume changed otherwise, the next pass decides what to do.
      if (now.uid !== at.uid || now.going || now.lastUsedMs !== at.lastUsedMs) return this.#passes.poke();
      // Meanwhile the session may have got its next Pod.
      if (lastUsed !== null && this.#inUse()(now)) return;
      at = now;
      if (tries === TRIES - 1) throw changing(volume.name);
    }
    this.#listSoon();
  }

  async #expire(volume: Volume): Promise<void> {
    const { metrics, labels, announce } = this.#context;
    if (!(await this.#delete(volume))) return;
    const { name, sessionId } = volume;
    metrics.workspacesExpired.inc(labels);
    const waited = this.#options.items.waits(sessionId ?? "") ? WAITED : "";
    announce(
      "WorkspaceExpired",
      `the volume ${name} of session ${sessionId} was unused for workspace.retainSeconds${waited}, so Berth deletes it`,
    );
  }

  /** Returns false if the volume is gone, or changed meanwhile. */
  async #delete(volume: Volume): Promise<boolean> {
    const { kube, points, namespace, logger } = this.#context;
    const { name, uid, resourceVersion, sessionId } = volume;
    this.#listSoon();
    try {
      await points.run("workspace.delete", { pod: name, asks: { uid, sessionId } }, () =>
        kube.delete(PERSISTENT_VOLUME_CLAIMS, { namespace, name }, { uid, resourceVersion }),
      );
    } catch (error) {
      if (isNotFound(error)) this.#volumes.forget(name);
      else if (!isConflict(error)) throw error;
      // No other client wrote to it: the next try would meet the same refusal.
      else if ((await this.#volumes.read(name))?.resourceVersion === resourceVersion) throw error;
      return false;
    }
    this.#volumes.deleted(volume);
    this.#options.onChange();
    logger.info({ volume: name, sessionId }, "deleting a volume");
    return true;
  }

  /** The next list, which comes soon, shows what became of a volume. */
  #listSoon(): void {
    this.#listSoonMs = Math.min(this.#listSoonMs, this.#context.clock.monotonic() + LIST_SOON_MS);
    this.#passes.wakeAfter(LIST_SOON_MS);
  }

  async #inBatches(volumes: readonly Volume[], act: (volume: Volume) => Promise<void>): Promise<void> {
    for (let from = 0; from < volumes.length && this.#passes.active; from += CONCURRENCY) {
      await Promise.all(volumes.slice(from, from + CONCURRENCY).map(act));
    }
  }

  #failed(error: unknown): void {
    const asked = error instanceof KubeApiError ? (error.retryAfterMs ?? 0) : 0;
    const nowMs = this.#context.clock.monotonic();
    this.#backoff.postpone(nowMs, { leastMs: asked });
    this.#passes.wakeAfter(this.#backoff.untilMs - nowMs);
    // An operator that lost leadership reports nothing.
    if (error instanceof LeadershipLostError) return;
    if (!this.#volumes.isSettled) {
      this.#isHeldUp = true;
      this.#context.holds.failed("assign", { error });
    }
    const words = errorText(error);
    this.#context.logger.warn({ error: words }, "cannot update the volumes of sessions");
    if (this.#reported === words) return;
    this.#reported = words;
    const fix = isForbidden(error) ? NO_PERMISSION : "Berth tries again";
    this.#context.announce("WorkspaceFailing", `Berth cannot update the volumes of sessions: ${words}; ${fix}`);
  }
}

const WAITED = " and 24 hours more, in which the session's next work item waited in the queue";

/** The fix for a missing permission. */
export const NO_PERMISSION =
  "give the operator permission for PersistentVolumeClaims with the chart's features.volumes=true";

/**
 * A Pod's creation is sent when that of its volume was answered, and either may take a while. In multiples of the time
 * in which a request of an earlier process arrives.
 */
export const VOLUME_CREATION_LATENESS = 2;
