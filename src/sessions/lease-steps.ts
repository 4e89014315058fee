import { fence, lostToOthers, shortenLease, stopItem, takeLease } from "../claims/item-acts.ts";
import type { Claim } from "../protocol/claim.ts";
import { fenceSent, noteAskedToStop, noteFenced, noteLease, remember, undoFence } from "../protocol/claim-lease.ts";
import { noteFirstBeat, noteStopSent, replaceItem } from "../protocol/claim-observed.ts";
import { decideEnding, replaceEnding } from "../protocol/claim-record.ts";
import type { SessionContext } from "../protocol/context.ts";
import { overdueEnding } from "../protocol/facts.ts";
import { noFirstBeatMessage } from "../protocol/first-heartbeat.ts";
import { maySendStop, mayStopFenced, newestSentMs } from "../protocol/lease.ts";
import { WorkApiError } from "../work/errors.ts";
import { NO_HEARTBEAT } from "../work/types.ts";
import type { LeaseKeeper } from "./lease-keeper.ts";

/** Performs the steps that take, release or stop a claim's item, coordinated with the heartbeats of the keeper. */
export class LeaseSteps {
  readonly #context: SessionContext;
  readonly #keeper: LeaseKeeper;

  constructor(context: SessionContext, keeper: LeaseKeeper) {
    this.#context = context;
    this.#keeper = keeper;
  }

  /** lease: Operator: takes the lease. From now on the keeper sends heartbeats, whatever happens to the Pod. */
  async take(claim: Claim, expected: string): Promise<void> {
    // After a restart all leases are due at once, so this waits for its turn.
    const { beats } = this.#context.work();
    await beats.run(() => takeLease(this.#context, claim, expected));
    this.#keeper.keep(claim);
    const { own: lease } = claim.lease;
    const result = lease === null || lease.is === "lost" ? "refused" : "taken";
    this.#context.metrics.heartbeats.inc({ ...this.#context.labels, result });
    if (result === "taken") noteFirstBeat(claim, this.#context.clock.now());
    if (lease?.is === "lost") this.#context.metrics.leasesLost.inc(this.#context.labels);
  }

  /** lease: Operator: records a lost lease: another client holds it, or the item is back in the queue. */
  lose(claim: Claim, message: string): void {
    this.#keeper.forget(claim);
    noteLease(claim, lostToOthers(this.#context, message));
    this.#context.metrics.leasesLost.inc(this.#context.labels);
    this.#context.logger.warn({ workId: claim.record.journal.workId, pod: claim.name, why: message }, "lease lost");
  }

  /** lease: Operator: lets the lease lapse after a last heartbeat that shortens it, and remembers when it will end. */
  async letGo(claim: Claim): Promise<void> {
    await this.#keeper.pause(claim);
    this.#keeper.forget(claim);
    const { own: lease } = claim.lease;
    if (lease?.is !== "held") return;
    noteLease(claim, null);
    replaceItem(claim, null);
    remember(claim, { is: "fenced", beatSentMs: newestSentMs(lease), ttlMs: lease.ttlMs });
    await shortenLease(this.#context, claim, lease);
  }

  /** Takes the lease with our own heartbeat, so that a stop can follow. */
  async fence(claim: Claim, expected: string): Promise<void> {
    const { journal } = claim.record;
    const ended = claim.observed.end !== null;
    const { blindFence } = claim.lease;
    // Every heartbeat of the item so far is ours: it has none, or only that of a fence whose answer was lost.
    const onlyOurs = expected === NO_HEARTBEAT || (blindFence !== null && (blindFence.seen ?? expected) === expected);
    const silent = !ended && journal.opened && onlyOurs;
    // During an outage of the Work API no program could send a heartbeat.
    const unbeaten = ended && onlyOurs && journal.opened && claim.observed.silenceEndMs === null;
    const before = fenceSent(claim, { unbeaten, silent });
    let held: boolean;
    try {
      held = await fence(this.#context, claim, expected);
    } catch (error) {
      if (error instanceof WorkApiError && !error.maybeApplied) undoFence(claim, before);
      throw error;
    }
    noteFenced(claim, held, before);
    // The last view of the item is older than our heartbeat.
    replaceItem(claim, null);
    if (!held || !silent) return;
    decideEnding(claim, "NoFirstBeat", noFirstBeatMessage(this.#context.environment()));
  }

  /** Stops the item. No heartbeat may overtake a forced stop, and waiting for one may use up the time for the stop. */
  async stop(claim: Claim, force: boolean, isDraining: boolean): Promise<void> {
    const { clock, timing } = this.#context;
    const held = claim.lease.own?.is === "held";
    if (force) await this.#keeper.pause(claim);
    const now = { nowMs: clock.monotonic(), wallMs: clock.now() };
    if (held && !(claim.lease.own?.is === "held" && maySendStop(claim.lease.own, now, timing))) {
      this.#keeper.resume(claim);
      return;
    }
    // The machine, and its monotonic clock, may have slept since the decision: then fence the item again.
    const { memory } = claim.lease;
    const { item } = claim.observed;
    if (memory.is === "fenced" && item?.state === "active" && !mayStopFenced(memory, now, timing)) {
      remember(claim, { is: "none" });
      return;
    }
    try {
      await stopItem(this.#context, claim, force);
    } catch (error) {
      this.#keeper.resume(claim, !(error instanceof WorkApiError && error.maybeApplied));
      throw error;
    }
    if (force) return this.#stopped(claim);
    const nowMs = clock.monotonic();
    noteAskedToStop(claim, nowMs);
    noteStopSent(claim, nowMs);
    replaceEnding(claim, ...overdueEnding(!isDraining));
  }

  #stopped(claim: Claim): void {
    this.#keeper.forget(claim);
    if (claim.lease.own !== null) noteLease(claim, { is: "over" });
  }
}
