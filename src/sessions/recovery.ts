import { lateAckLeftMs } from "../claims/ack-window.ts";
import { Backoff } from "../core/backoff.ts";
import { sleep } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import type { ServerTime } from "../core/server-time.ts";
import type { Secret } from "../kube/resource.ts";
import { templateHashOf } from "../pods/own-pods.ts";
import { parkingOf } from "../pods/pod-gate.ts";
import { readPodState } from "../pods/pod-state.ts";
import { hasTurns, podOfSlot } from "../pods/turns.ts";
import type { Pool } from "../pool/pool.ts";
import type { Claim } from "../protocol/claim.ts";
import { noteStarted } from "../protocol/claim-observed.ts";
import { noteJournal } from "../protocol/claim-record.ts";
import { type ClaimTable, newClaim } from "../protocol/claim-table.ts";
import type { SessionContext } from "../protocol/context.ts";
import { CLAIM_SECRET_TYPE, readJournal } from "../protocol/journal.ts";
import { ofClaim } from "../protocol/points.ts";
import type { Removals } from "../sleep/removal.ts";
import type { SessionLoop } from "./session-loop.ts";

/** Where recovery puts what it finds of an earlier process. */
export interface Recovered {
  readonly claims: ClaimTable;
  readonly removals: Removals;
  readonly serverTime: ServerTime;
}

/**
 * Adopts the claims of an earlier process before anything is claimed. The operator keeps no state, so it finds every
 * claim again by its Secret. It lists the Secrets at the start, and again once no late write can arrive any more. In
 * between, an unknown Secret is found when its slot proves taken.
 */
export class Recovery {
  readonly #context: SessionContext;
  readonly #into: Recovered;
  readonly #sessions: Pick<SessionLoop, "poke">;
  readonly #pool: Pick<Pool, "poke" | "leave">;

  constructor(options: {
    context: SessionContext;
    into: Recovered;
    sessions: Pick<SessionLoop, "poke">;
    pool: Pick<Pool, "poke" | "leave">;
  }) {
    this.#context = options.context;
    this.#into = options.into;
    this.#sessions = options.sessions;
    this.#pool = options.pool;
  }

