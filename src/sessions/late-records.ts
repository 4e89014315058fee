import { Backoff } from "../core/backoff.ts";
import { sleep } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import type { Secret } from "../kube/resource.ts";
import type { SessionContext } from "../protocol/context.ts";

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
