import { GROUP } from "../api/names.ts";
import { realClock, SECOND_MS, sleep } from "../core/clock.ts";
import { errorText, OperatorError } from "../core/errors.ts";
import type { KubeClient } from "../kube/client.ts";
import { hasStatus, isNotFound } from "../kube/errors.ts";
import { DEPLOYMENTS, type Deployment } from "../kube/resource.ts";
import { createLogger, redact } from "../observe/logger.ts";
import { ENVIRONMENTS } from "../reconcile/finalizer.ts";
import type { CheckSettings } from "./check-settings.ts";
import { type CommandSeams, connect } from "./invocation.ts";

/** One request a second for a minute hardly loads the API server, and is fast enough for a person who waits. */
const POLL_MS = SECOND_MS;
const HTTP_NOT_FOUND = 404;

/** The result of `berth check`. */
export interface CheckReport {
  readonly ok: boolean;
  /** The operator's Deployment, as NAMESPACE/NAME. */
  readonly deployment: string;
  /**
   * The number of Environments in the Deployment's namespace; null if the API server serves none, or could not be
   * reached.
   */
  readonly environments: number | null;
  /** The last known counts; null if the Deployment does not exist or was not read. */
  readonly replicas: { readonly wanted: number; readonly ready: number } | null;
  /** Why it does not work or could not be checked, and how to fix it; null if it works. */
  readonly problem: string | null;
}

/** The installed operator does not work; the message says why. */
export class CheckFailedError extends OperatorError {
  constructor(message: string) {
    super("CheckFailed", message);
  }
}

/**
 * Checks that an installed operator works: the API server serves Environments, and the current revision of the
 * Deployment has all its replicas ready, so that each of them serves or can take over. Changes nothing. A failure of
 * the check itself is also reported as a problem, along with what was found before.
 * @throws ConfigError if the kubeconfig is invalid
 */
export async function check(settings: CheckSettings, seams: CommandSeams = {}): Promise<CheckReport> {
  const { clock = realClock, logger = createLogger("info") } = seams;
  const { namespace, name } = settings.deployment;
  await using cluster = connect(settings, "check", clock);
  const found: Found = { environments: null, replicas: null };
  let problem: string | null;
  try {
    problem = await runChecks(settings, found, { kube: cluster.kube, clock, logger });
  } catch (error) {
    problem = redact(errorText(error));
  }
  return { ok: problem === null, deployment: `${namespace}/${name}`, ...found, problem };
}

/** What is known of the installation so far. */
type Found = { -readonly [Key in "environments" | "replicas"]: CheckReport[Key] };

/**
 * Fills in `found` step by step. Returns the problem, or null.
 * @throws KubeApiError if a read fails
 */
async function runChecks(
  { deployment, timeoutSeconds }: CheckSettings,
  found: Found,
  { kube, clock, logger }: Required<CommandSeams> & { readonly kube: KubeClient },
): Promise<string | null> {
  const { namespace } = deployment;
  found.environments = await environmentsIn(kube, namespace);
  if (found.environments === null) {
    return `the API server does not serve Environments of ${GROUP}; install the CRD (crds.enabled=true)`;
  }
  logger.info({ namespace, environments: found.environments }, "the API server serves Environments");
  const deadlineMs = clock.monotonic() + timeoutSeconds * SECOND_MS;
  for (;;) {
    const { replicas, problem, mayRecover } = await replicasOf(kube, deployment);
    found.replicas = replicas;
    if (problem !== null && mayRecover && clock.monotonic() < deadlineMs) {
      await sleep(clock, POLL_MS);
      continue;
    }
    if (problem === null) logger.info(deployment, "the operator is ready");
    return problem;
  }
}

/**
 * The number of Environments in the release's own namespace, usually none. A successful list proves that the API server
 * serves them; null means that it does not.
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
  /** Whether the problem may disappear without a fix, within a moment. */
  readonly mayRecover: boolean;
}

async function replicasOf(kube: KubeClient, ref: CheckSettings["deployment"]): Promise<Replicas> {
  const name = `Deployment ${ref.namespace}/${ref.name}`;
  let deployment: Deployment;
  try {
    deployment = await kube.get(DEPLOYMENTS, ref);
  } catch (error) {
    if (!isNotFound(error)) throw error;
    const problem = `${name} does not exist; install the operator, or name its Deployment`;
    return { replicas: null, problem, mayRecover: false };
  }
  const { metadata, spec, status = {} } = deployment;
  const wanted = spec.replicas ?? 1;
  const { observedGeneration = 0, replicas = 0, updatedReplicas = 0, readyReplicas = 0 } = status;
  const counts = { wanted, ready: readyReplicas };
  if (wanted === 0) {
    return {
      replicas: counts,
      problem: `${name} is scaled to 0 replicas; set its replicas to 1 or more`,
      mayRecover: false,
    };
  }
  const isSettled = observedGeneration >= (metadata.generation ?? 0) && replicas === updatedReplicas;
  const isReady = isSettled && readyReplicas >= wanted;
  const problem = `${name} has ${readyReplicas} of ${wanted} replicas ready; check its Pods with kubectl describe and kubectl logs`;
  return { replicas: counts, problem: isReady ? null : problem, mayRecover: true };
}
