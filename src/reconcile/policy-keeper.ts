import type { Verdict } from "../api/conditions.ts";
import type { Environment } from "../api/environment.ts";
import { backoffCeiling } from "../core/backoff.ts";
import type { Clock } from "../core/clock.ts";
import { hashOf } from "../core/json.ts";
import type { Points } from "../core/points.ts";
import type { Timing } from "../core/timing.ts";
import type { KubeClient } from "../kube/client.ts";
import {
  apiErrorText,
  isForbidden,
  isInvalid,
  isNamespaceTerminating,
  isQuotaExceeded,
  LeadershipLostError,
} from "../kube/errors.ts";
import { Altered, isAsWanted, keepOwned, OtherOwner } from "../kube/owned-object.ts";
import { NETWORK_POLICIES, type NetworkPolicy } from "../kube/resource.ts";
import type { Logger } from "../observe/logger.ts";
import { type NetworkFacts, policyMetadata, policyName, renderNetworkPolicy } from "./network-policy.ts";
import type { ReconcilePoint } from "./reconciler-options.ts";

/** How many undone writes in a row are repaired at once. After these, another program is probably undoing them. */
const UNDONE_AT_ONCE = 3;

/** A foreground deletion deletes the Environment's dependents first; recreating the policy would block it. */
const FOREGROUND = "foregroundDeletion";

export interface PolicyKeeperOptions {
  readonly kube: KubeClient;
  readonly points: Points<ReconcilePoint>;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly timing: Pick<Timing, "policyCheckMs" | "templateRetryBaseMs" | "templateRetryMaxMs">;
  readonly facts: NetworkFacts;
}

/**
 * Keeps one Environment's NetworkPolicy as its spec wants it. It creates the policy before the first Pod, recreates it
 * when someone deletes it, corrects it when someone changes it, and deletes it when the spec wants none. The owner
 * reference deletes it with its Environment. The watch only says when to check: every decision uses a live read.
 */
export class PolicyKeeper {
  readonly #options: PolicyKeeperOptions;
  /** The hash of the wanted policy when it was last found or written; null: not known to be in place. */
  #keptHash: string | null = null;
  /** The watch showed a difference during the current check, whose read may be out of date. */
  #inDoubt = false;
  #checkedMs = Number.NEGATIVE_INFINITY;
  #failures = 0;
  #writtenMs = Number.NEGATIVE_INFINITY;
  /** The number of writes in a row that were undone soon after. */
  #undone = 0;
  #wanted: NetworkPolicy | null = null;
  /** The hash of `#wanted`, cached because a reconcile reads it several times and it rarely changes. */
  #wantedHash = hashOf(null);
  /** What `#wanted` was rendered from. */
  #renderedFrom: Environment | null = null;
  #verdict: Verdict = { reason: "PolicyUnchecked", message: "the operator has not checked the NetworkPolicy yet" };

  constructor(options: PolicyKeeperOptions) {
    this.#options = options;
  }

  get verdict(): Verdict {
    return this.#verdict;
  }

  /** Whether Pods may be created: the wanted policy is in place, or the spec wants none. */
  get isKept(): boolean {
    return this.#keptHash === this.#wantedHash;
  }

  /** Milliseconds until the next check. */
  nextLookMs(nowMs: number): number {
    return this.#checkedMs + this.#pauseMs - nowMs;
  }

