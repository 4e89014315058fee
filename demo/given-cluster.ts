import { randomBytes } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { stringify } from "yaml";
import { GROUP, PLURAL } from "../src/api/names.ts";
import type { KubeClient } from "../src/kube/client.ts";
import { type ClusterAccess, loadKubeConfig } from "../src/kube/config.ts";
import { isAlreadyExists, isNotFound } from "../src/kube/errors.ts";
import { CRDS, type KubeObject, LEASES, NAMESPACES, type Resource, SERVICE_ACCOUNTS } from "../src/kube/resource.ts";
import { ENVIRONMENTS } from "../src/reconcile/finalizer.ts";
import { DEPLOY_DIR } from "../testbed/cluster/install.ts";
import { readManifests } from "../testbed/cluster/manifests.ts";
import type { Progress } from "../testbed/cluster/progress.ts";
import { createNamespace, type DemoCluster, demoClient } from "./cluster.ts";
import { DemoError } from "./errors.ts";
import { BATCH, RESEARCH } from "./sample.ts";

/** Labels what the demo creates in an existing cluster: `kubectl get ns,nodes -l berth.dev/demo`. */
export const DEMO_LABEL = "berth.dev/demo";

const CRD_NAME = `${PLURAL}.${GROUP}`;
const SERVICE_ACCOUNT = "berth-operator";
/** Longer than any demo runs; a cluster may grant less. */
const TOKEN_SECONDS = 24 * 3_600;

const ESTABLISHED_TIMEOUT_MS = 30_000;
/** A namespace with a few objects is deleted within seconds, but an unavailable API service blocks it forever. */
const NAMESPACE_TIMEOUT_MS = 60_000;
const POLL_MS = 250;

/**
 * Prepares an existing cluster: installs the CRD if it is missing, and creates a namespace with the operator's
 * permissions.
 * @param kubeconfig in the format of KUBECONFIG
 * @param dir the folder for the operator's kubeconfig
 */
export async function enterGivenCluster(
  kubeconfig: string,
  dir: string,
  progress: Progress,
  warn: (text: string) => void,
): Promise<DemoCluster> {
  const access = loadKubeConfig(undefined, { KUBECONFIG: kubeconfig });
  const kube = demoClient(kubeconfig);
  const name = `berth-demo-${randomBytes(4).toString("hex")}`;
  const leave = new Departure(kube, name);
  try {
    const version = (await kube.raw("GET", "/version")) as { gitVersion?: string };
    await warnOfOthers(kube, warn);
    if (await installCrd(kube, progress)) leave.crdInstalled = true;
    leave.namespaceMade = true;
    await createNamespace(kube, name, { [DEMO_LABEL]: name });
    await grantOperator(kube, name);
    const operatorKubeconfig = join(dir, "operator.kubeconfig");
    await writeFile(operatorKubeconfig, renderKubeconfig(access, name, await operatorToken(kube, name)), {
      mode: 0o600,
    });
    return {
      about: `Kubernetes ${version.gitVersion ?? ""} at ${access.server}`,
      namespace: name,
      nodeName: name,
      foreign: true,
      kubeconfig,
      operatorKubeconfig,
      nodeKubeconfig: kubeconfig,
      // The operator serves only its own namespace, and does not compete for the Lease of another Berth.
      operatorFlags: ["--namespace", name, "--leader-elect-namespace", name],
      kubectl: "kubectl",
      kube,
      stays: removalCommands(name),
      operatorRequests: async () => undefined,
      leave: () => leave.run(),
    };
  } catch (error) {
    for (const text of await leave.run()) warn(text);
    throw error;
  }
}

/** Commands to run after a demo that could not clean up. Without an operator, nothing else removes the finalizer. */
export function removalCommands(name: string): string[] {
  const finalizers = JSON.stringify({ metadata: { finalizers: null } });
  return [
    ...[RESEARCH, BATCH].map(
      (sample) => `kubectl patch benv ${sample.name} -n ${name} --type merge -p '${finalizers}'`,
    ),
    `kubectl delete namespace,node ${name}`,
  ];
}

/** Returns whether the CRD was missing and is installed now. */
async function installCrd(kube: KubeClient, progress: Progress): Promise<boolean> {
  try {
    await kube.get(CRDS, { name: CRD_NAME });
    return false;
  } catch (error) {
    if (!isNotFound(error)) throw error;
  }
  const [crd] = await readManifests(join(DEPLOY_DIR, "crds"));
  try {
    await kube.create(CRDS, crd as KubeObject);
  } catch (error) {
    // Another client installed it first, so the demo must not remove it.
    if (isAlreadyExists(error)) return false;
    throw error;
  }
  progress.line(`Installed the CRD ${CRD_NAME}, which this cluster did not have. The demo removes it at the end.`);
  for (let waited = 0; waited < ESTABLISHED_TIMEOUT_MS; waited += POLL_MS) {
    try {
      await kube.list(ENVIRONMENTS, { limit: 1 });
      return true;
    } catch {
      await delay(POLL_MS);
    }
  }
  throw new DemoError(`installed the CRD ${CRD_NAME}, but the API server does not serve it`);
}

/** Two operators would both write the status of the demo's Environment. */
async function warnOfOthers(kube: KubeClient, warn: (text: string) => void): Promise<void> {
  // Without permission to list Leases there is no warning.
  const { items } = await kube.list(LEASES, { fieldSelector: "metadata.name=berth" }).catch(() => ({ items: [] }));
  for (const { metadata, spec } of items) {
    const { renewTime, leaseDurationSeconds = 0, holderIdentity } = spec ?? {};
    const fresh = Date.parse(String(renewTime ?? "")) + leaseDurationSeconds * 1_000 > Date.now();
    if (!fresh || !holderIdentity) continue;
    warn(
      `Another Berth may serve this cluster (Lease ${metadata.namespace}/${metadata.name} of ${holderIdentity}): ` +
        "it would write the status of the demo's Environments too.",
    );
  }
}

