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
 * @throws CheckFailedError, KubeApiError
 */
export async function check(settings: CheckSettings, seams: CheckSeams = {}): Promise<void> {
  const { clock = realClock, logger = createLogger("info") } = seams;
  const { deployment, timeoutSeconds } = settings;
  const access = loadKubeConfig(settings.kubeconfig, settings.kubeEnvironment);
  const kube = new KubeClient({ access, clock, proxy: settings.proxy, userAgent: `berth-check/${berthVersion()}` });
  try {
    const found = await environmentsIn(kube, deployment.namespace);
    logger.info({ namespace: deployment.namespace, environments: found }, "the API server serves Environments");
    const deadlineMs = clock.monotonic() + timeoutSeconds * SECOND_MS;
    for (;;) {
      const missing = await missingReplicas(kube, deployment);
      if (missing === null) break;
      if (clock.monotonic() >= deadlineMs) throw new CheckFailedError(missing);
      await sleep(clock, POLL_MS);
    }
    logger.info(deployment, "the operator is ready");
  } finally {
    await kube.close();
  }
}

/** How many Environments the release's own namespace has: most often none, but the list is the proof that they are served. */
async function environmentsIn(kube: KubeClient, namespace: string): Promise<number> {
  try {
    return (await kube.listAll(ENVIRONMENTS, { namespace })).items.length;
  } catch (error) {
    if (!hasStatus(error, HTTP_NOT_FOUND)) throw error;
    throw new CheckFailedError(`the API server has no Environments of ${GROUP}: install the CRD (crds.enabled=true)`);
  }
}

/** What the operator lacks; null: nothing. */
async function missingReplicas(kube: KubeClient, ref: CheckSettings["deployment"]): Promise<string | null> {
  const name = `Deployment ${ref.namespace}/${ref.name}`;
  let deployment: Deployment;
  try {
    deployment = await kube.get(DEPLOYMENTS, ref);
  } catch (error) {
    if (!isNotFound(error)) throw error;
    throw new CheckFailedError(`${name} is not there: install the operator, or name its Deployment`);
  }
  const { metadata, spec, status = {} } = deployment;
  const wanted = spec.replicas ?? 1;
  if (wanted === 0) throw new CheckFailedError(`${name} is scaled to nothing: set its replicas to 1 or more`);
  const { observedGeneration = 0, replicas = 0, updatedReplicas = 0, readyReplicas = 0 } = status;
  const isSettled = observedGeneration >= (metadata.generation ?? 0) && replicas === updatedReplicas;
  if (isSettled && readyReplicas >= wanted) return null;
  return `${name} has ${readyReplicas} of ${wanted} replicas ready: look at its Pods with kubectl describe and logs`;
}
