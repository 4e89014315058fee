import { LABEL_TEMPLATE_HASH } from "../api/names.ts";
import type { Releases } from "../claims/releases.ts";
import { Backoff } from "../core/backoff.ts";
import { sleep } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import type { ServerTime } from "../core/server-time.ts";
import type { Secret } from "../kube/resource.ts";
import { readPodState } from "../pods/pod-state.ts";
import type { Pool } from "../pool/pool.ts";
import type { Removals } from "../pool/removal.ts";
import type { Claim } from "../protocol/claim.ts";
import { noteStarted } from "../protocol/claim-observed.ts";
import { noteJournal } from "../protocol/claim-record.ts";
import { type ClaimTable, newClaim } from "../protocol/claim-table.ts";
import type { SessionContext } from "../protocol/context.ts";
import { CLAIM_SECRET_TYPE, type Journal, readJournal } from "../protocol/journal.ts";
import { ofClaim } from "../protocol/points.ts";
import type { ServerTimes } from "../queue/server-times.ts";
import type { SessionLoop } from "./session-loop.ts";

/** What an earlier process left is taken up into these. */
export interface Recovered {
  readonly claims: ClaimTable;
  readonly removals: Removals;
  readonly releases: Releases;
  readonly serverTimes: ServerTimes;
}

