import {
  API_VERSION,
  KIND,
  LABEL_ENVIRONMENT,
  LABEL_PHASE,
  LABEL_ROLE,
  OWN_LABELS,
  toLabelValue,
} from "../api/names.ts";
import { Backoff } from "../core/backoff.ts";
import { errorText } from "../core/errors.ts";
import { Passes } from "../core/passes.ts";
import { isForbidden, LeadershipLostError } from "../kube/errors.ts";
import { keepOwned, type OwnedMetadata } from "../kube/owned-object.ts";
import { POD_DISRUPTION_BUDGETS, type PodDisruptionBudget } from "../kube/resource.ts";
import type { ClaimTable } from "../protocol/claim-table.ts";
import type { PoolContext } from "../protocol/context.ts";

/** The least time between two passes: sessions that start or end meanwhile share a write. */
const PACE_MS = 500;

/** The least time between two timed passes. */
const MIN_WAKE_MS = 1_000;

/** Writes that fail for so long leave sessions unprotected for longer than a drain waits between its tries. */
const FAILING_AFTER_MS = 10_000;

/**
 * The PodDisruptionBudget over the running sessions of an Environment with `disruption: Protect`. It makes the Eviction
 * API refuse voluntary evictions (drains, the cluster autoscaler, the descheduler) of Pods with a session, and of no
 * others.
 *
 * `minAvailable` is the number of running sessions: percentages would need a controller with a scale. It follows that
 * number, and no session waits for it. The selector matches the label of assigned Pods.
 */
export class DisruptionBudget {
  readonly #context: PoolContext;
  readonly #claims: ClaimTable;
  readonly #passes: Passes;
  readonly #backoff: Backoff;
  /** As last read or written; undefined: not known; null: it does not exist. */
  #known: PodDisruptionBudget | null | undefined;
  /** When (monotonic) it was last read: another client may have changed or deleted it. */
  #readMs = Number.NEGATIVE_INFINITY;
  /** Since when (monotonic) all tries failed; null: the last one did not. */
  #failingSinceMs: number | null = null;
  /** No try before this (monotonic). */
  #retryAtMs = Number.NEGATIVE_INFINITY;
  #reported = "";

  constructor(options: { context: PoolContext; claims: ClaimTable }) {
    this.#context = options.context;
    this.#claims = options.claims;
    const { clock, timing, random } = options.context;
    this.#backoff = new Backoff({ baseMs: timing.retryBaseMs, maxMs: timing.retryMaxMs }, random);
    this.#passes = new Passes({
      clock,
      pass: () => this.#pass(),
      failed: (error) => this.#failed(error),
      retryMs: timing.retryMaxMs,
      minWakeMs: MIN_WAKE_MS,
      restMs: PACE_MS,
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

  async #pass(): Promise<void> {
    const { kube, points, clock, timing } = this.#context;
    const nowMs = clock.monotonic();
    if (nowMs < this.#retryAtMs) return this.#passes.wakeAfter(this.#retryAtMs - nowMs);
    const isWanted = this.#wanted;
    const known = nowMs < this.#readMs + timing.budgetCheckMs ? this.#known : undefined;
    if (!isWanted && known === null) return;
    if (!known) this.#readMs = nowMs;
    // Until the answer arrives, the current value is unknown.
    this.#known = undefined;
    const calls = {
      ...{ kube, resource: POD_DISRUPTION_BUDGETS, bound: { timeoutMs: timing.requestBoundMs } },
      run: <R>(act: "read" | "create" | "patch" | "delete", call: () => Promise<R>) =>
        points.run(`budget.${act}`, {}, call),
    };
    this.#known = await keepOwned(calls, this.#metadata, isWanted ? this.#render() : null, known);
    this.#failingSinceMs = null;
    this.#backoff.reset();
    this.#reported = "";
    if (isWanted) this.#passes.wakeAfter(this.#readMs + timing.budgetCheckMs - nowMs);
  }

  #failed(error: unknown): void {
    const { logger, announce, clock } = this.#context;
    // An operator that lost leadership reports nothing.
    if (error instanceof LeadershipLostError) return;
    const nowMs = clock.monotonic();
    this.#failingSinceMs ??= nowMs;
    const leftMs = this.#failingSinceMs + FAILING_AFTER_MS - nowMs;
    const waitMs = this.#backoff.next();
    this.#retryAtMs = nowMs + (leftMs > 0 ? Math.min(waitMs, leftMs) : waitMs);
    this.#passes.wakeAfter(this.#retryAtMs - nowMs);
    const words = errorText(error);
    logger.warn({ error: words }, "cannot write the disruption budget");
    if (!this.#wanted || leftMs > 0 || this.#reported === words) return;
    this.#reported = words;
    const fix = isForbidden(error)
      ? "give the operator permission to get, create, patch and delete PodDisruptionBudgets"
      : "Berth tries again";
    announce("ProtectionFailing", `running sessions may be evicted although disruption is Protect: ${words}; ${fix}`);
  }

  get #labels(): Record<string, string> {
    return { [LABEL_ENVIRONMENT]: toLabelValue(this.#context.name), [LABEL_ROLE]: "session" };
  }

  get #metadata(): OwnedMetadata {
    const { namespace, name, uid } = this.#context;
    return {
      namespace,
      name: `berth-${name}`,
      labels: { ...OWN_LABELS, ...this.#labels },
      ownerReferences: [{ apiVersion: API_VERSION, kind: KIND, name, uid, controller: true }],
    };
  }

  #render() {
    return {
      minAvailable: this.#needed,
      // Null removes it: a budget with both is invalid.
      maxUnavailable: null,
      // The default. AlwaysAllow would let drains evict sessions whose Pods are not Ready.
      unhealthyPodEvictionPolicy: "IfHealthyBudget",
      selector: { matchLabels: { ...this.#labels, [LABEL_PHASE]: "running" } },
    };
  }
}
