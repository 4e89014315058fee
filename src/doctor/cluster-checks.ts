import { environmentSchema } from "../api/crd-manifest.ts";
import { API_VERSION, GROUP, PLURAL, VERSION } from "../api/names.ts";
import { errorText } from "../core/errors.ts";
import { isRecord } from "../core/json.ts";
import type { KubeClient } from "../kube/client.ts";
import { hasNoCredentials, hasStatus, isForbidden, isUnauthorized } from "../kube/errors.ts";
import { CRDS } from "../kube/resource.ts";
import { type CheckResult, resultsOf } from "./checks.ts";
import { look, unseen } from "./look.ts";
import { schemaDifference } from "./schema-difference.ts";

/** The `kubeVersion` in charts/berth/Chart.yaml; a test compares them. */
export const OLDEST_KUBERNETES = { major: 1, minor: 30 } as const;

const CLUSTER = "cluster";
const HTTP_NOT_FOUND = 404;
/** The number of fields of each kind that a message lists. */
const SHOWN = 5;

const INSTALL_CRD =
  "Install the CRD of this version with helm upgrade, or with kubectl apply --server-side -f deploy/crds/";

/** Whether the API server answers. If this fails, no other check runs. */
export async function checkApiServer(kube: KubeClient): Promise<CheckResult> {
  const results = resultsOf("api-server", CLUSTER);
  try {
    const version = await kube.raw("GET", "/version");
    return isRecord(version) ? versionResult(version, results) : results.fail(...NO_API_SERVER);
  } catch (error) {
    if (isForbidden(error)) return results.skip("get /version (role system:public-info-viewer)");
    return results.fail(errorText(error), fixFor(error));
  }
}

function fixFor(error: unknown): string {
  if (hasNoCredentials(error)) {
    return "Log in again, and check that the credentials of the kubeconfig's user exist: the plug-in (exec) in PATH, or the token file.";
  }
  return isUnauthorized(error)
    ? "Log in again: the API server no longer accepts the credentials of the kubeconfig."
    : "Check that the kubeconfig names the right cluster, and that this machine can reach it (VPN, proxy, firewall).";
}

const NO_API_SERVER = ["the server is not an API server", "Check the server address in the kubeconfig."] as const;

function versionResult(version: Record<string, unknown>, results: ReturnType<typeof resultsOf>): CheckResult {
  const { gitVersion, major, minor } = version;
  // Some providers report a minor version such as "30+".
  const [majorNumber, minorNumber] = [major, minor].map((part) => Number.parseInt(String(part), 10));
  if (majorNumber === undefined || minorNumber === undefined || Number.isNaN(majorNumber + minorNumber)) {
    return results.fail(...NO_API_SERVER);
  }
  const { major: oldestMajor, minor: oldestMinor } = OLDEST_KUBERNETES;
  const isOld = majorNumber < oldestMajor || (majorNumber === oldestMajor && minorNumber < oldestMinor);
  if (!isOld) return results.pass(`Kubernetes ${String(gitVersion)}`);
  const oldest = `${oldestMajor}.${oldestMinor}`;
  return results.fail(
    `Kubernetes ${String(gitVersion)} is older than ${oldest}`,
    `Upgrade the cluster to ${oldest} or newer.`,
  );
}

/** Whether the API server serves Environments, according to its discovery, which every user may read. */
export async function checkCrd(kube: KubeClient): Promise<CheckResult> {
  const results = resultsOf("crd", CLUSTER);
  try {
    const list = await kube.raw("GET", `/apis/${API_VERSION}`);
    const resources = isRecord(list) && Array.isArray(list["resources"]) ? list["resources"] : [];
    if (resources.some((resource) => isRecord(resource) && resource["name"] === PLURAL)) {
      return results.pass(`${PLURAL}.${GROUP} is served as ${VERSION}`);
    }
  } catch (error) {
    if (isForbidden(error)) return results.skip(`get /apis/${API_VERSION} (role system:discovery)`);
    if (!hasStatus(error, HTTP_NOT_FOUND)) return results.fail(errorText(error), INSTALL_CRD);
  }
  return results.fail(`the CRD ${PLURAL}.${GROUP} is not installed, or does not serve ${VERSION}`, INSTALL_CRD);
}

/** Whether the CRD has the fields that this build knows. */
export async function checkCrdSchema(kube: KubeClient, version: string): Promise<CheckResult> {
  const results = resultsOf("crd-schema", CLUSTER);
  const name = `${PLURAL}.${GROUP}`;
  const found = await look(() => kube.get(CRDS, { name }));
  if (found.is === "absent") return results.fail(`the CRD ${name} is not installed`, INSTALL_CRD);
  if (found.is !== "seen") return unseen(results, found, `get customresourcedefinitions ${name}`);
  const difference = schemaDifference(environmentSchema(), schemaOf(found.value["spec"]));
  const { missing, changed, unknown } = difference;
  const parts = [
    ...(missing.length > 0 ? [`the CRD lacks ${shown(missing)}`] : []),
    ...(changed.length > 0 ? [`has a different ${shown(changed)}`] : []),
    ...(unknown.length > 0 ? [`has ${shown(unknown)}, unknown to this build`] : []),
  ];
  if (parts.length === 0) return results.pass(`it has the fields of Berth ${version}`);
  const message = parts.join("; ");
  if (missing.length + changed.length > 0) return results.fail(message, INSTALL_CRD);
  return results.warn(
    message,
    `The CRD is newer than this build (${version}). Use the berth command of the operator's version.`,
  );
}

function schemaOf(spec: unknown): unknown {
  const versions = isRecord(spec) && Array.isArray(spec["versions"]) ? spec["versions"] : [];
  const ours: unknown = versions.find((each) => isRecord(each) && each["name"] === VERSION);
  const schema = isRecord(ours) ? ours["schema"] : undefined;
  return isRecord(schema) ? schema["openAPIV3Schema"] : undefined;
}

function shown(paths: readonly string[]): string {
  const names = paths.map((path) => path.replace(/^\./, "") || "a schema");
  const more = names.length > SHOWN ? ` and ${names.length - SHOWN} more` : "";
  return names.slice(0, SHOWN).join(", ") + more;
}
