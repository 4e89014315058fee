import type { Environment } from "../api/environment.ts";
import { GROUP } from "../api/names.ts";
import { deleteClaimSecrets } from "../claims/claim-lists.ts";
import { type Clock, realClock, SECOND_MS, sleep } from "../core/clock.ts";
import { errorText, OperatorError } from "../core/errors.ts";
import { NO_POINTS } from "../core/points.ts";
import type { KubeClient } from "../kube/client.ts";
import { hasStatus, isNotFound } from "../kube/errors.ts";
import { ENDED_PHASES } from "../kube/objects.ts";
import { DEPLOYMENTS, type Deployment, PODS } from "../kube/resource.ts";
import { createLogger, type Logger, redact } from "../observe/logger.ts";
import { ENVIRONMENTS, removeFinalizer } from "../reconcile/finalizer.ts";
import { type CommandSeams, connect } from "./invocation.ts";
import type { UninstallSettings } from "./uninstall-settings.ts";

/** One list a second for a minute or two hardly loads the API server, and is fast enough for a person who waits. */
const POLL_MS = SECOND_MS;
/**
 * The operator's Pods end shortly after their grace period. A Pod that takes longer has probably lost its node. The
 * deadline of the chart's Job leaves as much again for its start.
 */
const STOP_MARGIN_MS = 5_000;
/** For Pods without an explicit grace period, in seconds. */
const DEFAULT_GRACE_SECONDS = 30;
const HTTP_NOT_FOUND = 404;

/** The cluster is not ready for the removal of its operator; the message says why. */
export class UninstallFailedError extends OperatorError {
  constructor(message: string) {
    super("UninstallFailed", message);
  }
}

/** What `berth uninstall` did, even if it failed later. */
export interface UninstallReport {
  /** Whether it completed. */
  readonly ok: boolean;
  /** Whether the operator was stopped; false if no Deployment was named, it did not exist, or its Pods did not end. */
  readonly stopped: boolean;
  /** The deleted Environments, as NAMESPACE/NAME. */
  readonly deleted: readonly string[];
  /** Those that did not drain in time, or still existed at the last check. */
  readonly undrained: readonly string[];
  /** The Environments whose finalizer was removed. */
  readonly released: readonly string[];
  /** The failure and how to fix it; null if there was none. */
  readonly problem: string | null;
}

/**
 * Prepares a cluster for the removal of its operator, so that nothing is left that only an operator could end. First
 * deletes the Environments, if requested, and lets them drain. Then stops the operator, because it would add its
 * finalizer again, and removes the finalizer of all Environments. Running sessions are not touched: their claims stay
 * in their Secrets, and a newly installed operator adopts them. After a failure, the report names it. Completed steps
 * are not undone, and everything can be repeated.
 * @throws ConfigError if the kubeconfig is invalid
 */
export async function uninstall(settings: UninstallSettings, seams: CommandSeams = {}): Promise<UninstallReport> {
  const { clock = realClock, logger = createLogger("info") } = seams;
  await using cluster = connect(settings, "uninstall", clock);
  const removal = new Removal(cluster.kube, settings, clock, logger);
  let problem: string | null = null;
  try {
    if (settings.deleteEnvironments) await removal.deleteEnvironments();
    await removal.stopOperator();
    await removal.removeFinalizers();
  } catch (error) {
    problem = redact(errorText(error));
  }
  return { ok: problem === null, ...removal.done, problem };
}

class Removal {
  /** Updated at each step, so that the report keeps earlier results if a later step fails. */
  readonly done = { stopped: false, deleted: [] as string[], undrained: [] as string[], released: [] as string[] };
  readonly #kube: KubeClient;
  readonly #settings: UninstallSettings;
  readonly #clock: Clock;
  readonly #logger: Logger;

  constructor(kube: KubeClient, settings: UninstallSettings, clock: Clock, logger: Logger) {
    this.#kube = kube;
    this.#settings = settings;
    this.#clock = clock;
    this.#logger = logger;
  }