const RBAC = "rbac.authorization.k8s.io";
const rbac = (plural: string, kind: string): Resource => ({
  group: RBAC,
  version: "v1",
  plural,
  kind,
  namespaced: true,
});

/** Grants the shipped permissions, in this namespace only. */
async function grantOperator(kube: KubeClient, namespace: string): Promise<void> {
  const shipped = await readManifests(DEPLOY_DIR);
  const rules = shipped
    .filter(
      ({ kind, metadata }) =>
        /^(Cluster)?Role$/.test(kind ?? "") && /^berth-operator(-leader|\.berth-system)?$/.test(metadata?.name ?? ""),
    )
    .flatMap((role) => role["rules"] as unknown[]);
  const metadata = { name: SERVICE_ACCOUNT, namespace };
  await kube.create(SERVICE_ACCOUNTS, { metadata, automountServiceAccountToken: false } as KubeObject);
  await kube.create(rbac("roles", "Role"), { metadata, rules } as KubeObject);
  await kube.create(rbac("rolebindings", "RoleBinding"), {
    metadata,
    roleRef: { apiGroup: RBAC, kind: "Role", name: SERVICE_ACCOUNT },
    subjects: [{ kind: "ServiceAccount", name: SERVICE_ACCOUNT, namespace }],
  } as KubeObject);
}

async function operatorToken(kube: KubeClient, namespace: string): Promise<string> {
  const path = `/api/v1/namespaces/${namespace}/serviceaccounts/${SERVICE_ACCOUNT}/token`;
  const body = {
    apiVersion: "authentication.k8s.io/v1",
    kind: "TokenRequest",
    spec: { expirationSeconds: TOKEN_SECONDS },
  };
  const answer = (await kube.raw("POST", path, body)) as { status?: { token?: string } };
  const token = answer.status?.token;
  if (!token)
    throw new DemoError(`the API server returned no token for service account ${namespace}/${SERVICE_ACCOUNT}`);
  return token;
}

/** A kubeconfig for the same server with another identity. */
export function renderKubeconfig(access: ClusterAccess, namespace: string, token: string): string {
  const { server, ca, tlsServerName, insecureSkipTlsVerify, proxyUrl } = access;
  const cluster = {
    server,
    ...(ca === undefined ? {} : { "certificate-authority-data": Buffer.from(ca).toString("base64") }),
    ...(tlsServerName === undefined ? {} : { "tls-server-name": tlsServerName }),
    ...(insecureSkipTlsVerify ? { "insecure-skip-tls-verify": true } : {}),
    ...(proxyUrl === undefined ? {} : { "proxy-url": proxyUrl }),
  };
  return stringify({
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: "demo", cluster }],
    users: [{ name: "demo", user: { token } }],
    contexts: [{ name: "demo", context: { cluster: "demo", user: "demo", namespace } }],
    "current-context": "demo",
  });
}

/** Removes what the demo has added so far. */
class Departure {
  namespaceMade = false;
  crdInstalled = false;
  readonly #kube: KubeClient;
  readonly #namespace: string;

  constructor(kube: KubeClient, namespace: string) {
    this.#kube = kube;
    this.#namespace = namespace;
  }

  /** Returns what could not be removed, with the command that removes it. */
  async run(): Promise<string[]> {
    const left: string[] = [];
    try {
      if (this.namespaceMade && !(await this.#removeNamespace())) {
        left.push(
          `namespace ${this.#namespace} still exists: find out why with kubectl get namespace ${this.#namespace} -o yaml`,
        );
      }
      if (this.crdInstalled) await this.#removeCrd();
    } catch (error) {
      left.push(
        `${error instanceof Error ? error.message : String(error)}: remove the rest with kubectl delete namespace ${this.#namespace}`,
      );
    }
    await this.#kube.close();
    return left;
  }

  async #removeNamespace(): Promise<boolean> {
    const name = this.#namespace;
    await this.#release();
    try {
      await this.#kube.delete(NAMESPACES, { name });
      for (let waited = 0; waited < NAMESPACE_TIMEOUT_MS; waited += POLL_MS) {
        await this.#kube.get(NAMESPACES, { name });
        await delay(POLL_MS);
      }
      return false;
    } catch (error) {
      if (isNotFound(error)) return true;
      throw error;
    }
  }

  /** A dead operator's finalizer holds its Environments. Only the demo uses this namespace. */
  async #release(): Promise<void> {
    const { items } = await this.#kube.list(ENVIRONMENTS, { namespace: this.#namespace }).catch(() => ({ items: [] }));
    for (const { metadata } of items) {
      const ref = { namespace: this.#namespace, name: metadata.name ?? "" };
      await this.#kube.patch(ENVIRONMENTS, ref, { metadata: { finalizers: null } }, { type: "merge" });
    }
  }

  /** Removes the CRD only if no Environment exists: deleting it would delete all Environments of the cluster. */
  async #removeCrd(): Promise<void> {
    const { items } = await this.#kube.list(ENVIRONMENTS, { limit: 1 });
    if (items.length > 0) return;
    const { metadata } = await this.#kube.get(CRDS, { name: CRD_NAME });
    await this.#kube.delete(CRDS, { name: CRD_NAME }, metadata.uid === undefined ? {} : { uid: metadata.uid });
  }
}
