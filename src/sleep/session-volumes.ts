import { ANNOTATION_ADOPTED_AT, ANNOTATION_LAST_USED } from "../api/names.ts";
import { errorText } from "../core/errors.ts";
import type { PointDetails } from "../core/points.ts";
import type { CallOptions } from "../kube/client.ts";
import { isConflict, isMaybeApplied, isNotFound, orNull } from "../kube/errors.ts";
import { PERSISTENT_VOLUME_CLAIMS, type PersistentVolumeClaim, type Pod } from "../kube/resource.ts";
import { isAsleep } from "../pods/turns.ts";
import { isPerSession, type OwnVolume, sessionBoundTo, workspaceOf } from "../pods/workspace-pods.ts";
import type { PoolContext } from "../protocol/context.ts";
import { isStepFailure } from "../protocol/failing-steps.ts";
import { assignPatch, readVolume, renderVolume, type Volume, volumeSelector } from "./workspace-volume.ts";

/** Consecutive tries to write to a volume that another client writes to at the same time. */
export const TRIES = 3;

/** Volumes adopted at the same time. */
const CONCURRENCY = 8;

/** A list shows the volumes of all Pods that are older than this, by two clocks. */
const LISTED_MS = 60_000;

/** Why a session's volume is unavailable, and how to fix it. */
export class WorkspaceError extends Error {
  constructor(message: string, cause?: unknown) {
    super(message, { cause });
    this.name = "WorkspaceError";
  }
}

/** Which sessions a Pod may serve, according to its volume. */
export type Binding =
  /** It mounts no volume. */
  | { readonly is: "none" }
  | { readonly is: "session"; readonly sessionId: string }
  /** Any session that has no volume yet. */
  | { readonly is: "unassigned" }
  /** It is not known yet whether its volume has a session. */
  | { readonly is: "unknown" }
  /** Its volume is deleted, or being deleted. */
  | { readonly is: "lost" };

/** `taken`: this Pod can't serve the session, but another one may. `failed`: the session may get its volume later. */
export type Assigned = "assigned" | "taken" | "failed";

/**
 * The volumes of an Environment with `workspace: PerSession`, and the sessions that they belong to. A volume is made
 * for a Pod, and the Pod's first claim assigns it. A session gets one volume only:
 *
 * - Only a claim assigns a volume, after its journal, and a session has one claim at a time.
 * - The annotation of the volume is the record. A process lists all volumes before it assigns one.
 * - An assignment names the resourceVersion. Before a process assigns its first volume, it writes to each volume that
 *   has no session, so a late request of an earlier process is refused. After an assignment without an answer, the
 *   volume and the session wait for such a write.
 *
 * It is deleted `retainSeconds` after its last use only: each first claim of a Pod writes to its volume, so that no late
 * mark says that it was unused since before.
 */
export class SessionVolumes {
  readonly #context: PoolContext;
  readonly #onChange: () => void;
  /** With the time (monotonic) when what is known was requested, or answered for a write. */
  readonly #known = new Map<string, { readonly volume: Volume; readonly atMs: number }>();
  /** The volume of each session; null: not computed yet. */
  #ofSessions: Map<string, Volume> | null = null;
  /** Volumes without a session that a request may still assign, to this session; null: to any. */
  readonly #doubts = new Map<string, string | null>();
  /** Names of volumes that Pods mount and that don't exist. */
  readonly #missing = new Set<string>();
  /** Names of volumes whose Pods were not created. */
  readonly #spares = new Set<string>();
  #listedMs = Number.NEGATIVE_INFINITY;
  /** The same by the API server's clock. */
  #listedAtMs = Number.NEGATIVE_INFINITY;

  constructor(context: PoolContext, onChange: () => void) {
    this.#context = context;
    this.#onChange = onChange;
  }

  /** When (monotonic) the volumes were last listed. */
  get listedMs(): number {
    return this.#listedMs;
  }

  get size(): number {
    return this.#known.size;
  }

  all(): Volume[] {
    return [...this.#known.values()].map(({ volume }) => volume);
  }

  /** Whether it is known which sessions have a volume. */
  get #isKnown(): boolean {
    return this.#listedMs !== Number.NEGATIVE_INFINITY && ![...this.#doubts.values()].includes(null);
  }

  /** Whether no volume waits until it is known whether it has a session. */
  get isSettled(): boolean {
    return this.#isKnown && this.#doubts.size === 0;
  }