  /** Deletes every Environment and waits until they are gone or the drain time has passed. */
  async deleteEnvironments(): Promise<void> {
    const { drainSeconds } = this.#settings;
    const found = await this.#environments();
    this.#logger.info({ environments: found.length, drainSeconds }, "deleting the Environments");
    await this.#each(found, async (environment) => {
      await this.#delete(environment.metadata);
      this.done.deleted.push(nameOf(environment));
    });
    const left = await this.#pollUntilGone(drainSeconds * SECOND_MS, async () => {
      this.done.undrained = (await this.#environments()).map(nameOf);
      return this.done.undrained.length === 0 ? null : this.done.undrained;
    });
    if (left)
      this.#logger.warn({ environments: left }, "these Environments did not drain in time; their sessions continue");
  }

  /**
   * Scales the operator's Deployment to zero and waits until its Pods are gone.
   * @throws UninstallFailedError if they stay, because the objects of a running operator must not be released
   */
  async stopOperator(): Promise<void> {
    const { deployment: ref } = this.#settings;
    if (!ref) return;
    let spec: Deployment["spec"];
    try {
      spec = (await this.#kube.get(DEPLOYMENTS, ref)).spec;
      await this.#kube.patch(DEPLOYMENTS, ref, { spec: { replicas: 0 } }, { type: "merge", subresource: "scale" });
    } catch (error) {
      if (!isNotFound(error)) throw error;
      this.#logger.info(ref, "the Deployment does not exist");
      return;
    }
    const graceSeconds = spec.template.spec?.terminationGracePeriodSeconds ?? DEFAULT_GRACE_SECONDS;
    const labelSelector = Object.entries(spec.selector.matchLabels ?? {})
      .map(([label, value]) => `${label}=${value}`)
      .join(",");
    this.#logger.info(ref, "stopping the operator");
    const left = await this.#pollUntilGone(graceSeconds * SECOND_MS + STOP_MARGIN_MS, async () => {
      const { items } = await this.#kube.list(PODS, { namespace: ref.namespace, labelSelector });
      // No Deployment counts Pods that ended, such as evicted ones.
      const alive = items.filter(({ status }) => !ENDED_PHASES.has(status?.phase ?? ""));
      return alive.length === 0 ? null : alive.map(nameOf);
    });
    if (left) {
      throw new UninstallFailedError(
        `the operator still runs in ${left.join(", ")}; delete these Pods, or their node if it is lost, and try again`,
      );
    }
    this.done.stopped = true;
  }

  /**
   * Removes the finalizers. For Environments that are being deleted, it first removes the claims, which nothing else
   * would do. The order matters: without its finalizer the Environment is deleted, and then nothing links the claims to
   * it.
   */
  async removeFinalizers(): Promise<void> {
    const { released } = this.done;
    await this.#each(await this.#environments(), async (environment) => {
      const { namespace = "", name = "", uid = "", deletionTimestamp } = environment.metadata;
      if (deletionTimestamp && this.#settings.deleteEnvironments) {
        await deleteClaimSecrets(this.#kube, { namespace, name }, NO_POINTS);
      }
      const context = { kube: this.#kube, points: NO_POINTS, namespace, name, uid };
      if (await removeFinalizer(context)) released.push(nameOf(environment));
    });
    this.#logger.info({ environments: released.length }, "removed the finalizers");
  }

  /**
   * Goes on after a failure: one namespace's policy must not keep the Environments of others.
   * @throws UninstallFailedError with all failures
   */
  async #each(all: readonly Environment[], act: (environment: Environment) => Promise<void>): Promise<void> {
    const failures: string[] = [];
    for (const environment of all) {
      await act(environment).catch((error: unknown) => failures.push(`${nameOf(environment)}: ${errorText(error)}`));
    }
    if (failures.length > 0) throw new UninstallFailedError(failures.join("\n"));
  }

  async #environments(): Promise<Environment[]> {
    const { namespaces } = this.#settings;
    const found: Environment[] = [];
    for (const namespace of namespaces.length === 0 ? [undefined] : namespaces) {
      try {
        const { items } = await this.#kube.listAll(ENVIRONMENTS, { namespace });
        found.push(...items);
      } catch (error) {
        if (!hasStatus(error, HTTP_NOT_FOUND) || (await this.#isServed())) throw error;
        this.#logger.info("the CRD is deleted, and all Environments with it");
        return [];
      }
    }
    return found;
  }

  /** Whether the API server knows the group, because a 404 for a list may also come from a proxy. */
  async #isServed(): Promise<boolean> {
    const { groups } = (await this.#kube.raw("GET", "/apis")) as { groups: readonly { name: string }[] };
    return groups.some(({ name }) => name === GROUP);
  }

  async #delete({ namespace, name = "" }: Environment["metadata"]): Promise<void> {
    try {
      await this.#kube.delete(ENVIRONMENTS, { namespace, name }, { propagationPolicy: "Background" });
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
  }

  /** Polls until nothing is left, or until the timeout. Returns what is left, or null. */
  async #pollUntilGone<T>(timeoutMs: number, left: () => Promise<T | null>): Promise<T | null> {
    const deadlineMs = this.#clock.monotonic() + timeoutMs;
    for (;;) {
      const rest = await left();
      if (rest === null || this.#clock.monotonic() >= deadlineMs) return rest;
      await sleep(this.#clock, POLL_MS);
    }
  }
}

function nameOf({ metadata }: { metadata: { namespace?: string | undefined; name?: string | undefined } }): string {
  return `${metadata.namespace}/${metadata.name}`;
}
