import { errorText } from "../core/errors.ts";
import { isAlreadyExists, isMaybeApplied, isNotFound, LeadershipLostError } from "../kube/errors.ts";
import { SECRETS, type Secret } from "../kube/resource.ts";
import type { Claim } from "../protocol/claim.ts";
import { noteWritten } from "../protocol/claim-record.ts";
import type { ClaimContext } from "../protocol/context.ts";
import { isStepFailure } from "../protocol/failing-steps.ts";
import { readJournal, renderJournal, storedCredential } from "../protocol/journal.ts";
import { ofClaim } from "../protocol/points.ts";
import { type AckWindow, repeatsWithin } from "./ack-window.ts";

/**
 * The result of creating a claim's Secret. `unknown`: no answer, so the Secret may exist or be created later. `takenBy`:
 * the Secret of another claim, of a removal, or of another client holds the Pod's slot; null: it is gone again.
 */
export type Journaled = "done" | "failed" | "unknown" | { readonly takenBy: Secret | null };

/** Step 3 of the protocol: create the claim's Secret, which takes the Pod's slot and makes the claim durable. */
export class ClaimJournal {
  readonly #context: ClaimContext;

  constructor(context: ClaimContext) {
    this.#context = context;
  }

  /**
   * Creates the Secret. If no answer comes, it repeats the request inside the window, unless earlier claims failed here,
   * too. Never throws.
   */
  async write(claim: Claim, credential: string | null, window: AckWindow): Promise<Journaled> {
    const { kube, points, namespace, name, timing, metrics, labels, holds } = this.#context;
    const secret = renderJournal({ name: claim.slot, namespace, environment: name }, claim.record.journal, credential);
    const backoff = repeatsWithin(this.#context);
    const mayRepeat = holds.fromMs("journal") === null;
    let maybe = false;
    for (;;) {
      try {
        const create = () => kube.create(SECRETS, secret, {}, { timeoutMs: timing.requestBoundMs });
        const asks = { use: claim.record.journal.use, turn: claim.turn };
        this.#adopt(claim, await points.run("claim.journal", ofClaim(claim, asks), create));
        metrics.journals.inc({ ...labels, result: "created" });
        holds.succeeded("journal");
        return "done";
      } catch (error) {
        if (isAlreadyExists(error)) return this.#existingJournal(claim);
        maybe ||= isMaybeApplied(error);
        metrics.journals.inc({ ...labels, result: "failed" });
        if (!maybe) {
          if (isStepFailure(error)) holds.failed("journal", { error, name: claim.name });
          this.#context.logger.warn(
            { workId: claim.record.journal.workId, error: errorText(error) },
            "cannot write the Secret of a claim",
          );
          return "failed";
        }
        if (error instanceof LeadershipLostError) return "unknown";
        if (mayRepeat && (await window.waits(backoff.next()))) continue;
        holds.failed("journal", { error, name: claim.name });
        return "unknown";
      }
    }
  }

  /** The Secret exists: our own earlier request created it, if it names the same item; otherwise another client did. */
  async #existingJournal(claim: Claim): Promise<Journaled> {
    const { kube, points, namespace, timing, holds } = this.#context;
    const isOurs = (secret: Secret) => {
      const journal = readJournal(secret);
      return journal?.workId === claim.record.journal.workId && journal.podUid === claim.record.journal.podUid;
    };
    try {
      const ref = { namespace, name: claim.slot };
      const read = () => kube.get(SECRETS, ref, { timeoutMs: timing.requestBoundMs });
      const about = ofClaim(claim);
      const secret = await points.run("claim.read-journal", about, read, (found) => ({ ours: isOurs(found) }));
      if (!isOurs(secret)) return { takenBy: secret };
      this.#adopt(claim, secret);
      holds.succeeded("journal");
      return "done";
    } catch (error) {
      if (isNotFound(error)) return { takenBy: null };
      if (isStepFailure(error)) holds.failed("journal", { error, name: claim.name });
      return "unknown";
    }
  }

  #adopt(claim: Claim, secret: Secret): void {
    noteWritten(claim, secret, storedCredential(secret));
  }
}
