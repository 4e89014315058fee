import {
  API_VERSION,
  KIND,
  LABEL_ENVIRONMENT,
  LABEL_PHASE,
  LABEL_ROLE,
  OWN_LABELS,
  toLabelValue,
} from "../api/names.ts";
import { errorText } from "../core/errors.ts";
import { Passes } from "../core/passes.ts";
import { isAlreadyExists, isConflict, isForbidden, isNotFound, LeadershipLostError } from "../kube/errors.ts";
import { POD_DISRUPTION_BUDGETS, type PodDisruptionBudget } from "../kube/resource.ts";
import type { ClaimTable } from "../protocol/claim-table.ts";
import type { PoolContext } from "../protocol/context.ts";

/** The least time between two timed passes. */
const MIN_WAKE_MS = 1_000;

/** After a failure, Pods are marked for this long without another try: each try could fail as slowly. */
const COVER_PAUSE_MS = 5_000;

/** Consecutive tries to write the budget: another client may create, delete or replace it in between. */
const TRIES = 3;

/**
 * The PodDisruptionBudget over the running sessions of an Environment with `disruption: Protect`. It makes the Eviction
 * API refuse voluntary evictions (drains, the cluster autoscaler, the descheduler) of Pods with a session, and of no
 * others.
 *
 * `minAvailable` is the number of running sessions: percentages would need a controller with a scale. It is raised
 * before a Pod is marked as assigned, so that no session is unprotected, except a woken one until that mark. It is
 * lowered only some time after, since too high a number protects as well. The selector matches the mark's label.
 */
export class DisruptionBudget {
  readonly #context: PoolContext;
  readonly #claims: ClaimTable;
  readonly #passes: Passes;
  /** As last read or written; undefined: not known; null: it does not exist. */
  #known: { readonly uid: string; readonly minAvailable: number } | null | undefined;
  /** The read or write in flight: they run one after the other, so that no older answer overwrites a newer one. */
  #tail: Promise<void> = Promise.resolve();
  /** When (monotonic) it was last read. */
  #readMs = Number.NEGATIVE_INFINITY;
  /** Since when (monotonic) it has been higher than needed. */
  #tooHighSinceMs: number | null = null;
  /** No try before this (monotonic): the last one failed, and Pods change many times a second. */
  #retryAtMs = Number.NEGATIVE_INFINITY;
  /** When (monotonic) the last try failed. */
  #failedMs = Number.NEGATIVE_INFINITY;
  #reported = "";

  constructor(options: { context: PoolContext; claims: ClaimTable }) {
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

  /**
   * Starts once the table holds all claims of an earlier process: before that, it would lower the budget under running
   * sessions.
   */
  start(signal: AbortSignal): void {
    this.#passes.start(signal);
  }

  /** The spec or the number of sessions changed. */
  poke(): void {
    // Pods and sessions change many times a second, and most Environments have no budget.
    if (this.#wanted || this.#known !== null) this.#passes.poke();
  }

  /** Resolves when nothing is in flight, after the signal aborted. */
  async ended(): Promise<void> {
    await this.#passes.ended();
    await this.#tail;
  }

  /**
   * Raises the budget for a session. Await it before marking a Pod as assigned. A session that can't be protected is
   * still served: the failure is reported and retried. Throws only LeadershipLostError.
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

  /**
   * Callers that waited behind a failure do not repeat it one by one: each would delay the marking of its Pod further.
   */
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
    // Another client may have changed or deleted it.
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

  /** Without protection, an operator that may not read budgets needs none. */
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

  /** Raises the budget if it is too low. A caller that waited for another's write may find itself already counted. */
  async #write(): Promise<void> {
    let conflict: unknown = null;
    for (let tries = 0; tries < TRIES && !this.#covers; tries += 1) {
      if (this.#known === undefined) await this.#read();
      if (!this.#covers) conflict = await this.#set(this.#needed);
    }
    // Without a conflict, more sessions were opened meanwhile: their callers write next.
    if (!this.#covers && conflict !== null) throw conflict;
  }

  /** Returns the error if another client changed the budget first: the next write begins with a read. */
  async #set(minAvailable: number): Promise<unknown> {
    const { kube, points, timing } = this.#context;
    const bound = { timeoutMs: timing.requestBoundMs };
    const asks = { minAvailable };
    const known = this.#known;
    // Until the answer arrives, the current value is unknown.
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
      this.#reported = "";
    } catch (error) {
      if (!isAlreadyExists(error) && !isConflict(error) && !isNotFound(error)) throw error;
      return error;
    }
    return null;
  }

  /**
   * Reads the budget live. Deletes one of an earlier Environment of this name, and never touches one of another owner.
   */
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
      throw new Error(`PodDisruptionBudget ${this.#ref.name} has another owner; delete or rename it`);
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
    // An operator that lost leadership reports nothing.
    if (error instanceof LeadershipLostError) return;
    this.#failedMs = clock.monotonic();
    this.#retryAtMs = this.#failedMs + timing.retryMaxMs;
    const words = errorText(error);
    logger.warn({ error: words }, "cannot write the disruption budget");
    if (!this.#wanted || this.#reported === words) return;
    this.#reported = words;
    const fix = isForbidden(error)
      ? "give the operator permission to create, patch and delete PodDisruptionBudgets"
      : "Berth tries again";
    announce("ProtectionFailing", `running sessions may be evicted although disruption is Protect: ${words}; ${fix}`);
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
        labels: { ...OWN_LABELS, ...labels },
        ownerReferences: [{ apiVersion: API_VERSION, kind: KIND, name, uid, controller: true }],
      },
      spec: { minAvailable, selector: { matchLabels: { ...labels, [LABEL_PHASE]: "assigned" } } },
    };
  }
}

function read({ metadata, spec }: PodDisruptionBudget): { uid: string; minAvailable: number } {
  const { minAvailable } = spec ?? {};
  // Another client replaced our number with a percentage.
  return { uid: metadata.uid ?? "", minAvailable: typeof minAvailable === "number" ? minAvailable : -1 };
}
