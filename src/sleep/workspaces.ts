import { ANNOTATION_LAST_USED } from "../api/names.ts";
import { Backoff } from "../core/backoff.ts";
import { SECOND_MS } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { Passes } from "../core/passes.ts";
import {
  isAlreadyExists,
  isConflict,
  isForbidden,
  isNotFound,
  KubeApiError,
  LeadershipLostError,
  orNull,
} from "../kube/errors.ts";
import { PERSISTENT_VOLUME_CLAIMS, type PersistentVolumeClaim } from "../kube/resource.ts";
import { isPerSession, type OwnVolume, sessionBoundTo, usesVolume } from "../pods/workspace-pods.ts";
import {
  planVolumes,
  readVolume,
  renderVolume,
  type Volume,
  volumeName,
  volumeSelector,
} from "../pods/workspace-volume.ts";
import type { ClaimTable } from "../protocol/claim-table.ts";
import type { PoolContext } from "../protocol/context.ts";

/** The least time between two timed passes. */
const MIN_WAKE_MS = 1_000;

/** Pods change many times a second, and a pass looks at all of them. */
const REST_MS = 200;

/** Time until the next list after a volume differed from what was known. */
const LIST_SOON_MS = 5_000;

/** Volumes written at the same time. */
const CONCURRENCY = 8;

/** Consecutive tries to write to a volume that another client writes to at the same time. */
const TRIES = 3;

/** Why a session's volume is unavailable, and how to fix it. */
export class WorkspaceError extends Error {
  constructor(message: string, cause?: unknown) {
    super(message, { cause });
    this.name = "WorkspaceError";
  }
}

export interface WorkspacesOptions {
  readonly context: PoolContext;
  readonly claims: ClaimTable;
  /** Whether a Pod of this session is being created or will be. */
  readonly awaited: (sessionId: string) => boolean;
  readonly onChange: () => void;
}

/**
 * The volumes of an Environment with `workspace: PerSession`. A volume is created, or found again, before its session's
 * Pod is created. It is marked with the time when no Pod uses it any more, and deleted `retainSeconds` later. The
 * Environment owns its volumes, and they are deleted with it. The marks are the only memory, so a restart loses
 * nothing.
 *
 * A volume about to be used has no mark, and each write names the resourceVersion that was read: if a deletion and a
 * use race, one of them is refused.
 */
export class Workspaces {
  readonly #options: WorkspacesOptions;
  readonly #context: PoolContext;
  readonly #passes: Passes;
  readonly #known = new Map<string, Volume>();
  /** When (monotonic) they were last listed. */
  #listedMs = Number.NEGATIVE_INFINITY;
  /** Between failed passes, even if something changes: Pods of a busy Environment change many times a second. */
  readonly #backoff: Backoff;
  /** No pass before this (monotonic): the last one failed. */
  #pausedUntilMs = Number.NEGATIVE_INFINITY;
  #reported = "";

  constructor(options: WorkspacesOptions) {
    this.#options = options;
    this.#context = options.context;
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
    if (!this.#isWanted || this.#listedMs === Number.NEGATIVE_INFINITY) return null;
    return this.#known.size;
  }

  /**
   * Returns a session's volume, created if needed and marked as in use. Call it before creating the session's Pod.
   * @throws WorkspaceError if the volume is unavailable, KubeApiError
   */
  async take(sessionId: string): Promise<OwnVolume> {
    const name = volumeName(this.#context, sessionId);
    for (let tries = 0; tries < TRIES; tries += 1) {
      const found = await this.#read(name);
      const taken = found ? await this.#use(found, sessionId) : await this.#create(sessionId);
      if (!taken) continue;
      this.#known.set(name, taken);
      return { sessionId, claim: name };
    }
    throw changing(name);
  }

  #read(name: string): Promise<PersistentVolumeClaim | null> {
    const { kube, points, namespace } = this.#context;
    return orNull(points.run("workspace.read", {}, () => kube.get(PERSISTENT_VOLUME_CLAIMS, { namespace, name })));
  }

  /** Null: another client created it first. */
  async #create(sessionId: string): Promise<Volume | null> {
    const { kube, points, metrics, labels, logger } = this.#context;
    const template = this.#context.environment().spec.sessions?.workspace.claimTemplate;
    if (!template) throw new WorkspaceError("workspace has no claimTemplate");
    const claim = renderVolume(this.#context, sessionId, template);
    try {
      const made = await points.run("workspace.create", {}, () => kube.create(PERSISTENT_VOLUME_CLAIMS, claim));
      metrics.workspacesCreated.inc(labels);
      logger.info({ sessionId, volume: claim.metadata.name }, "a session's volume is made");
      return this.#ours(made);
    } catch (error) {
      if (isAlreadyExists(error)) return null;
      throw error;
    }
  }

  /** Null: it changed meanwhile. */
  async #use(found: PersistentVolumeClaim, sessionId: string): Promise<Volume | null> {
    const volume = this.#ours(found);
    // Two session ids with the same hash would share one volume.
    if (volume.sessionId !== sessionId) throw foreign(volume.name);
    if (volume.going) {
      throw new WorkspaceError(`the volume ${volume.name} is being deleted: the session waits until it is gone`);
    }
    if (volume.lastUsedMs === null) return volume;
    return this.#mark(volume, null);
  }

