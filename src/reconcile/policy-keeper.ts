import type { Verdict } from "../api/conditions.ts";
import type { Environment } from "../api/environment.ts";
import { GROUP, KIND, LABEL_ENVIRONMENT, LABEL_MANAGED_BY } from "../api/names.ts";
import { backoffCeiling } from "../core/backoff.ts";
import type { Clock } from "../core/clock.ts";
import { hashOf, isRecord } from "../core/json.ts";
import type { Points } from "../core/points.ts";
import type { Timing } from "../core/timing.ts";
import type { KubeClient } from "../kube/client.ts";
import {
  apiErrorText,
  isAlreadyExists,
  isConflict,
  isForbidden,
  isInvalid,
  isNamespaceTerminating,
  isNotFound,
  isQuotaExceeded,
  LeadershipLostError,
} from "../kube/errors.ts";
import { NETWORK_POLICIES, type NetworkPolicy, type OwnerReference } from "../kube/resource.ts";
import type { Logger } from "../observe/logger.ts";
import { isAsWanted, type NetworkFacts, policyName, renderNetworkPolicy } from "./network-policy.ts";
import type { ReconcilePoint } from "./reconciler-options.ts";

/** Attempts to write the policy: another client may create, delete or replace it in between. */
const TRIES = 3;

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
  /** The spec wants no policy, but the last check found one of ours. */
  #isObsolete = false;
  /** The hash of `#wanted`, cached because a reconcile reads it several times and it rarely changes. */
  #wantedHash = hashOf(null);
  /** The inputs that `#wanted` was rendered from. */
  #renderedFrom: { readonly environment: Environment; readonly told: string } | null = null;
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
   * @param told Work API addresses that unfinished Pods use
   * @throws LeadershipLostError only
   */
  async keep(environment: Environment, told?: ReadonlySet<string>): Promise<void> {
    const { clock } = this.#options;
    const nowMs = clock.monotonic();
    if (this.#renders(environment, told)) this.#failures = 0;
    else if (nowMs < this.#checkedMs + this.#pauseMs) return;
    this.#checkedMs = nowMs;
    if (environment.metadata.finalizers?.includes(FOREGROUND)) return;
    this.#inDoubt = false;
    try {
      await this.#reconcile(environment);
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
  #renders(environment: Environment, told: ReadonlySet<string> = new Set()): boolean {
    const from = { environment, told: JSON.stringify([...told].sort()) };
    const before = this.#renderedFrom;
    if (before?.environment === environment && before.told === from.told) return false;
    this.#renderedFrom = from;
    this.#wanted = renderNetworkPolicy(environment, this.#options.facts, told);
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

  async #reconcile(environment: Environment): Promise<void> {
    for (let tries = 1; ; tries += 1) {
      try {
        return await this.#step(environment);
      } catch (error) {
        const isRace = isAlreadyExists(error) || isConflict(error) || isNotFound(error);
        if (!isRace || tries === TRIES) throw error;
      }
    }
  }

  async #step({ metadata }: Environment): Promise<void> {
    const { kube, points } = this.#options;
    const ref = { namespace: metadata.namespace, name: policyName(metadata.name) };
    const found = await this.#read(ref);
    const whose = found ? ownerOf(found, metadata) : "nobody";
    if (found && whose === "predecessor") {
      // The garbage collector would delete it too, but at an unknown time.
      await this.#delete(ref, found);
      return this.#create();
    }
    this.#isObsolete = !this.#wanted && whose === "ours";
    if (!this.#wanted) return this.#isObsolete && found ? this.#delete(ref, found) : undefined;
    if (whose === "other") throw new OtherOwner(`NetworkPolicy ${ref.name} has another owner; delete or rename it`);
    if (!found) return this.#create();
    if (isAsWanted(found, this.#wanted)) return;
    const { labels, ownerReferences } = this.#wanted.metadata;
    const spec = replacing(found.spec, this.#wanted.spec);
    // With the uid, patching another object of the same name is a conflict.
    const patch = { metadata: { uid: found.metadata.uid, labels, ownerReferences }, spec };
    const write = () => kube.patch(NETWORK_POLICIES, ref, patch, { type: "merge" });
    this.#checkWritten(await points.run("policy.patch", {}, write));
  }

  /**
   * Checks the answer to the write: admission may have changed the policy, and if it does so every time, the watch
   * shows no change.
   */
  #checkWritten(policy: NetworkPolicy): void {
    this.#writtenMs = this.#options.clock.monotonic();
    if (this.#wanted && !isAsWanted(policy, this.#wanted)) {
      throw new Altered("the cluster's admission changed it");
    }
  }

  async #read(ref: { namespace: string; name: string }): Promise<NetworkPolicy | undefined> {
    try {
      const { kube, points } = this.#options;
      return await points.run("policy.read", {}, () => kube.get(NETWORK_POLICIES, ref));
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  }

  async #create(): Promise<void> {
    const { kube, points } = this.#options;
    const wanted = this.#wanted;
    if (!wanted) return;
    this.#checkWritten(await points.run("policy.create", {}, () => kube.create(NETWORK_POLICIES, wanted)));
  }

  async #delete(ref: { namespace: string; name: string }, { metadata }: NetworkPolicy): Promise<void> {
    const { kube, points } = this.#options;
    const { uid } = metadata;
    try {
      await points.run("policy.delete", {}, () => kube.delete(NETWORK_POLICIES, ref, uid === undefined ? {} : { uid }));
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
  }

  /** A failed check says nothing about a policy that was in place. */
  #failed(error: unknown, { metadata, spec }: Environment): void {
    const { logger } = this.#options;
    const words = apiErrorText(error, policyName(metadata.name));
    // The stored policy is now known to differ, even if it was right before.
    if (error instanceof Altered) this.#keptHash = null;
    if (this.#wanted === null && isForbidden(error) && !this.#isObsolete) {
      // If the spec wants no policy and none of ours is known, a missing permission to read policies does no harm.
      this.#keptHash = this.#wantedHash;
      this.#verdict = NOT_WANTED;
      return;
    }
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

/** A policy with the wanted name has another owner. */
class OtherOwner extends Error {}

/** The policy was not stored as it was sent. */
class Altered extends Error {}

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

/**
 * The owner: this Environment, an earlier one of the same name, or another object. A policy without an owner, as
 * `kubectl delete --cascade=orphan` leaves it, is adopted if it has our labels.
 */
function ownerOf(
  { metadata }: NetworkPolicy,
  of: { readonly name: string; readonly uid: string },
): "ours" | "predecessor" | "other" {
  const owner = metadata.ownerReferences?.find(({ controller }) => controller);
  if (owner?.uid === of.uid) return "ours";
  if (owner) return isEnvironment(owner) && owner.name === of.name ? "predecessor" : "other";
  const { [LABEL_MANAGED_BY]: manager, [LABEL_ENVIRONMENT]: name } = metadata.labels ?? {};
  return manager === "berth" && name === of.name ? "ours" : "other";
}

/** Other API groups may have a kind with this name. */
function isEnvironment({ apiVersion, kind }: OwnerReference): boolean {
  return kind === KIND && apiVersion.startsWith(`${GROUP}/`);
}

/**
 * A merge patch that turns `found` into `wanted`. It sets surplus fields to null, because a plain merge would keep
 * them.
 */
function replacing(found: unknown, wanted: unknown): unknown {
  if (!isRecord(found) || !isRecord(wanted)) return wanted;
  const gone = Object.keys(found).filter((name) => !Object.hasOwn(wanted, name));
  const kept = Object.entries(wanted).map(([name, value]) => [name, replacing(found[name], value)]);
  return { ...Object.fromEntries(gone.map((name) => [name, null])), ...Object.fromEntries(kept) };
}
