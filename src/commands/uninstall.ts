import type { Environment } from "../api/environment.ts";
import { FINALIZER, GROUP } from "../api/names.ts";
import { deleteClaimSecrets } from "../claims/claim-lists.ts";
import { type Clock, realClock, SECOND_MS, sleep } from "../core/clock.ts";
import { errorText, OperatorError } from "../core/errors.ts";
import { NO_POINTS } from "../core/points.ts";
import { KubeClient } from "../kube/client.ts";
import { loadKubeConfig } from "../kube/config.ts";
import { hasStatus, isConflict, isNotFound } from "../kube/errors.ts";
import { DEPLOYMENTS, type Deployment, PODS } from "../kube/resource.ts";
import { createLogger, type Logger, redact } from "../observe/logger.ts";
import { ENVIRONMENTS } from "../reconcile/finalizer.ts";
import { berthVersion } from "../settings/version.ts";
import type { UninstallSettings } from "./uninstall-settings.ts";

/** One client for a minute or two: a list a second is nothing to an API server, and quick enough for whoever waits. */
const POLL_MS = SECOND_MS;
/** The operator's Pods end within their grace and a moment more; what takes longer than that has lost its node. */
const STOP_MARGIN_MS = 45_000;
/** Of Pods that say nothing else, in seconds. */
const DEFAULT_GRACE_SECONDS = 30;
/** So often a conflicting change of the finalizers is tried again with the object as it is then. */
const ATTEMPTS = 5;
const HTTP_NOT_FOUND = 404;

/** The cluster is not ready for the end of its operator, and why. */
export class UninstallFailedError extends OperatorError {
  constructor(message: string) {
    super("UninstallFailed", message);
  }
}

/** What `berth uninstall` did, also where it failed then. */
export interface UninstallReport {
  /** Whether it got to its end. */
  readonly ok: boolean;
  /** Whether the operator was stopped; false: no Deployment was named, it was not there, or its Pods did not end. */
  readonly stopped: boolean;
  /** Environments, as NAMESPACE/NAME, that were told to go. */
  readonly deleted: readonly string[];
  /** Those of them that did not drain in time, or that were still there when it last looked. */
  readonly undrained: readonly string[];
  /** Those that the finalizer was taken off. */
  readonly released: readonly string[];
  /** What it failed with, and what to do; null: nothing. */
  readonly problem: string | null;
}

/** What tests put in the place of the real thing. */
export interface UninstallSeams {
  readonly clock?: Clock;
  readonly logger?: Logger;
}

/**
 * Gets a cluster ready for the end of its operator: nothing may be left that only an operator could end. Environments
 * are deleted first where that is asked for, and get time to drain. Then the operator is stopped, since it would put
 * its finalizer back, and the finalizer is taken off all Environments. Running sessions are left alone: their claims
 * stay in their Secrets, and an operator that is installed again goes on with them. Where it fails, the report says with
 * what; what is done by then stays done, and all of it can be repeated.
 * @throws ConfigError where the kubeconfig is wrong
 */
export async function uninstall(settings: UninstallSettings, seams: UninstallSeams = {}): Promise<UninstallReport> {
  const { clock = realClock, logger = createLogger("info") } = seams;
  const access = loadKubeConfig(settings.kubeconfig, settings.kubeEnvironment);
  const kube = new KubeClient({ access, clock, proxy: settings.proxy, userAgent: `berth-uninstall/${berthVersion()}` });
  const removal = new Removal(kube, settings, clock, logger);
  let problem: string | null = null;
  try {
    if (settings.deleteEnvironments) await removal.deleteEnvironments();
    await removal.stopOperator();
    await removal.letGo();
  } catch (error) {
    problem = redact(errorText(error));
  } finally {
    await kube.close();
  }
  return { ok: problem === null, ...removal.done, problem };
}

class Removal {
  /** Written at each step, so that a later one that fails takes nothing from the report. */
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

  /** Deletes every Environment and waits until they are gone, or for as long as they may drain. */
  async deleteEnvironments(): Promise<void> {
    const { drainSeconds } = this.#settings;
    const found = await this.#environments();
    this.#logger.info({ environments: found.length, drainSeconds }, "deletes the Environments");
    for (const environment of found) {
      await this.#delete(environment.metadata);
      this.done.deleted.push(nameOf(environment));
    }
    const left = await this.#until(drainSeconds * SECOND_MS, async () => {
      this.done.undrained = (await this.#environments()).map(nameOf);
      return this.done.undrained.length === 0 ? null : this.done.undrained;
    });
    if (left) this.#logger.warn({ environments: left }, "these did not drain in time: their sessions are left alone");
  }

  /**
   * Scales the operator's Deployment to nothing and waits until its Pods are gone.
   * @throws UninstallFailedError when they stay: what a running operator holds must not be let go
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
      this.#logger.info(ref, "the Deployment is not there");
      return;
    }
    const graceSeconds = spec.template.spec?.terminationGracePeriodSeconds ?? DEFAULT_GRACE_SECONDS;
    const labelSelector = Object.entries(spec.selector.matchLabels ?? {})
      .map(([label, value]) => `${label}=${value}`)
      .join(",");
    this.#logger.info(ref, "stops the operator");
    const left = await this.#until(graceSeconds * SECOND_MS + STOP_MARGIN_MS, async () => {
      const { items } = await this.#kube.list(PODS, { namespace: ref.namespace, labelSelector });
      return items.length === 0 ? null : items.map(nameOf);
    });
    if (left) {
      throw new UninstallFailedError(
        `the operator still runs in ${left.join(", ")}: delete these Pods, or their node if it is lost, and try again`,
      );
    }
    this.done.stopped = true;
  }

  /**
   * Takes the finalizer off, and of those that are going anyway removes the claims: nobody else will. The claims first, since
   * with its finalizer the Environment is gone, and nothing says any more whose they were.
   */
  async letGo(): Promise<void> {
    const { released } = this.done;
    for (const environment of await this.#environments()) {
      const { namespace = "", name = "", deletionTimestamp } = environment.metadata;
      if (deletionTimestamp && this.#settings.deleteEnvironments) {
        await deleteClaimSecrets(this.#kube, { namespace, name }, NO_POINTS);
      }
      if (await this.#release({ namespace, name })) released.push(nameOf(environment));
    }
    this.#logger.info({ environments: released.length }, "took the finalizer off");
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
        this.#logger.info("the CRD is gone, and all Environments with it");
        return [];
      }
    }
    return found;
  }

  /** Whether the API server knows the group: a 404 for a list may as well be a proxy's. */
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

  /** Whether it had the finalizer. */
  async #release(ref: { namespace: string; name: string }): Promise<boolean> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        const { metadata } = await this.#kube.get(ENVIRONMENTS, ref);
        const { resourceVersion, finalizers = [] } = metadata;
        if (!finalizers.includes(FINALIZER)) return false;
        const rest = finalizers.filter((each) => each !== FINALIZER);
        const patch = { metadata: { resourceVersion, finalizers: rest } };
        await this.#kube.patch(ENVIRONMENTS, ref, patch, { type: "merge" });
        return true;
      } catch (error) {
        if (isNotFound(error)) return false;
        if (!isConflict(error) || attempt >= ATTEMPTS) throw error;
      }
    }
  }

  /** Asks until there is nothing left, and for no longer than that. Returns what is left; null: nothing. */
  async #until<T>(timeoutMs: number, left: () => Promise<T | null>): Promise<T | null> {
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