  #ours(claim: PersistentVolumeClaim): Volume {
    const volume = readVolume(claim, this.#context);
    if (!volume) throw foreign(claim.metadata.name ?? "");
    return volume;
  }

  /** Writes since when the volume is unused; null: in use. Returns null if the volume changed meanwhile. */
  async #mark(volume: Volume, lastUsed: string | null): Promise<Volume | null> {
    const { kube, points, namespace } = this.#context;
    const { name, uid, resourceVersion } = volume;
    const patch = { metadata: { uid, resourceVersion, annotations: { [ANNOTATION_LAST_USED]: lastUsed } } };
    const point = lastUsed === null ? "workspace.take" : "workspace.leave";
    try {
      const marked = await points.run(point, {}, () =>
        kube.patch(PERSISTENT_VOLUME_CLAIMS, { namespace, name }, patch, { type: "merge" }),
      );
      return this.#ours(marked);
    } catch (error) {
      if (isConflict(error) || isNotFound(error)) return null;
      throw error;
    }
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
    const heldMs = this.#pausedUntilMs - clock.monotonic();
    if (heldMs > 0) return this.#passes.wakeAfter(heldMs);
    if (clock.monotonic() >= this.#listedMs + timing.workspaceCheckMs) await this.#list();
    const used = this.#inUse();
    const inUse = (sessionId: string) =>
      used.has(sessionId) || this.#options.claims.runs(sessionId) || this.#options.awaited(sessionId);
    const plan = planVolumes(this.#known.values(), inUse, kube.now(), workspace.retainSeconds * SECOND_MS);
    const at = new Date(kube.now()).toISOString();
    await this.#inBatches(plan.take, (volume) => this.#remark(volume, null));
    await this.#inBatches(plan.leave, (volume) => this.#remark(volume, at));
    await this.#inBatches(plan.expire, async (volume) => {
      // The answers to the earlier requests took time.
      if (!inUse(volume.sessionId) && !this.#isNamed(volume.sessionId)) await this.#expire(volume);
    });
    this.#reported = "";
    this.#backoff.reset();
    this.#passes.wakeAfter(this.#listedMs + timing.workspaceCheckMs - clock.monotonic());
    if (plan.nextAtMs !== null) this.#passes.wakeAfter(plan.nextAtMs - kube.now());
    if (plan.leave.length > 0) this.#passes.poke();
  }

