import type { ConditionReason } from "../api/condition-reasons.ts";
import type { ConditionType } from "../api/condition-types.ts";
import { findCondition, type Verdict } from "../api/conditions.ts";
import type { EnvironmentStatus } from "../api/environment.ts";

/** An Environment as cached. */
interface Member {
  readonly metadata: {
    readonly namespace?: string;
    readonly name?: string;
    readonly uid?: string;
    readonly creationTimestamp?: string;
    readonly deletionTimestamp?: string;
  };
  readonly spec?: unknown;
  readonly status?: unknown;
}

/** The Environments of one queue, as far as the operator can see them. */
export interface QueueMembers<T> {
  readonly environments: readonly T[];
  /** Namespaces whose Environments this process could not list yet, so there may be more of the queue. */
  readonly unlisted: readonly string[];
}

/** What an Environment may do beside others with the same queue. */
export interface Precedence {
  /** Whether it is the Environment that serves the queue. The others only get their key checked. */
  readonly isServed: boolean;
  /** It serves the queue, and no other one still has claims. */
  readonly mayClaim: boolean;
  /** Why it may not claim; null: it may. */
  readonly verdict: Verdict | null;
}

const ALONE: Precedence = { isServed: true, mayClaim: true, verdict: null };

/**
 * Decides which Environment of a queue is served: of those whose key the Work API accepts, the oldest. So an
 * Environment that names another one's environmentId without a valid key blocks nothing.
 * @param uid the Environment that asks
 * @param queue its queue, itself included, as cached
 * @param mayHaveSessions whether an Environment has claims, as its finalizer says, or its loops
 * @param readyBefore the reason of `Ready` that this process found first. One that waited for another Environment goes
 * on waiting while that one may be in a namespace that is not listed yet.
 */
export function precedenceOf<T extends Member>(
  uid: string,
  { environments, unlisted }: QueueMembers<T>,
  mayHaveSessions: (environment: T) => boolean,
  readyBefore?: string,
): Precedence {
  if (unlisted.length > 0 && (readyBefore === "EnvironmentIdShared" || readyBefore === "AwaitingSessions")) {
    const message = `another Environment had the same environmentId when it was last seen, and Berth cannot list the Environments of ${unlisted.join(", ")} now; let Berth list them, or remove the namespace from the operator's namespaces`;
    return { isServed: false, mayClaim: false, verdict: { reason: readyBefore, message } };
  }
  const others = environments.filter(({ metadata }) => metadata.uid !== uid);
  if (others.length === 0) return ALONE;
  const served = environments
    .filter((each) => each.metadata.deletionTimestamp === undefined && isAccepted(each))
    .toSorted(byAge)[0];
  if (!served) {
    const message = "the Work API has accepted the key of no Environment with this environmentId yet";
    return { isServed: false, mayClaim: false, verdict: { reason: "Pending", message } };
  }
  if (served.metadata.uid !== uid) {
    return {
      isServed: false,
      mayClaim: false,
      verdict: { reason: "EnvironmentIdShared", message: sharedText(served) },
    };
  }
  // Anyone who can write Environments can write finalizers and claims, but only an accepted key gets work items.
  const before = others.find((each) => wasAccepted(each) && mayHaveSessions(each));
  if (!before) return ALONE;
  const message = `Environment ${keyOf(before)} has the same environmentId and still has sessions, so Berth claims nothing new before they have ended`;
  return { isServed: true, mayClaim: false, verdict: { reason: "AwaitingSessions", message } };
}

function sharedText(served: Member): string {
  const isPaused = (served.spec as { paused?: unknown } | undefined)?.paused === true;
  const paused = isPaused ? " and paused, so nothing new is served" : "";
  return `spec.environmentId: already served by Environment ${keyOf(served)}, which is older${paused}; delete one of the two, or create this one again with its own environmentId`;
}

/**
 * The reasons of `Authenticated` with which an Environment may be served. After a restart or a change of the key, and
 * while the Secret can't be read, nothing new is known of the key: an earlier acceptance counts then.
 */
const NOT_REJECTED: ReadonlySet<string | undefined> = new Set<ConditionReason>([
  "KeyAccepted",
  "KeyUnchecked",
  "KeySecretUnreadable",
]);

function isAccepted(environment: Member): boolean {
  const reasonOf = (type: ConditionType) => findCondition(statusOf(environment)?.conditions, type)?.reason;
  const key = reasonOf("Authenticated");
  // A new key may be of another workspace, where the environment doesn't exist.
  if (key !== "KeyAccepted" && reasonOf("QueueReachable") === "EnvironmentNotFound") return false;
  // The conditions of an invalid Environment are those from before.
  return NOT_REJECTED.has(key) && wasAccepted(environment) && reasonOf("Ready") !== "InvalidSpec";
}

/** The Work API has given the queue's statistics for a key of the Environment; its status keeps them. */
function wasAccepted(environment: Member): boolean {
  return statusOf(environment)?.queue !== undefined;
}

function statusOf(environment: Member): Partial<EnvironmentStatus> | undefined {
  return environment.status as Partial<EnvironmentStatus> | undefined;
}

function keyOf({ metadata: { namespace, name } }: Member): string {
  return `${namespace}/${name}`;
}

function byAge(a: Member, b: Member): number {
  return rankOf(a) < rankOf(b) ? -1 : 1;
}

function rankOf({ metadata: { creationTimestamp = "", uid = "" } }: Member): string {
  return `${creationTimestamp} ${uid}`;
}
