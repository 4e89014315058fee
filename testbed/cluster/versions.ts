import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { MissingToolError } from "./missing.ts";

/** The Go modules of tools; their go.mod files are the only place where a version is written. */
export const TOOLS_DIR = join(import.meta.dirname, "tools");

/** One Go module of tools and the commands that are built from it. */
export interface ToolModule {
  /** Folder with go.mod and go.sum. */
  readonly dir: string;
  /** Module whose version stands for all of its commands. */
  readonly module: string;
  /** Release of that module, with its leading `v`. */
  readonly version: string;
  /** Import path of each command, by the name of its binary. */
  readonly commands: Readonly<Record<string, string>>;
  /** Flags for the linker, in one string. */
  readonly ldflags: string;
  /** Build tags, where there are any. */
  readonly tags?: string;
  /** Whether it needs a C compiler. */
  readonly cgo?: boolean;
}

/** Names of the binaries of the control plane. */
export const CONTROL_PLANE = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"] as const;
export type ControlPlaneBinary = (typeof CONTROL_PLANE)[number];

export const KUBERNETES = "k8s.io/kubernetes";
const ETCD = "go.etcd.io/etcd/server/v3";

/** Names the minor version of Kubernetes that tests and commands run on, such as `1.30`; the newest unless set. */
export const MINOR_VARIABLE = "BERTH_TEST_KUBERNETES";

/** Folder of the newest version; those of older ones have their minor version behind it. */
const NEWEST_DIR = "kubernetes";
const OLDER_DIR = /^kubernetes-(\d+\.\d+)$/;

/** Minor versions that can be built, the oldest first. The oldest is the oldest that Berth supports. */
export async function kubernetesMinors(toolsDir: string = TOOLS_DIR): Promise<string[]> {
  return [...(await kubernetesDirs(toolsDir)).keys()];
}

/** Folder of each minor version's module, the oldest version first. */
async function kubernetesDirs(toolsDir: string): Promise<Map<string, string>> {
  const older = (await readdir(toolsDir)).flatMap((name) => {
    const minor = OLDER_DIR.exec(name)?.[1];
    return minor === undefined ? [] : [[minor, join(toolsDir, name)] as const];
  });
  const newestDir = join(toolsDir, NEWEST_DIR);
  const newest = minorOf(requiredVersion(await readFile(join(newestDir, "go.mod"), "utf8"), KUBERNETES));
  const all = [...older, [newest, newestDir] as const];
  return new Map(all.sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true })));
}

/** `1.36` of `v1.36.3`. */
export function minorOf(version: string): string {
  return version.replace(/^v/, "").split(".").slice(0, 2).join(".");
}

/**
 * The modules to build, in the order of building: etcd warms the standard library and is done in half a minute.
 * Throws MissingToolError for a minor version that there is none of.
 */
export async function toolModules(toolsDir: string = TOOLS_DIR, minor?: string): Promise<ToolModule[]> {
  const etcdDir = join(toolsDir, "etcd");
  const dirs = await kubernetesDirs(toolsDir);
  const kubernetesDir = minor ? dirs.get(minor) : join(toolsDir, NEWEST_DIR);
  if (kubernetesDir === undefined) {
    const known = [...dirs.keys()].join(", ");
    throw new MissingToolError(`There is no Kubernetes ${minor} to build: set ${MINOR_VARIABLE} to one of ${known}.`);
  }
  const etcdVersion = requiredVersion(await readFile(join(etcdDir, "go.mod"), "utf8"), ETCD);
  const kubernetesVersion = requiredVersion(await readFile(join(kubernetesDir, "go.mod"), "utf8"), KUBERNETES);
  const commands = CONTROL_PLANE.filter((name) => name !== "etcd").map((name) => [name, `${KUBERNETES}/cmd/${name}`]);
  return [
    { dir: etcdDir, module: ETCD, version: etcdVersion, commands: { etcd: ETCD }, ldflags: "-s -w" },
    {
      dir: kubernetesDir,
      module: KUBERNETES,
      version: kubernetesVersion,
      commands: Object.fromEntries(commands),
      ldflags: `-s -w ${kubernetesVersionFlags(kubernetesVersion)}`,
    },
  ];
}

/** The version that a go.mod file requires of a module. Throws if it requires none. */
export function requiredVersion(goMod: string, module: string): string {
  for (const line of goMod.split("\n")) {
    const [name, version] = line
      .replace(/^\s*require\s+/, "")
      .trim()
      .split(/\s+/);
    if (name === module && version?.startsWith("v")) return version;
  }
  throw new Error(`no version of ${module} in go.mod`);
}

/**
 * A build from the module proxy knows no Git tag and would call itself `v0.0.0-master+$Format`; clients (and helm's
 * kubeVersion) must see the truth.
 */
export function kubernetesVersionFlags(version: string): string {
  const [major = "", minor = ""] = version.replace(/^v/, "").split(".");
  const values = { gitVersion: version, gitMajor: major, gitMinor: minor, gitTreeState: "archive" };
  return ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"]
    .flatMap((pkg) => Object.entries(values).map(([name, value]) => `-X ${pkg}.${name}=${value}`))
    .join(" ");
}

/** What a cached build is filed under: anything that changes the binaries changes the key. */
export async function cacheKey(
  modules: readonly ToolModule[],
  platform: { os: string; arch: string } = { os: process.platform, arch: process.arch },
): Promise<string> {
  const hash = createHash("sha256");
  for (const module of modules) {
    const { tags, cgo } = module;
    hash.update(JSON.stringify([module.module, module.version, module.commands, module.ldflags]));
    if (tags !== undefined || cgo !== undefined) hash.update(JSON.stringify({ tags, cgo }));
    for (const file of ["go.mod", "go.sum"]) hash.update(await readFile(join(module.dir, file)));
  }
  const versions = modules.map((module) => `${shortName(module)}-${module.version}`).reverse();
  return [...versions, platform.os, platform.arch, hash.digest("hex").slice(0, 12)].join("-");
}

/** `kubernetes`, `etcd` or `containerd`: for people and for folder names. */
export function shortName(module: Pick<ToolModule, "module">): string {
  if (module.module === ETCD) return "etcd";
  return module.module.replace(/\/v\d+$/, "").replace(/^.*\//, "");
}