  /** Whether the session has a volume. */
  has(sessionId: string): boolean {
    return this.#volumeOf(sessionId) !== undefined;
  }

  /** The name of the session's volume; null: it has none. */
  nameOf(sessionId: string): string | null {
    return this.#volumeOf(sessionId)?.name ?? null;
  }

  bindingOf(pod: Pod): Binding {
    const name = workspaceOf(pod);
    if (name === null) return { is: "none" };
    const volume = this.#known.get(name)?.volume;
    // The session gets another volume, so this Pod must not run it (M).
    if (volume ? volume.going : this.#missing.has(name) || this.#isListed(pod)) return { is: "lost" };
    const sessionId = sessionBoundTo(pod) ?? volume?.sessionId ?? null;
    if (sessionId !== null) return { is: "session", sessionId };
    return { is: volume && this.#isKnown && !this.#doubts.has(name) ? "unassigned" : "unknown" };
  }

  /** Whether the Pod's volume may serve the session: it is the session's, or the session has none. */
  mayServe(pod: Pod, sessionId: string): boolean {
    const binding = this.bindingOf(pod);
    if (!isPerSession(this.#context.environment())) return binding.is === "none";
    if (binding.is === "session") return binding.sessionId === sessionId;
    return binding.is === "unassigned" && !this.has(sessionId) && ![...this.#doubts.values()].includes(sessionId);
  }

  /**
   * Gives the Pod's volume to the session, or takes it for the session again if it is the session's. Call it after the
   * claim's journal and before the acknowledgement. From then on the volume belongs to the session, even if the claim is
   * dropped. Never throws.
   */
  async assign(pod: Pod, sessionId: string): Promise<Assigned> {
    const { holds, logger } = this.#context;
    const name = workspaceOf(pod);
    // A Pod whose session sleeps has used its volume since its first claim.
    if (name === null || isAsleep(pod)) return "assigned";
    try {
      const assigned = await this.#assign(name, sessionId, sessionBoundTo(pod) === sessionId);
      holds.succeeded("assign");
      return assigned;
    } catch (error) {
      if (isStepFailure(error)) holds.failed("assign", { error, name });
      logger.warn({ pod: pod.metadata.name, error: errorText(error) }, "cannot assign a volume to its session");
      return "failed";
    }
  }

  /** @param isBound whether the Pod was made for the session */
  async #assign(name: string, sessionId: string, isBound: boolean): Promise<Assigned> {
    const { logger, timing } = this.#context;
    let volume = this.#known.get(name)?.volume ?? (isBound ? await this.read(name) : null);
    for (let tries = 0; tries < TRIES; tries += 1) {
      // Someone has deleted it.
      if (!volume) return "taken";
      // A mark as unused may still arrive from the end of the session's last Pod. After this write, it is refused (M).
      if (volume.sessionId === sessionId) {
        if (await this.mark(volume, null, { timeoutMs: timing.requestBoundMs })) return "assigned";
      } else if (volume.sessionId !== null || volume.going) return "taken";
      else if (await this.#give(volume, sessionId)) {
        logger.info({ sessionId, volume: name }, "assigned a volume to its session");
        return "assigned";
      }
      volume = await this.read(name);
    }
    throw changing(name);
  }

  /** Assigns a volume. Returns null if it changed meanwhile. */
  async #give(volume: Volume, sessionId: string): Promise<Volume | null> {
    const { name } = volume;
    try {
      const bound = { timeoutMs: this.#context.timing.requestBoundMs };
      return await this.#patch("workspace.assign", name, assignPatch(volume, sessionId), { sessionId }, bound);
    } catch (error) {
      if (isMaybeApplied(error)) {
        this.#doubts.set(name, sessionId);
        this.#onChange();
      }
      throw error;
    }
  }

  /**
   * Writes to each volume that a request may still assign, so that it can't. The answer says whether it did.
   * @throws KubeApiError
   */
  async settle(): Promise<void> {
    const names = [...this.#doubts.keys()];
    for (let from = 0; from < names.length; from += CONCURRENCY) {
      await Promise.all(names.slice(from, from + CONCURRENCY).map((name) => this.#adopt(name)));
    }
    if (names.length > 0) this.#onChange();
  }

  async #adopt(name: string): Promise<void> {
    const { kube, points, namespace } = this.#context;
    const uid = this.#known.get(name)?.volume.uid;
    const annotations = { [ANNOTATION_ADOPTED_AT]: new Date(kube.now()).toISOString() };
    try {
      this.#note(
        await points.run("workspace.adopt", { pod: name }, () =>
          kube.patch(
            PERSISTENT_VOLUME_CLAIMS,
            { namespace, name },
            { metadata: { uid, annotations } },
            { type: "merge" },
          ),
        ),
      );
    } catch (error) {
      if (!isConflict(error) && !isNotFound(error)) throw error;
      await this.read(name);
    }
    this.#doubts.delete(name);
  }

  /**
   * Creates the volume of a Pod, before the Pod. The first claim of the Pod gives it a session.
   * @throws WorkspaceError if the spec has no template for it, KubeApiError
   */
  async create(pod: string): Promise<OwnVolume> {
    const { kube, points, metrics, labels, logger } = this.#context;
    const own = { sessionId: null, claim: pod };
    if (this.#known.has(pod)) return own;
    const template = this.#context.environment().spec.sessions?.workspace.claimTemplate;
    if (!template) throw new WorkspaceError("workspace has no claimTemplate");
    const claim = renderVolume(this.#context, pod, template);
    const made = await points.run("workspace.create", { pod }, () => kube.create(PERSISTENT_VOLUME_CLAIMS, claim));
    if (!this.#note(made)) throw changed(pod);
    metrics.workspacesCreated.inc(labels);
    logger.info({ volume: pod }, "creating a volume for a Pod");
    return own;
  }

  /** This Pod was not created: if it has a volume, the next Pod uses that, and so the name. */
  spare(pod: string): void {
    if (this.#known.has(pod)) this.#spares.add(pod);
  }

  /** The name of a volume whose Pod was not created; null: there is none. */
  takeSpare(): string | null {
    for (const name of this.#spares) {
      this.#spares.delete(name);
      const volume = this.#known.get(name)?.volume;
      if (volume && volume.sessionId === null && !volume.going) return name;
    }
    return null;
  }

  /**
   * Returns the session's volume, marked as in use; null: it has none. Call it before creating the session's Pod.
   * @throws WorkspaceError if the volume is unavailable, KubeApiError
   */
  async take(sessionId: string): Promise<OwnVolume | null> {
    for (let tries = 0; tries < TRIES; tries += 1) {
      const name = this.nameOf(sessionId);
      if (name === null) return null;
      const found = await this.read(name);
      if (!found || found.sessionId !== sessionId) continue;
      if (found.going) {
        throw new WorkspaceError(`the volume ${name} is being deleted, so the session waits until it is gone`);
      }
      if (found.lastUsedMs === null || (await this.mark(found, null))) return { sessionId, claim: name };
    }
    throw changing(this.nameOf(sessionId) ?? "");
  }

  /** Reads a volume; null: it is gone, or it is not one of this Environment. @throws KubeApiError */
  async read(name: string): Promise<Volume | null> {
    const { kube, points, namespace } = this.#context;
    const before = this.#known.get(name);
    const get = () => kube.get(PERSISTENT_VOLUME_CLAIMS, { namespace, name });
    const claim = await orNull(points.run("workspace.read", { pod: name }, get));
    // If a write was answered in the meantime, the read may be from before it: it must not undo an assignment.
    const known = this.#known.get(name);
    if (claim && known && known !== before && known.volume.uid === claim.metadata.uid) return known.volume;
    const volume = claim && this.#note(claim);
    if (volume) return volume;
    this.forget(name);
    this.#missing.add(name);
    return null;
  }

  /** Writes since when the volume is unused; null: in use. Returns null if the volume changed meanwhile. */
  async mark(volume: Volume, lastUsed: string | null, options: CallOptions = {}): Promise<Volume | null> {
    const { name, uid, resourceVersion, sessionId } = volume;
    const annotations = {
      [ANNOTATION_LAST_USED]: lastUsed,
      // Without a mark, the write would change nothing, and earlier requests would not be refused.
      ...(lastUsed === null ? { [ANNOTATION_ADOPTED_AT]: new Date(this.#context.kube.now()).toISOString() } : {}),
    };
    const point = lastUsed === null ? "workspace.take" : "workspace.leave";
    const asks = lastUsed === null ? { sessionId } : { sessionId, lastUsed };
    return this.#patch(point, name, { metadata: { uid, resourceVersion, annotations } }, asks, options);
  }

  /** Writes to a volume as it was read. Returns null if it changed meanwhile, or is gone. */
  async #patch(
    point: "workspace.assign" | "workspace.take" | "workspace.leave",
    name: string,
    patch: object,
    asks: PointDetails,
    options: CallOptions,
  ): Promise<Volume | null> {
    const { kube, points, namespace } = this.#context;
    try {
      const patched = await points.run(point, { pod: name, asks }, () =>
        kube.patch(PERSISTENT_VOLUME_CLAIMS, { namespace, name }, patch, { type: "merge" }, options),
      );
      return this.#note(patched);
    } catch (error) {
      if (isConflict(error) || isNotFound(error)) return null;
      throw error;
    }
  }

  /** Lists all volumes. @throws KubeApiError */
  async list(): Promise<void> {
    const { kube, points, namespace, name, clock } = this.#context;
    const isFirst = this.#listedMs === Number.NEGATIVE_INFINITY;
    const sentMs = clock.monotonic();
    const sentAtMs = kube.now();
    const labelSelector = volumeSelector(name);
    const { items } = await points.run("workspace.list", {}, () =>
      kube.listAll(PERSISTENT_VOLUME_CLAIMS, { namespace, labelSelector }),
    );
    const newer = [...this.#known].filter(([, { atMs }]) => atMs >= sentMs);
    this.#known.clear();
    this.#missing.clear();
    for (const item of items) {
      const volume = readVolume(item, this.#context);
      if (!volume) continue;
      this.#known.set(volume.name, { volume, atMs: sentMs });
      if (isFirst && volume.sessionId === null) this.#doubts.set(volume.name, null);
    }
    for (const [each, known] of newer) this.#known.set(each, known);
    this.#ofSessions = null;
    this.#listedMs = sentMs;
    this.#listedAtMs = sentAtMs;
    this.#onChange();
  }

  /** The volume was deleted, but a Pod may keep it for a while. */
  deleted(volume: Volume): void {
    this.#known.set(volume.name, { volume: { ...volume, going: true }, atMs: this.#context.clock.monotonic() });
    this.#ofSessions = null;
  }

  /** The volume is gone. */
  forget(name: string): void {
    this.#known.delete(name);
    this.#doubts.delete(name);
    this.#spares.delete(name);
    this.#ofSessions = null;
  }

  /** Whether the last list would show the volume of this Pod, which is older than the Pod. */
  #isListed(pod: Pod): boolean {
    // A session's volume exists before a Pod is made for the session, so each list shows it.
    if (sessionBoundTo(pod) !== null) return this.#listedMs !== Number.NEGATIVE_INFINITY;
    return Date.parse(pod.metadata.creationTimestamp ?? "") + LISTED_MS < this.#listedAtMs;
  }

  #note(claim: PersistentVolumeClaim): Volume | null {
    const volume = readVolume(claim, this.#context);
    if (!volume) return null;
    this.#known.set(volume.name, { volume, atMs: this.#context.clock.monotonic() });
    this.#ofSessions = null;
    return volume;
  }

  #volumeOf(sessionId: string): Volume | undefined {
    if (this.#ofSessions === null) {
      this.#ofSessions = new Map();
      for (const { volume } of this.#known.values()) {
        if (volume.sessionId === null) continue;
        const other = this.#ofSessions.get(volume.sessionId);
        if (!other || isBetter(volume, other)) this.#ofSessions.set(volume.sessionId, volume);
      }
    }
    return this.#ofSessions.get(sessionId);
  }
}

/**
 * Whether the session should get the first volume rather than the second: the one that was used last. Earlier versions
 * of Berth find no volume that was assigned, so a session may have got a second one from them.
 */
function isBetter(one: Volume, other: Volume): boolean {
  const usedMs = ({ lastUsedMs }: Volume) => lastUsedMs ?? Number.POSITIVE_INFINITY;
  if (one.going !== other.going) return other.going;
  return usedMs(one) === usedMs(other) ? one.name < other.name : usedMs(one) > usedMs(other);
}

export function changing(name: string): WorkspaceError {
  return new WorkspaceError(`the volume ${name} keeps changing; find the client that writes to it`);
}

function changed(name: string): WorkspaceError {
  return new WorkspaceError(
    `an admission webhook or policy changes the annotations or the owner of the new volume ${name}; exclude it from that`,
  );
}