/**
 * What a start does before anything is claimed: the operator keeps no state of its own, so every claim of an earlier
 * process is found again from its Secret. They are listed at the start, and once more when the last late one can have come
 * (late-records.ts); others meet an unknown one when its slot turns out to be taken.
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

  /**
   * Puts every claim that there is into the table, and tries that until it was done: true. False: the signal aborted before.
   */
  async run(signal: AbortSignal): Promise<boolean> {
    const { clock, logger, failing } = this.#context;
    while (!signal.aborted) {
      try {
        const found = await recoverClaims(this.#context, this.#into);
        if (found.length > 0) logger.info({ claims: found.length }, "claims of an earlier process found");
        failing.succeeded("recover");
        return true;
      } catch (error) {
        logger.warn({ error: errorText(error) }, "claims of an earlier process could not be listed");
        const { untilMs } = failing.failed("recover", { error });
        await sleep(clock, untilMs - clock.monotonic(), signal);
      }
    }
    return false;
  }

  /** A slot that a Secret unknown here has taken: a claim whose journal came to stand after we gave up on it. */
  takeUp(secret: Secret): void {
    const { claims, removals } = this.#into;
    const name = secret.metadata.name ?? "";
    const claim = recoverSecret(this.#context, this.#into, secret);
    if (claim) this.#sessions.poke(name);
    else if (removals.has(name)) this.#pool.poke();
    else if (!claims.has(name)) this.#pool.leave(name);
  }

  /** Resolves when all claims are known, those that were written late too, or the signal aborts. */
  async findLate(signal: AbortSignal): Promise<void> {
    const taken = () => this.#taken();
    await findLateRecords(this.#context, taken, (secret) => this.takeUp(secret), signal);
  }

  /** Slots that this process knows to be taken. */
  #taken(): Set<string> {
    const { claims, removals, releases } = this.#into;
    return new Set([...[...claims].map(({ name }) => name), ...removals.names(), releases.name]);
  }
}

async function recoverClaims(context: SessionContext, into: Recovered): Promise<Claim[]> {
  const secrets = await context.points.run("recover.list", {}, () => context.claimLists.list(context));
  await into.releases.recover(secrets);
  return secrets.flatMap((secret) => recoverSecret(context, into, secret) ?? []);
}

/** Takes up one Secret: as a claim to go on with, or as a removal to finish. Null: no claim, or not one of ours. */
function recoverSecret(context: SessionContext, into: Recovered, secret: Secret): Claim | null {
  const { claims, removals, serverTimes } = into;
  if (secret.type !== CLAIM_SECRET_TYPE || claims.has(secret.metadata.name ?? "")) return null;
  const journal = readJournal(secret);
  if (!journal) {
    context.logger.warn({ secret: secret.metadata.name }, "a Secret of our type that says nothing: left alone");
    return null;
  }
  if (journal.use === "removal") {
    removals.adopt(secret, journal.podUid);
    return null;
  }
  const name = secret.metadata.name ?? "";
  const claim = newClaim({
    name,
    journal,
    secretVersion: secret.metadata.resourceVersion ?? "",
    secretUid: secret.metadata.uid ?? "",
    lateAckUntilMs: lateAckUntil(context, serverTimes.of(journal.api || context.work().baseUrl), journal),
    othersUntilMs: context.servingSinceMs,
    recordedMs: recordedMs(context, secret),
    templateHash: context.pods.get(name)?.metadata.labels?.[LABEL_TEMPLATE_HASH] ?? "",
  });
  noteJournal(claim, journal, context.clock.monotonic());
  // Its start was told by the process that saw it.
  const pod = context.pods.get(name);
  const state = pod?.metadata.uid === journal.podUid && journal.opened ? readPodState(pod) : null;
  if (state?.is === "running") noteStarted(claim, state.startedAtMs);
  if (state?.is === "ended") noteStarted(claim, state.end.startedAtMs);
  claims.add(claim);
  const { use, lease, opened, acknowledgedAt } = journal;
  context.points.note("recover.take-up", ofClaim(claim), { use, lease, opened, acknowledgedAt });
  return claim;
}

/** When the Secret was created (monotonic); one that does not say is older than anything. */
function recordedMs({ clock, kube }: SessionContext, { metadata }: Secret): number {
  const ageMs = kube.now() - Date.parse(metadata.creationTimestamp ?? "");
  return Number.isNaN(ageMs) ? Number.NEGATIVE_INFINITY : clock.monotonic() - ageMs;
}

/**
 * The journal's poll was before now, so waiting the whole window from now is always enough. So long it is until the Work API
 * has told its time, too: our own clock may be minutes ahead.
 */
function lateAckUntil(context: SessionContext, serverTime: ServerTime, journal: Journal): number {
  const { clock, timing } = context;
  const windowMs = timing.othersReclaimMs + timing.marginMs;
  const { earliestMs } = serverTime.at(clock.monotonic(), Number.POSITIVE_INFINITY);
  const overMs = journal.polledUntilMs + timing.othersReclaimMs - earliestMs;
  return clock.monotonic() + (Number.isNaN(overMs) ? windowMs : Math.min(windowMs, Math.max(0, overMs)));
}

/**
 * A request of the process before that was on its way when its Lease was lost can land after this one has listed its
 * Secrets: a journal that nobody knows of would hold its Pod until the next start. So they are listed once more when
 * nothing can be on its way any more. `taken` says which slots this process knows of now. Never throws.
 */
export async function findLateRecords(
  context: SessionContext,
  taken: () => ReadonlySet<string>,
  takeUp: (secret: Secret) => void,
  signal: AbortSignal,
): Promise<void> {
  const { claimLists, points, clock, timing, random, logger } = context;
  const backoff = new Backoff({ baseMs: timing.retryBaseMs, maxMs: timing.retryMaxMs }, random);
  let waitMs = timing.lateRecordsMs;
  while (await sleep(clock, waitMs, signal)) {
    // What is settled while the list is read is in it, and not known any more afterwards.
    const before = taken();
    try {
      const items = await points.run("recover.list-late", {}, () => claimLists.list(context, signal));
      const now = taken();
      const late = items.filter(({ metadata: { name: slot = "" } }) => !before.has(slot) && !now.has(slot));
      for (const secret of late) {
        logger.warn({ secret: secret.metadata.name }, "a Secret of an earlier process was written late");
        takeUp(secret);
      }
      return;
    } catch (error) {
      if (signal.aborted) return;
      logger.warn({ error: errorText(error) }, "late Secrets of an earlier process could not be listed");
      waitMs = backoff.next();
    }
  }
}