  /**
   * Takes in what the watch shows; undefined: the policy was deleted. Returns whether the policy must be checked now.
   */
  seen(policy: NetworkPolicy | undefined): boolean {
    const isFine = policy ? this.#wanted !== null && isAsWanted(policy, this.#wanted) : this.#wanted === null;
    if (isFine) return false;
    this.#inDoubt = true;
    // Before the first check, there is no known policy to lose.
    if (this.#keptHash === null) return false;
    this.#checkAgain();
    return true;
  }

  /**
   * Checks the policy if it is time, and fixes it.
   * @throws LeadershipLostError only
   */
  async keep(environment: Environment): Promise<void> {
    const { kube, clock } = this.#options;
    const nowMs = clock.monotonic();
    if (this.#renders(environment)) this.#failures = 0;
    else if (nowMs < this.#checkedMs + this.#pauseMs) return;
    this.#checkedMs = nowMs;
    if (environment.metadata.finalizers?.includes(FOREGROUND)) return;
    this.#inDoubt = false;
    try {
      const calls = { kube, resource: NETWORK_POLICIES, run: this.#run };
      await keepOwned(calls, policyMetadata(environment), this.#wanted?.spec ?? null);
      this.#failures = 0;
      if (this.#inDoubt) return this.#checkAgain();
      this.#keptHash = this.#wantedHash;
      this.#verdict = this.#wanted ? inPlace(this.#wanted) : NOT_WANTED;
    } catch (error) {
      if (error instanceof LeadershipLostError) throw error;
      this.#failed(error, environment);
    }
  }

  /** Renders the policy that is wanted now. Returns whether it changed. */
  #renders(environment: Environment): boolean {
    if (this.#renderedFrom === environment) return false;
    this.#renderedFrom = environment;
    this.#wanted = renderNetworkPolicy(environment, this.#options.facts);
    const hash = hashOf(this.#wanted);
    const isOther = hash !== this.#wantedHash;
    this.#wantedHash = hash;
    return isOther;
  }

  /**
   * Checks again at once, or with backoff if every write is undone: two programs that correct each other would never
   * stop.
   */
  #checkAgain(): void {
    const { clock, timing } = this.#options;
    this.#keptHash = null;
    this.#undone = clock.monotonic() < this.#writtenMs + 2 * timing.templateRetryMaxMs ? this.#undone + 1 : 0;
    this.#failures = Math.max(0, this.#undone - UNDONE_AT_ONCE);
    if (this.#failures === 0) this.#checkedMs = Number.NEGATIVE_INFINITY;
    else this.#verdict = UNDONE;
  }

  get #pauseMs(): number {
    const { policyCheckMs, templateRetryBaseMs: baseMs, templateRetryMaxMs: maxMs } = this.#options.timing;
    if (!this.isKept || this.#failures > 0) return backoffCeiling({ baseMs, maxMs }, Math.max(0, this.#failures - 1));
    return this.#wanted ? policyCheckMs : Number.POSITIVE_INFINITY;
  }

  readonly #run = async <R>(act: "read" | "create" | "patch" | "delete", call: () => Promise<R>): Promise<R> => {
    const { points, clock } = this.#options;
    const answer = await points.run(`policy.${act}`, {}, call);
    if (act === "create" || act === "patch") this.#writtenMs = clock.monotonic();
    return answer;
  };

  /** A failed check says nothing about a policy that was in place. */
  #failed(error: unknown, { metadata, spec }: Environment): void {
    const { logger } = this.#options;
    const words = apiErrorText(error, policyName(metadata.name));
    // The stored policy is now known to differ, even if it was right before.
    if (error instanceof Altered) this.#keptHash = null;
    this.#failures += 1;
    logger.warn({ error: words }, "cannot write the NetworkPolicy");
    if (this.isKept) return;
    const fix = fixFor(error, words, metadata.namespace);
    const what = spec.network.policy === "None" ? "taken away" : "made";
    this.#verdict = {
      reason: "PolicyFailing",
      message: `the NetworkPolicy could not be ${what}, so no Pod is made and nothing is claimed: ${words}; ${fix}`,
    };
  }
}

const NOT_WANTED: Verdict = {
  reason: "PolicyNotWanted",
  message: "network.policy is None, so only the cluster's own policies apply",
};

const UNDONE: Verdict = {
  reason: "PolicyFailing",
  message:
    "another client keeps changing or deleting the NetworkPolicy, so Berth creates no Pod and claims nothing; find the client (a second operator, a GitOps tool), or set network.policy: None",
};

function inPlace({ metadata }: NetworkPolicy): Verdict {
  return {
    reason: "PolicyInPlace",
    message: `NetworkPolicy ${metadata.name} exists; the cluster's network plug-in must enforce it`,
  };
}

function fixFor(error: unknown, words: string, namespace: string): string {
  if (error instanceof OtherOwner) return "Berth checks again";
  if (error instanceof Altered) return "exclude it from the admission webhook or policy, or set network.policy: None";
  if (isNamespaceTerminating(error)) return "nothing can be created in a namespace that is being deleted";
  if (isQuotaExceeded(error)) return "raise the quota, or set network.policy: None";
  // Admission uses the same status as RBAC, but another message.
  if (isForbidden(error) && words.includes(" cannot ")) {
    return `give the operator permission to get, create, patch and delete NetworkPolicies in namespace ${namespace}, or set network.policy: None`;
  }
  if (isForbidden(error))
    return "ask the cluster's administrator to change the policy that refuses it, or set network.policy: None";
  if (isInvalid(error)) return "correct spec.network.egress";
  return "Berth tries again";
}
