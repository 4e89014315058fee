/**
 * Writes deploy/: the chart rendered with its defaults, for people who apply plain manifests. `--check` writes nothing
 * and ends with exit code 1 when a file differs from what would be written.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { type Document, parseAllDocuments } from "yaml";
import { MissingToolError } from "../testbed/cluster/missing.ts";
import { CHART, helm } from "./helm.ts";

const ROOT = new URL("../", import.meta.url);
const RELEASE = "berth";
const NAMESPACE = "berth-system";

/** No helm will ever own these objects. */
const HELM_LABELS = ["app.kubernetes.io/managed-by", "helm.sh/chart"];

const RBAC_KINDS = new Set(["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"]);

const HEADER = "# Rendered from charts/berth by tools/render-deploy.ts: do not edit.\n";

/** Helm makes the namespace by `--create-namespace`, without labels. */
const NAMESPACE_MANIFEST = `apiVersion: v1
kind: Namespace
metadata:
  name: ${NAMESPACE}
  labels:
    app.kubernetes.io/name: berth
    pod-security.kubernetes.io/enforce: restricted
`;

/** Every rendered file, by its path from the root of the repository. The CRD is tools/generate-crd.ts's. */
export async function renderedFiles(): Promise<Record<string, string>> {
  const args = ["template", RELEASE, CHART, "--namespace", NAMESPACE, "--no-hooks", "--set", "crds.enabled=false"];
  const { code, stdout, stderr } = await helm(args);
  if (code !== 0) throw new Error(`helm ${args.join(" ")}: ${stderr}`);
  const documents = parseAllDocuments(stdout).filter((document) => document.contents !== null);
  if (documents.length === 0) throw new Error("helm rendered nothing");
  const isRbac = (document: Document) => RBAC_KINDS.has(String(document.get("kind")));
  return {
    "deploy/namespace.yaml": HEADER + NAMESPACE_MANIFEST,
    "deploy/rbac.yaml": manifest(documents.filter(isRbac)),
    "deploy/operator.yaml": manifest(documents.filter((document) => !isRbac(document))),
  };
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
    // Helm comes along for Linux on x86-64 only; CI runs there.
    if (!(error instanceof MissingToolError)) throw error;
    console.error(`deploy/ was not looked at: ${error.message}`);
  }
}
