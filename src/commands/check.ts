import { GROUP } from "../api/names.ts";
import { type Clock, realClock, SECOND_MS, sleep } from "../core/clock.ts";
import { errorText, OperatorError } from "../core/errors.ts";
import { KubeClient } from "../kube/client.ts";
import { loadKubeConfig } from "../kube/config.ts";
import { hasStatus, isNotFound } from "../kube/errors.ts";
import { DEPLOYMENTS, type Deployment } from "../kube/resource.ts";
import { createLogger, type Logger, redact } from "../observe/logger.ts";
import { ENVIRONMENTS } from "../reconcile/finalizer.ts";
import { berthVersion } from "../settings/version.ts";
import type { CheckSettings } from "./check-settings.ts";

/** One client for a minute: a request a second is nothing to an API server, and quick enough for whoever waits. */
const POLL_MS = SECOND_MS;
const HTTP_NOT_FOUND = 404;

/** What `berth check` found. */
export interface CheckReport {
  readonly ok: boolean;
  /** The operator's Deployment, as NAMESPACE/NAME. */
  readonly deployment: string;
  /** Environments in the Deployment's namespace; null: the API server serves none, or could not be asked. */
  readonly environments: number | null;
  /** As they were last seen; null where there is no Deployment, or it was not looked at. */
  readonly replicas: { readonly wanted: number; readonly ready: number } | null;
  /** Why it does not work, or could not be looked at, and what to do; null: it works. */
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
 * its replicas ready, which means that each of them acts or could take over. Changes nothing. What keeps it from looking is
 * a problem like any other, and the report has what was found by then.
 * @throws ConfigError where the kubeconfig is wrong
 */
export async function check(settings: CheckSettings, seams: CheckSeams = {}): Promise<CheckReport> {
  const { clock = realClock, logger = createLogger("info") } = seams;
  const { namespace, name } = settings.deployment;
  const access = loadKubeConfig(settings.kubeconfig, settings.kubeEnvironment);
  const kube = new KubeClient({ access, clock, proxy: settings.proxy, userAgent: `berth-check/${berthVersion()}` });
  const found: Found = { environments: null, replicas: null };
  let problem: string | null;
  try {
    problem = await look(settings, found, { kube, clock, logger });
  } catch (error) {
    problem = redact(errorText(error));
  } finally {
    await kube.close();
  }
  return { ok: problem === null, deployment: `${namespace}/${name}`, ...found, problem };
}

/** What is known of the installation so far. */
type Found = { -readonly [Key in "environments" | "replicas"]: CheckReport[Key] };

/**
 * Fills in what it finds, step by step. Returns the problem; null: there is none.
 * @throws KubeApiError where it cannot be looked
 */
async function look(
  { deployment, timeoutSeconds }: CheckSettings,
  found: Found,
  { kube, clock, logger }: Required<CheckSeams> & { readonly kube: KubeClient },
): Promise<string | null> {
  const { namespace } = deployment;
  found.environments = await environmentsIn(kube, namespace);
  if (found.environments === null) {
    return `the API server has no Environments of ${GROUP}: install the CRD (crds.enabled=true)`;
  }
  logger.info({ namespace, environments: found.environments }, "the API server serves Environments");
  const deadlineMs = clock.monotonic() + timeoutSeconds * SECOND_MS;
  for (;;) {
    const { replicas, problem, mayHeal } = await replicasOf(kube, deployment);
    found.replicas = replicas;
    if (problem !== null && mayHeal && clock.monotonic() < deadlineMs) {
      await sleep(clock, POLL_MS);
      continue;
    }
    if (problem === null) logger.info(deployment, "the operator is ready");
    return problem;
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
