import { LABEL_ENVIRONMENT, toLabelValue } from "../api/names.ts";
import type { KubeClient } from "../kube/client.ts";
import { type KubeObject, NAMESPACES, SECRETS, type Secret } from "../kube/resource.ts";
import { anyClaimSelector, CLAIM_SECRET_TYPE, readJournal, withoutCredential } from "../protocol/journal.ts";
import { type CheckResult, resultsOf } from "./checks.ts";
import { look, unseen } from "./look.ts";

/** https://kubernetes.io/docs/concepts/security/pod-security-admission/ */
const ENFORCE = "pod-security.kubernetes.io/enforce";
/** The number of Secrets that a message lists. */
const SHOWN = 3;

const aboutNamespace = (namespace: string) => `namespace ${namespace}`;

/** Whether the namespace exists, and which Pod Security level it enforces in addition to the operator's own policy. */
export async function checkPodSecurity(kube: KubeClient, namespace: string): Promise<CheckResult> {
  const results = resultsOf("pod-security", aboutNamespace(namespace));
  const found = await look(() => kube.get(NAMESPACES, { name: namespace }));
  if (found.is === "absent")
    return results.fail("the namespace does not exist", `kubectl create namespace ${namespace}`);
  if (found.is !== "seen") return unseen(results, found, `get namespaces ${namespace}`);
  const level = found.value.metadata.labels?.[ENFORCE] ?? "privileged";
  if (level !== "privileged") return results.pass(`it enforces ${level}`);
  return results.pass("it enforces no Pod Security level, so only the operator's Pod policy applies");
}

/**
 * Whether claim records are left that no Environment will ever settle. They have no owner, so nothing deletes them.
 * @param environments all Environments of the namespace
 */
export async function checkClaims(
  kube: KubeClient,
  namespace: string,
  environments: readonly KubeObject[],
): Promise<CheckResult> {
  const results = resultsOf("claims", aboutNamespace(namespace));
  const query = { namespace, labelSelector: anyClaimSelector() };
  // Keeps only the fields that are used here, so that no credential stays in memory.
  const found = await look(() => kube.listAll(SECRETS, query, { keep: withoutCredential }));
  if (found.is === "absent") return results.pass("there are none");
  if (found.is !== "seen") return unseen(results, found, `list secrets in ${namespace}`);
  const claims = found.value.items.filter(({ type }) => type === CLAIM_SECRET_TYPE);
  const orphans = claims.filter((claim) => !environments.some((environment) => isClaimOf(claim, environment)));
  if (claims.length === 0) return results.pass("there are none");
  if (orphans.length === 0) return results.pass(`${claims.length}, each of an existing Environment`);
  const names = orphans.map(({ metadata }) => metadata.name ?? "");
  const more = names.length > SHOWN ? ` and ${names.length - SHOWN} more` : "";
  return results.fail(
    `claim Secrets belong to a deleted Environment: ${names.slice(0, SHOWN).join(", ")}${more}`,
    `When their sessions have ended: kubectl -n ${namespace} delete secret ${names.slice(0, SHOWN).join(" ")}`,
  );
}

function isClaimOf(claim: Secret, { metadata }: KubeObject): boolean {
  const uid = readJournal(claim)?.environmentUid;
  if (uid) return uid === metadata.uid;
  return claim.metadata.labels?.[LABEL_ENVIRONMENT] === toLabelValue(metadata.name ?? "");
}
