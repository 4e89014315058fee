import { GROUP } from "./api/names.ts";
import type { CheckSettings } from "./check-settings.ts";
import { type Clock, realClock, sleep } from "./core/clock.ts";
import { OperatorError } from "./core/errors.ts";
import { KubeClient } from "./kube/client.ts";
import { loadKubeConfig } from "./kube/config.ts";
import { hasStatus, isNotFound } from "./kube/errors.ts";
import { DEPLOYMENTS, type Deployment } from "./kube/resource.ts";
import { createLogger, type Logger } from "./observe/logger.ts";
import { ENVIRONMENTS } from "./sessions/environment-hold.ts";
import { berthVersion } from "./version.ts";

const SECOND_MS = 1_000;
/** One client for a minute: a request a second is nothing to an API server, and quick enough for whoever waits. */
const POLL_MS = SECOND_MS;
const HTTP_NOT_FOUND = 404;

/** What `berth check` found. */
export interface CheckReport {
  readonly ok: boolean;
  /** The operator's Deployment, as NAMESPACE/NAME. */
  readonly deployment: string;
  /** Environments in the Deployment's namespace; null: the API server serves none. */
  readonly environments: number | null;
  /** Null where there is no Deployment, or it was not looked at. */
  readonly replicas: { readonly wanted: number; readonly ready: number } | null;
  /** Why it does not work, and what to do; null: it works. */
  readonly problem: string | null;
}

/** What is installed does not work, and why. */
export class CheckFailedError extends OperatorError {
  constructor(message: string) {
    super("CheckFailed", message);
  }
}

/** What tests put in the place of the real thing. */
export interface CheckSeams {
  readonly clock?: Clock;
  readonly logger?: Logger;
}

/**
 * Looks whether an installed operator works: the API server serves Environments, and the Deployment as it is now has all
 * its replicas ready, which means that each of them acts or could take over. Changes nothing.
 * @throws KubeApiError where it cannot be looked
 */
export async function check(settings: CheckSettings, seams: CheckSeams = {}): Promise<CheckReport> {
  const { clock = realClock, logger = createLogger("info") } = seams;
  const { deployment, timeoutSeconds } = settings;
  const name = `${deployment.namespace}/${deployment.name}`;
  const access = loadKubeConfig(settings.kubeconfig, settings.kubeEnvironment);
  const kube = new KubeClient({ access, clock, proxy: settings.proxy, userAgent: `berth-check/${berthVersion()}` });
  try {
    const found = await environmentsIn(kube, deployment.namespace);
    if (found === null) {
      const problem = `the API server has no Environments of ${GROUP}: install the CRD (crds.enabled=true)`;
      return { ok: false, deployment: name, environments: null, replicas: null, problem };
    }
    logger.info({ namespace: deployment.namespace, environments: found }, "the API server serves Environments");
    const deadlineMs = clock.monotonic() + timeoutSeconds * SECOND_MS;
    for (;;) {
      const { replicas, problem, mayHeal } = await replicasOf(kube, deployment);
      if (problem !== null && mayHeal && clock.monotonic() < deadlineMs) {
        await sleep(clock, POLL_MS);
        continue;
      }
      if (problem === null) logger.info(deployment, "the operator is ready");
      return { ok: problem === null, deployment: name, environments: found, replicas, problem };
    }
  } finally {
    await kube.close();
  }
}

/**
 * How many Environments the release's own namespace has: most often none, but the list is the proof that they are
 * served. Null: they are not.
 */
async function environmentsIn(kube: KubeClient, namespace: string): Promise<number | null> {
  try {
    return (await kube.listAll(ENVIRONMENTS, { namespace })).items.length;
  } catch (error) {
    if (!hasStatus(error, HTTP_NOT_FOUND)) throw error;
    return null;
  }
}

interface Replicas extends Pick<CheckReport, "replicas" | "problem"> {
  /** Whether the problem may go by itself within a moment. */
  readonly mayHeal: boolean;
}

async function replicasOf(kube: KubeClient, ref: CheckSettings["deployment"]): Promise<Replicas> {
  const name = `Deployment ${ref.namespace}/${ref.name}`;
  let deployment: Deployment;
  try {
    deployment = await kube.get(DEPLOYMENTS, ref);
  } catch (error) {
    if (!isNotFound(error)) throw error;
    const problem = `${name} is not there: install the operator, or name its Deployment`;
    return { replicas: null, problem, mayHeal: false };
  }
  const { metadata, spec, status = {} } = deployment;
  const wanted = spec.replicas ?? 1;
  const { observedGeneration = 0, replicas = 0, updatedReplicas = 0, readyReplicas = 0 } = status;
  const counts = { wanted, ready: readyReplicas };
  if (wanted === 0) {
    return {
      replicas: counts,
      problem: `${name} is scaled to nothing: set its replicas to 1 or more`,
      mayHeal: false,
    };
  }
  const isSettled = observedGeneration >= (metadata.generation ?? 0) && replicas === updatedReplicas;
  const isReady = isSettled && readyReplicas >= wanted;
  const problem = `${name} has ${readyReplicas} of ${wanted} replicas ready: look at its Pods with kubectl describe and logs`;
  return { replicas: counts, problem: isReady ? null : problem, mayHeal: true };
}
