import {
  API_VERSION,
  KIND,
  LABEL_ENVIRONMENT,
  LABEL_MANAGED_BY,
  LABEL_PHASE,
  LABEL_ROLE,
  toLabelValue,
} from "../api/names.ts";
import { errorText } from "../core/errors.ts";
import { Passes } from "../core/passes.ts";
import { isAlreadyExists, isConflict, isForbidden, isNotFound, LeadershipLostError } from "../kube/errors.ts";
import { POD_DISRUPTION_BUDGETS, type PodDisruptionBudget } from "../kube/resource.ts";
import type { ClaimTable } from "../protocol/claim-table.ts";
import type { SessionContext } from "../protocol/context.ts";

/** Passes by the clock follow one another no closer than this. */
const MIN_WAKE_MS = 1_000;

/** After a failure Pods are marked for so long without a try: the API server takes as long to fail each. */
const COVER_PAUSE_MS = 5_000;

/** Tries in a row to write it: somebody else may create, delete or replace it in between. */
const TRIES = 3;

/**
 * The PodDisruptionBudget over the running sessions of an Environment with `disruption: Protect`: it makes the Eviction API
 * refuse voluntary evictions (drains, the cluster autoscaler, the descheduler) of Pods that have a session, and of no
 * other.
 *
 * `minAvailable` is the number of running sessions: percentages would need an owner with a scale. It is raised before a
 * Pod is marked as assigned, so that no moment is unprotected, and lowered only some time after: too high a number protects
 * as well. The Pods are marked by a label that the selector asks for.
 */
export class DisruptionBudget {
  readonly #context: SessionContext;
  readonly #claims: ClaimTable;
  readonly #passes: Passes;
  /** As last read or written; undefined: not known; null: there is none. */
  #known: { readonly uid: string; readonly minAvailable: number } | null | undefined;
  /** What is under way: one look or change after the other, so that no older answer passes for a newer one. */
  #tail: Promise<void> = Promise.resolve();
  /** When (monotonic) it was last read. */
  #readMs = Number.NEGATIVE_INFINITY;
  /** Since when (monotonic) it is higher than it need be. */
  #tooHighSinceMs: number | null = null;
  /** Not before (monotonic): the last try failed, and changes of Pods come many a second. */
  #retryAtMs = Number.NEGATIVE_INFINITY;
  /** When (monotonic) the last try failed. */
  #failedMs = Number.NEGATIVE_INFINITY;
  #told = "";

