import { LABEL_TEMPLATE_HASH } from "../api/names.ts";
import type { ServerTime } from "../core/server-time.ts";
import type { Secret } from "../kube/resource.ts";
import type { Claim } from "./claim.ts";
import { type ClaimTable, newClaim, noteJournal } from "./claim-table.ts";
import type { SessionContext } from "./context.ts";
import { CLAIM_SECRET_TYPE, type Journal, readJournal } from "./journal.ts";
import { readPodState } from "./pod-state.ts";
import { ofClaim } from "./points.ts";
import type { Removals } from "./removal.ts";
import type { ServerTimes } from "./server-times.ts";

/**
 * What a start does before anything is claimed: the operator keeps no state of its own, so every claim of an earlier
 * process is found again from its Secret. They are listed now, and once more when the last late one can have come
 * (late-records.ts).
 */
export async function recoverClaims(context: SessionContext, into: Recovered): Promise<Claim[]> {
  const secrets = await context.points.run("recover.list", {}, () => context.claimLists.list(context));
  return secrets.flatMap((secret) => recoverSecret(context, into, secret) ?? []);
}

/** Where what is found goes. */
export interface Recovered {
  readonly claims: ClaimTable;
  readonly removals: Removals;
  readonly serverTimes: ServerTimes;
}

/** Takes up one Secret: as a claim to go on with, or as a removal to finish. Null: no claim, or not one of ours. */
export function recoverSecret(context: SessionContext, into: Recovered, secret: Secret): Claim | null {
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
    templateHash: context.pods.get(name)?.metadata.labels?.[LABEL_TEMPLATE_HASH] ?? "",
  });
  noteJournal(claim, journal, context.clock.monotonic());
  // Its start was told by the process that saw it.
  const pod = context.pods.get(name);
  const state = pod?.metadata.uid === journal.podUid && journal.opened ? readPodState(pod) : null;
  if (state?.is === "running") claim.startedAtMs = state.startedAtMs;
  if (state?.is === "ended") claim.startedAtMs = state.end.startedAtMs;
  claims.add(claim);
  const { use, lease, opened, acknowledgedAt } = journal;
  context.points.note("recover.take-up", ofClaim(claim), { use, lease, opened, acknowledgedAt });
  return claim;
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
