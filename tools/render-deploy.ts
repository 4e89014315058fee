/**
 * Writes deploy/: the chart rendered with its defaults, for users of plain manifests. `--check` writes nothing and
 * exits with code 1 if a file is out of date.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { type Document, parseAllDocuments } from "yaml";
import { MissingToolError } from "../testbed/cluster/missing.ts";
import { CHART, helm } from "./helm.ts";

const ROOT = new URL("../", import.meta.url);
const RELEASE = "berth";
const NAMESPACE = "berth-system";
/** The name of the image that users of the manifests replace: there is no public one. */
const IMAGE = "berth";

/** Helm does not own these objects. */
const HELM_LABELS = ["app.kubernetes.io/managed-by", "helm.sh/chart"];

const RBAC_KINDS = new Set(["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"]);

const HEADER = "# Rendered from charts/berth by tools/render-deploy.ts: do not edit.\n";

/** Helm creates the namespace with `--create-namespace`, without labels. */
const NAMESPACE_MANIFEST = `apiVersion: v1
kind: Namespace
metadata:
  name: ${NAMESPACE}
  labels:
    app.kubernetes.io/name: berth
    app.kubernetes.io/part-of: berth
    pod-security.kubernetes.io/enforce: restricted
`;

/** For `kubectl apply -k` and as a base of overlays. The order is for readers; kustomize sorts resources itself. */
const KUSTOMIZATION = `apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
  - crds/berth.dev_environments.yaml
  - namespace.yaml
  - rbac.yaml
  - operator.yaml
`;

/** Every rendered file, by its path from the root of the repository. tools/generate-crd.ts writes the CRD. */
export async function renderedFiles(): Promise<Record<string, string>> {
  const set = ["--set", "crds.enabled=false", "--set", `image.repository=${IMAGE}`];
  const args = ["template", RELEASE, CHART, "--namespace", NAMESPACE, "--no-hooks", ...set];
  const { code, stdout, stderr } = await helm(args);
  if (code !== 0) throw new Error(`helm ${args.join(" ")}: ${stderr}`);
  const documents = parseAllDocuments(stdout).filter((document) => document.contents !== null);
  if (documents.length === 0) throw new Error("helm rendered nothing");
  const isRbac = (document: Document) => RBAC_KINDS.has(String(document.get("kind")));
  return {
    "deploy/kustomization.yaml": HEADER + KUSTOMIZATION,
    "deploy/namespace.yaml": HEADER + NAMESPACE_MANIFEST,
    "deploy/rbac.yaml": manifest(documents.filter(isRbac)),
    "deploy/operator.yaml": manifest(documents.filter((document) => !isRbac(document))),
    "src/doctor/operator-rights.ts": rightsModule(documents),
  };
}

/** The resources of the rights that the operator works without (`rbac.attach`, `rbac.ephemeralContainers`). */
const ATTACHING = ["pods/attach", "pods/log"];
const SLEEPING = ["pods/ephemeralcontainers"];

/** The operator's roles by purpose, and their names in the chart. A namespace may follow the name. */
const ROLES = {
  OPERATOR_RIGHTS: {
    role: "berth-operator",
    only: (resource: string) => ![...ATTACHING, ...SLEEPING].includes(resource),
    about: "In each namespace whose Environments it serves.",
  },
  ATTACH_RIGHTS: {
    role: "berth-operator",
    only: (resource: string) => ATTACHING.includes(resource),
    about:
      "In the same namespaces. Without them the operator works, but Pods can't wait in a shell or in their program.",
  },
  SLEEP_RIGHTS: {
    role: "berth-operator",
    only: (resource: string) => SLEEPING.includes(resource),
    about: "In the same namespaces. Without them the operator works, but no session sleeps in its Pod.",
  },
  LEASE_RIGHTS: { role: "berth-operator-leader", only: () => true, about: "In the namespace of its Leases." },
  NODE_RIGHTS: {
    role: "berth-operator-nodes",
    only: () => true,
    about:
      "In the cluster. Without them the operator works, but also claims for Pods on nodes that are about to be removed.",
  },
} as const;

/** The formatter's line width (biome.json). */
const LINE_WIDTH = 120;

interface Rule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly verbs: readonly string[];
}

/** The permissions that `berth doctor` checks, generated so that the chart is their only source. */
function rightsModule(documents: readonly Document[]): string {
  const roles = documents.map((document) => document.toJS()).filter(({ kind }) => /^(Cluster)?Role$/.test(kind));
  const parts = Object.entries(ROLES).map(([constant, { role, only, about }]) => {
    const found = roles.find(({ metadata }) => metadata.name.split(".")[0] === role);
    if (!found) throw new Error(`the chart has no role ${role}`);
    const lines = (found.rules as readonly Rule[]).flatMap(({ apiGroups, resources, verbs }) =>
      apiGroups.flatMap((group) =>
        resources
          .filter(only)
          .map((resource) => `  { group: "${group}", resource: "${resource}", verbs: "${verbs.join(" ")}" },\n`),
      ),
    );
    const declaration = `export const ${constant}: readonly Right[] =`;
    // Match the formatter: a list with one element stays on one line if it fits.
    const short = `${declaration} [${lines.map((line) => line.trim().replace(/,$/, "")).join(" ")}];`;
    const isShort = lines.length === 1 && short.length <= LINE_WIDTH;
    return `/** ${about} */\n${isShort ? short : `${declaration} [\n${lines.join("")}];`}\n`;
  });
  return `// Generated by tools/render-deploy.ts from the roles of charts/berth: do not edit.

/** The permitted verbs for one resource. */
export interface Right {
  /** Empty for the core group. */
  readonly group: string;
  /** May include a subresource: \`environments/status\`. */
  readonly resource: string;
  /** Separated by spaces. */
  readonly verbs: string;
}

${parts.join("\n")}`;
}

function manifest(documents: readonly Document[]): string {
  return HEADER + documents.map(plain).join("---\n");
}

function plain(document: Document): string {
  for (const labels of [
    ["metadata", "labels"],
    ["spec", "template", "metadata", "labels"],
  ]) {
    if (!document.hasIn(labels)) continue;
    for (const label of HELM_LABELS) document.deleteIn([...labels, label]);
  }
  return document
    .toString({ lineWidth: 0, flowCollectionPadding: false, directives: false })
    .split("\n")
    .filter((line) => line !== "---" && !line.startsWith("# Source: "))
    .join("\n")
    .trimStart();
}

function currentText(path: string): string | undefined {
  try {
    return readFileSync(new URL(path, ROOT), "utf8");
  } catch {
    return undefined;
  }
}

async function main(args: readonly string[]): Promise<number> {
  const files = Object.entries(await renderedFiles());
  if (!args.includes("--check")) {
    for (const [path, text] of files) writeFileSync(new URL(path, ROOT), text);
    return 0;
  }
  const stale = files.filter(([path, text]) => currentText(path) !== text);
  for (const [path] of stale) console.error(`${path} is out of date: run npm run generate`);
  return stale.length === 0 ? 0 : 1;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    process.exitCode = await main(process.argv.slice(2));
  } catch (error) {
    // Helm is downloaded for Linux on x86-64 only, where CI runs.
    if (!(error instanceof MissingToolError)) throw error;
    console.error(`deploy/ was not checked: ${error.message}`);
  }
}