  constructor(options: { context: SessionContext; claims: ClaimTable }) {
    this.#context = options.context;
    this.#claims = options.claims;
    const { clock, timing } = options.context;
    this.#passes = new Passes({
      clock,
      pass: () => this.#alone(() => this.#pass()),
      failed: (error) => this.#failed(error),
      retryMs: timing.retryMaxMs,
      minWakeMs: MIN_WAKE_MS,
    });
  }

  /** Begins once all claims of an earlier process are in the table: before that it would be lowered under them. */
  start(signal: AbortSignal): void {
    this.#passes.start(signal);
  }

  /** The spec or the number of sessions changed. */
  poke(): void {
    this.#passes.poke();
  }

  /** Resolves when nothing of it is under way any more, after the signal aborted. */
  async ended(): Promise<void> {
    await this.#passes.ended();
    await this.#tail;
  }

  /**
   * To be awaited before a Pod is marked as assigned: resolves when the budget counts its session. What cannot be protected
   * is served all the same: a failure is told, and tried again. Throws LeadershipLostError only.
   */
  async cover(): Promise<void> {
    if (!this.#wanted) return;
    try {
      await this.#alone(() => this.#cover());
    } catch (error) {
      if (error instanceof LeadershipLostError) throw error;
      this.#failed(error);
      this.#passes.poke();
    }
  }

  /** Those who waited behind a failure do not repeat it, one after the other: their Pods would be marked late, and later. */
  async #cover(): Promise<void> {
    if (this.#context.clock.monotonic() >= this.#failedMs + COVER_PAUSE_MS) await this.#write();
  }

  get #wanted(): boolean {
    return this.#context.environment().spec.sessions?.disruption === "Protect";
  }

  /** Sessions that run or are about to. */
  get #needed(): number {
    let running = 0;
    for (const {
      record: { journal },
      observed: { end },
    } of this.#claims) {
      if (journal.use === "session" && journal.opened && end === null) running += 1;
    }
    return running;
  }

  get #covers(): boolean {
    return this.#known != null && this.#known.minAvailable >= this.#needed;
  }

  async #pass(): Promise<void> {
    const { clock, timing } = this.#context;
    const nowMs = clock.monotonic();
    if (nowMs < this.#retryAtMs) return this.#passes.wakeAfter(this.#retryAtMs - nowMs);
    // Somebody may have changed or deleted it.
    if (this.#wanted && nowMs >= this.#readMs + timing.budgetCheckMs) this.#known = undefined;
    if (this.#known === undefined) await this.#readForPass();
    if (!this.#wanted) return this.#remove();
    this.#passes.wakeAfter(this.#readMs + timing.budgetCheckMs - nowMs);
    if (!this.#covers) return this.#write();
    if (this.#known?.minAvailable === this.#needed) {
      this.#tooHighSinceMs = null;
      return;
    }
    this.#tooHighSinceMs ??= nowMs;
    const waitMs = this.#tooHighSinceMs + timing.budgetLingerMs - nowMs;
    if (waitMs > 0) return this.#passes.wakeAfter(waitMs);
    this.#tooHighSinceMs = null;
    await this.#set(this.#needed);
  }

  /** Where no protection is wanted, an operator that may not read budgets misses nothing. */
  async #readForPass(): Promise<void> {
    try {
      await this.#read();
    } catch (error) {
      if (this.#wanted || !isForbidden(error)) throw error;
      this.#known = null;
    }
  }

  #alone(act: () => Promise<void>): Promise<void> {
    const done = this.#tail.then(act);
    this.#tail = done.catch(() => {});
    return done;
  }

  /** Raises it where it is too low. Whoever waited for another's write finds that it counted both. */
  async #write(): Promise<void> {
    let conflict: unknown = null;
    for (let tries = 0; tries < TRIES && !this.#covers; tries += 1) {
      if (this.#known === undefined) await this.#read();
      if (!this.#covers) conflict = await this.#set(this.#needed);
    }
    // Without a refusal more sessions were opened meanwhile: who opened them writes next.
    if (!this.#covers && conflict !== null) throw conflict;
  }

  /** Returns the refusal where another client was quicker, in whatever way: the next write begins with a look. */
  async #set(minAvailable: number): Promise<unknown> {
    const { kube, points, timing } = this.#context;
    const bound = { timeoutMs: timing.requestBoundMs };
    const asks = { minAvailable };
    const known = this.#known;
    // Until there is an answer nobody knows what stands there.
    this.#known = undefined;
    try {
      const written = known
        ? await points.run("budget.patch", { asks }, () => {
            const patch = { metadata: { uid: known.uid }, spec: { minAvailable } };
            return kube.patch(POD_DISRUPTION_BUDGETS, this.#ref, patch, { type: "merge" }, bound);
          })
        : await points.run("budget.create", { asks }, () =>
            kube.create(POD_DISRUPTION_BUDGETS, this.#render(minAvailable), {}, bound),
          );
      this.#known = read(written);
      this.#told = "";
    } catch (error) {
      if (!isAlreadyExists(error) && !isConflict(error) && !isNotFound(error)) throw error;
      return error;
    }
    return null;
  }

  /** Reads it live. One of an earlier Environment of this name goes; one that is somebody's own is never touched. */
  async #read(): Promise<void> {
    const { kube, points, clock, timing, uid } = this.#context;
    const nowMs = clock.monotonic();
    let found: PodDisruptionBudget | null = null;
    try {
      const bound = { timeoutMs: timing.requestBoundMs };
      found = await points.run("budget.read", {}, () => kube.get(POD_DISRUPTION_BUDGETS, this.#ref, bound));
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
    this.#readMs = nowMs;
    const owner = found?.metadata.ownerReferences?.find(({ controller }) => controller);
    if (!found || owner?.uid === uid) {
      this.#known = found && read(found);
      return;
    }
    const isOurKind = owner?.kind === KIND && owner.name === this.#context.name;
    if (!isOurKind) {
      if (!this.#wanted) {
        this.#known = null;
        return;
      }
      throw new Error(`PodDisruptionBudget ${this.#ref.name} is somebody else's: delete or rename it`);
    }
    await this.#delete(found.metadata.uid);
    this.#known = null;
  }

  async #remove(): Promise<void> {
    const known = this.#known;
    if (!known) return;
    this.#known = undefined;
    await this.#delete(known.uid);
    this.#known = null;
    this.#tooHighSinceMs = null;
  }

  async #delete(uid: string | undefined): Promise<void> {
    const { kube, points, timing } = this.#context;
    const bound = { timeoutMs: timing.requestBoundMs };
    try {
      await points.run("budget.delete", {}, () =>
        kube.delete(POD_DISRUPTION_BUDGETS, this.#ref, uid === undefined ? {} : { uid }, bound),
      );
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
  }

  #failed(error: unknown): void {
    const { logger, announce, clock, timing } = this.#context;
    // Who may not act any more has nothing to say of it.
    if (error instanceof LeadershipLostError) return;
    this.#failedMs = clock.monotonic();
    this.#retryAtMs = this.#failedMs + timing.retryMaxMs;
    const words = errorText(error);
    logger.warn({ error: words }, "the disruption budget could not be kept");
    if (!this.#wanted || this.#told === words) return;
    this.#told = words;
    const mend = isForbidden(error)
      ? "give the operator permission to create, patch and delete PodDisruptionBudgets"
      : "it is tried again";
    announce("ProtectionFailing", `running sessions may be evicted although disruption is Protect: ${words}; ${mend}`);
  }

  get #ref(): { namespace: string; name: string } {
    const { namespace, name } = this.#context;
    return { namespace, name: `berth-${name}` };
  }

  #render(minAvailable: number): PodDisruptionBudget {
    const { name, uid } = this.#context;
    const labels = { [LABEL_ENVIRONMENT]: toLabelValue(name), [LABEL_ROLE]: "session" };
    return {
      metadata: {
        ...this.#ref,
        labels: { [LABEL_MANAGED_BY]: "berth", ...labels },
        ownerReferences: [{ apiVersion: API_VERSION, kind: KIND, name, uid, controller: true }],
      },
      spec: { minAvailable, selector: { matchLabels: { ...labels, [LABEL_PHASE]: "assigned" } } },
    };
  }
}

function read({ metadata, spec }: PodDisruptionBudget): { uid: string; minAvailable: number } {
  const { minAvailable } = spec ?? {};
  // A percentage is not ours: somebody changed it.
  return { uid: metadata.uid ?? "", minAvailable: typeof minAvailable === "number" ? minAvailable : -1 };
}