  /** Puts every claim of an earlier process into the table. Retries until that succeeds; false if the signal aborts. */
  async run(signal: AbortSignal): Promise<boolean> {
    const { clock, logger, holds } = this.#context;
    while (!signal.aborted) {
      try {
        const found = await recoverClaims(this.#context, this.#into);
        if (found.length > 0) logger.info({ claims: found.length }, "found claims of an earlier process");
        holds.succeeded("recover");
        return true;
      } catch (error) {
        logger.warn({ error: errorText(error) }, "cannot list claims of an earlier process");
        const { untilMs } = holds.failed("recover", { error });
        await sleep(clock, untilMs - clock.monotonic(), signal);
      }
    }
    return false;
  }

  /** Adopts an unknown Secret that has taken a slot: its request took effect after this process had given it up. */
  takeUp(secret: Secret): void {
    const { claims, removals } = this.#into;
    const { pod: name } = podOfSlot(secret.metadata.name ?? "");
    const claim = recoverSecret(this.#context, this.#into, secret);
    if (claim) this.#sessions.poke(name);
    else if (removals.has(name)) this.#pool.poke();
    else if (!claims.has(name)) this.#pool.leave(name);
  }

  /** A poll offers the item of a claim again. It has also reported the Work API's time, unknown at the adoption. */
  reoffered(claim: Claim): void {
    if (claim.othersUntilMs === null) return;
    const leftMs = lateAckLeftMs(this.#context, claim.record.journal, this.#into.serverTime);
    claim.lateAckUntilMs = Math.min(claim.lateAckUntilMs, this.#context.clock.monotonic() + leftMs);
  }

  /** Resolves when all claims are known, including those written late, or when the signal aborts. */
  async findLate(signal: AbortSignal): Promise<void> {
    const taken = () => this.#taken();
    await findLateRecords(this.#context, taken, (secret) => this.takeUp(secret), signal);
  }

  /** Slots that are taken as far as this process knows. */
  #taken(): Set<string> {
    const { claims, removals } = this.#into;
    return new Set([...[...claims].map(({ slot }) => slot), ...removals.slots()]);
  }
}

async function recoverClaims(context: SessionContext, into: Recovered): Promise<Claim[]> {
  const secrets = await context.points.run("recover.list", {}, () => context.claimLists.list(context));
  return secrets.flatMap((secret) => recoverSecret(context, into, secret) ?? []);
}

/** Adopts one Secret, as a claim or as a removal to finish. Returns the claim, or null if it is not a new one. */
function recoverSecret(context: SessionContext, into: Recovered, secret: Secret): Claim | null {
  const { claims, removals, serverTime } = into;
  if (secret.type !== CLAIM_SECRET_TYPE || claims.has(podOfSlot(secret.metadata.name ?? "").pod)) return null;
  const journal = readJournal(secret);
  if (!journal) {
    context.logger.warn({ secret: secret.metadata.name }, "ignoring a claim Secret without content");
    return null;
  }
  if (journal.use === "removal") {
    removals.adopt(secret, journal);
    return null;
  }
  const { pod: name, turn } = podOfSlot(secret.metadata.name ?? "");
  const known = context.pods.get(name);
  const claim = newClaim({
    ...{ name, turn: turn === 0 && known && hasTurns(known) ? 1 : turn },
    journal,
    secretVersion: secret.metadata.resourceVersion ?? "",
    secretUid: secret.metadata.uid ?? "",
    lateAckUntilMs: context.clock.monotonic() + Math.max(0, lateAckLeftMs(context, journal, serverTime)),
    othersUntilMs: context.servingSinceMs,
    recordedMs: recordedMs(context, secret),
    templateHash: known ? templateHashOf(known) : "",
  });
  noteJournal(claim, journal, context.clock.monotonic());
  // The earlier process has already reported the start, so only record it. A waiting shell or program may not have
  // started.
  const isKnown = known?.metadata.uid === journal.podUid && journal.opened && parkingOf(known) === "Key";
  const state = isKnown ? readPodState(known) : null;
  if (state?.is === "running") noteStarted(claim, state.startedAtMs);
  if (state?.is === "ended") noteStarted(claim, state.end.startedAtMs);
  claims.add(claim);
  const { use, lease, opened, acknowledgedAt } = journal;
  context.points.note("recover.take-up", ofClaim(claim), { use, lease, opened, acknowledgedAt });
  return claim;
}

/** When the Secret was created (monotonic). Without a timestamp, it counts as older than anything. */
function recordedMs({ clock, kube }: SessionContext, { metadata }: Secret): number {
  const ageMs = kube.now() - Date.parse(metadata.creationTimestamp ?? "");
  return Number.isNaN(ageMs) ? Number.NEGATIVE_INFINITY : clock.monotonic() - ageMs;
}

/**
 * Lists the Secrets again once no request of the previous process can be in flight any more. Such a request may land
 * after this process has listed the Secrets, and its unknown journal would hold a Pod until the next start. Never
 * throws.
 * @param taken the slots that this process knows to be taken now
 */
export async function findLateRecords(
  context: SessionContext,
  taken: () => ReadonlySet<string>,
  adopt: (secret: Secret) => void,
  signal: AbortSignal,
): Promise<void> {
  const { claimLists, points, clock, timing, random, logger } = context;
  const backoff = new Backoff({ baseMs: timing.retryBaseMs, maxMs: timing.retryMaxMs }, random);
  let waitMs = timing.lateRecordsMs;
  while (await sleep(clock, waitMs, signal)) {
    // A claim that is settled during the list call is in the list, but is no longer known after it.
    const before = taken();
    try {
      const items = await points.run("recover.list-late", {}, () => claimLists.list(context, signal));
      const now = taken();
      const late = items.filter(({ metadata: { name: slot = "" } }) => !before.has(slot) && !now.has(slot));
      for (const secret of late) {
        logger.warn({ secret: secret.metadata.name }, "found a late claim Secret of an earlier process");
        adopt(secret);
      }
      return;
    } catch (error) {
      if (signal.aborted) return;
      logger.warn({ error: errorText(error) }, "cannot list late claim Secrets of an earlier process");
      waitMs = backoff.next();
    }
  }
}