  /** Sessions whose volume a Pod uses, according to the cache: it shows a Pod's end late, never early. */
  #inUse(): Set<string> {
    const used = new Set<string>();
    for (const pod of this.#context.pods.list()) {
      const sessionId = sessionBoundTo(pod);
      if (sessionId !== null && usesVolume(pod)) used.add(sessionId);
    }
    return used;
  }

  /**
   * Whether a Pod names the volume, including an ended one kept for its logs. Until such a Pod is gone, Kubernetes
   * would keep a deleted volume (`kubernetes.io/pvc-protection`) and so delay the session's next item.
   */
  #isNamed(sessionId: string): boolean {
    return this.#context.pods.list().some((pod) => sessionBoundTo(pod) === sessionId);
  }

  async #list(): Promise<void> {
    const { kube, points, namespace, name, clock } = this.#context;
    const sentMs = clock.monotonic();
    const labelSelector = volumeSelector(name);
    const { items } = await points.run("workspace.list", {}, () =>
      kube.listAll(PERSISTENT_VOLUME_CLAIMS, { namespace, labelSelector }),
    );
    this.#known.clear();
    for (const item of items) {
      const volume = readVolume(item, this.#context);
      if (volume) this.#known.set(volume.name, volume);
    }
    this.#listedMs = sentMs;
    this.#options.onChange();
  }

  /**
   * Marks a volume in its current version if another client wrote to it meanwhile: the volume binder writes once, after
   * creation.
   */
  async #remark(volume: Volume, lastUsed: string | null): Promise<void> {
    let at = volume;
    for (let tries = 0; tries < TRIES; tries += 1) {
      const marked = await this.#mark(at, lastUsed);
      if (marked) {
        this.#known.set(volume.name, marked);
        return;
      }
      const found = await this.#read(volume.name);
      const now = found && readVolume(found, this.#context);
      if (!now) break;
      this.#known.set(volume.name, now);
      // If the volume changed otherwise, the next pass decides what to do.
      if (now.uid !== at.uid || now.going || now.lastUsedMs !== at.lastUsedMs) return this.#passes.poke();
      at = now;
      if (tries === TRIES - 1) throw changing(volume.name);
    }
    this.#forget(volume);
  }

  async #expire(volume: Volume): Promise<void> {
    const { kube, points, namespace, metrics, labels, announce } = this.#context;
    const { name, uid, resourceVersion, sessionId } = volume;
    try {
      await points.run("workspace.delete", { asks: { uid } }, () =>
        kube.delete(PERSISTENT_VOLUME_CLAIMS, { namespace, name }, { uid, resourceVersion }),
      );
      metrics.workspacesExpired.inc(labels);
      announce("WorkspaceExpired", `the volume ${name} of session ${sessionId} was kept long enough and is deleted`);
    } catch (error) {
      if (!isConflict(error) && !isNotFound(error)) throw error;
      // No other client wrote to it: the next try would meet the same refusal.
      if (isConflict(error) && (await this.#read(name))?.metadata.resourceVersion === resourceVersion) throw error;
    }
    this.#forget(volume);
  }

  /** The next list, which comes soon, shows what became of the volume. */
  #forget({ name }: Volume): void {
    const { clock, timing } = this.#context;
    this.#known.delete(name);
    this.#listedMs = Math.min(this.#listedMs, clock.monotonic() + LIST_SOON_MS - timing.workspaceCheckMs);
    this.#options.onChange();
  }

  async #inBatches(volumes: readonly Volume[], act: (volume: Volume) => Promise<void>): Promise<void> {
    for (let from = 0; from < volumes.length && this.#passes.active; from += CONCURRENCY) {
      await Promise.all(volumes.slice(from, from + CONCURRENCY).map(act));
    }
  }

  #failed(error: unknown): void {
    const asked = error instanceof KubeApiError ? (error.retryAfterMs ?? 0) : 0;
    const delayMs = Math.max(this.#backoff.next(), asked);
    this.#pausedUntilMs = this.#context.clock.monotonic() + delayMs;
    this.#passes.wakeAfter(delayMs);
    // An operator that lost leadership reports nothing.
    if (error instanceof LeadershipLostError) return;
    const words = errorText(error);
    this.#context.logger.warn({ error: words }, "volumes of sessions could not be kept");
    if (this.#reported === words) return;
    this.#reported = words;
    const fix = isForbidden(error) ? NO_PERMISSION : "it is tried again";
    this.#context.announce("WorkspaceFailing", `volumes of sessions could not be kept: ${words}; ${fix}`);
  }
}

/** The fix for a missing permission. */
export const NO_PERMISSION =
  "give the operator permission for PersistentVolumeClaims with the chart's rbac.workspaces=true";

function changing(name: string): WorkspaceError {
  return new WorkspaceError(`the volume ${name} changes all the time: see who writes to it`);
}

function foreign(name: string): WorkspaceError {
  return new WorkspaceError(
    `the PersistentVolumeClaim ${name} is there and is not one of this session: delete or rename it`,
  );
}
