/** The contract between the reconciler and an Environment's loops: it sets their permissions and reads their report. */
import type { Verdict } from "./conditions.ts";
import type { QueueStatus, SessionsStatus, WorkersStatus, WorkspacesStatus } from "./environment.ts";

/** What the reconciler permits the loops of an Environment to do. */
export interface Permissions {
  /** May send requests: the origin is allowed and there is a key. */
  readonly mayAsk: boolean;
  /** May create Pods: the template was accepted. */
  readonly mayPrepare: boolean;
  /** May claim new items: `mayPrepare`, and neither paused nor being deleted. */
  readonly mayClaim: boolean;
}

/** What the loops report for the Environment's status. */
export interface RuntimeReport {
  readonly queue: QueueStatus | null;
  readonly sessions: SessionsStatus | null;
  readonly workers?: WorkersStatus;
  /** Volumes of sessions, if the Environment has any. */
  readonly workspaces?: WorkspacesStatus;
  readonly verdicts: readonly Verdict[];
  /**
   * That no Pod of the current template has been ready yet, although `warm` wants one. `serves`: sessions of an earlier
   * template run. Null or undefined: no such Pod is awaited.
   */
  readonly firstPod?: (Verdict & { readonly serves: boolean }) | null | undefined;
  /** Why the loops can't serve, with the fix, if no condition covers it; null if nothing blocks them. */
  readonly blocked: Verdict | null;
}
