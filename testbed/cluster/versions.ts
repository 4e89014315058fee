import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { MissingToolError } from "./missing.ts";

/** The Go modules of tools. Their go.mod files are the only place that states a version. */
export const TOOLS_DIR = join(import.meta.dirname, "tools");

/** One Go module of tools, and the commands that are built from it. */
export interface ToolModule {
  /** The folder with go.mod and go.sum. */
  readonly dir: string;
  /** The module whose version applies to all of the commands. */
  readonly module: string;
  /** The release of that module, with the leading `v`. */
  readonly version: string;
  /** The import path of each command, by the name of its binary. */
  readonly commands: Readonly<Record<string, string>>;
  /** Linker flags in one string. */
  readonly ldflags: string;
  /** Build tags, if any. */
  readonly tags?: string;
  /** Whether the build needs a C compiler. */
  readonly cgo?: boolean;
  /** A change of the sources. */
  readonly patch?: SourcePatch;
  /** Returns the published files that hold the commands, for an architecture as Go names it; none: they are built. */
  readonly release: (arch: string) => readonly ReleaseFile[];
}

/** Replaces a text that occurs once in a file of a module. */
export interface SourcePatch {
  /** The path below the import path of the module. */
  readonly file: string;
  readonly find: string;
  readonly replace: string;
}

/** One file of an official release. Addresses have no `https://`, so that a mirror can put its own base before them. */
export interface ReleaseFile {
  readonly address: string;
  /** The address of its published SHA-256: the digest alone, or a list as `sha256sum` writes it. */
  readonly checksums: string;
  /** The commands' paths in the archive, at most one folder deep. Without them, the file itself is the command. */
  readonly members?: readonly string[];
  /** The command's name, if the file itself is the command and has another name. */
  readonly command?: string;
}

/** The names of the control plane's binaries. */
export const CONTROL_PLANE = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"] as const;
export type ControlPlaneBinary = (typeof CONTROL_PLANE)[number];

export const KUBERNETES = "k8s.io/kubernetes";
const ETCD = "go.etcd.io/etcd/server/v3";

/** The minor version of Kubernetes for tests and commands, such as `1.30`. Defaults to the newest. */
export const MINOR_VARIABLE = "BERTH_TEST_KUBERNETES";

/** The folder of the newest version. Folders of older versions end in their minor version. */
const NEWEST_DIR = "kubernetes";
const OLDER_DIR = /^kubernetes-(\d+\.\d+)$/;

/**
 * Returns the minor versions that can be built, the oldest first. The oldest is the oldest version that Berth supports.
 */
export async function kubernetesMinors(toolsDir: string = TOOLS_DIR): Promise<string[]> {
  return [...(await kubernetesDirs(toolsDir)).keys()];
}

/** Returns the folder of each minor version's module, the oldest version first. */
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

/** Returns `1.36` for `v1.36.3`. */
export function minorOf(version: string): string {
  return version.replace(/^v/, "").split(".").slice(0, 2).join(".");
}

/**
 * Returns the modules to build, in build order. etcd comes first because it warms the cache for the standard library in
 * half a minute.
 * Throws MissingToolError for an unknown minor version.
 */
export async function toolModules(toolsDir: string = TOOLS_DIR, minor?: string): Promise<ToolModule[]> {
  const etcdDir = join(toolsDir, "etcd");
  const dirs = await kubernetesDirs(toolsDir);
  const kubernetesDir = minor ? dirs.get(minor) : join(toolsDir, NEWEST_DIR);
  if (kubernetesDir === undefined) {
    const known = [...dirs.keys()].join(", ");
    throw new MissingToolError(`Unknown Kubernetes version ${minor}: set ${MINOR_VARIABLE} to one of ${known}.`);
  }
  const etcdVersion = requiredVersion(await readFile(join(etcdDir, "go.mod"), "utf8"), ETCD);
  const kubernetesVersion = requiredVersion(await readFile(join(kubernetesDir, "go.mod"), "utf8"), KUBERNETES);
  const names = CONTROL_PLANE.filter((name) => name !== "etcd");
  return [
    {
      dir: etcdDir,
      module: ETCD,
      version: etcdVersion,
      commands: { etcd: ETCD },
      ldflags: "-s -w",
      release: (arch) => {
        const folder = `github.com/etcd-io/etcd/releases/download/${etcdVersion}`;
        const name = `etcd-${etcdVersion}-linux-${arch}`;
        return [{ address: `${folder}/${name}.tar.gz`, checksums: `${folder}/SHA256SUMS`, members: [`${name}/etcd`] }];
      },
    },
    {
      dir: kubernetesDir,
      module: KUBERNETES,
      version: kubernetesVersion,
      commands: Object.fromEntries(names.map((name) => [name, `${KUBERNETES}/cmd/${name}`])),
      ldflags: `-s -w ${kubernetesVersionFlags(kubernetesVersion)}`,
      release: (arch) => kubernetesRelease(kubernetesVersion, names, arch),
    },
  ];
}

/** Returns the version of a module that a go.mod file requires. Throws if it requires none. */
export function requiredVersion(goMod: string, module: string): string {
  for (const line of goMod.split("\n")) {
    const [name, version] = line
      .replace(/^\s*require\s+/, "")
      .trim()
      .split(/\s+/);
    if (name === module && version?.startsWith("v")) return version;
  }
  throw new Error(`go.mod has no version of ${module}`);
}

/**
 * A build from the module proxy knows no Git tag and would report `v0.0.0-master+$Format`. Clients (and helm's
 * kubeVersion) need the real version.
 */
export function kubernetesVersionFlags(version: string): string {
  const [major = "", minor = ""] = version.replace(/^v/, "").split(".");
  const values = { gitVersion: version, gitMajor: major, gitMinor: minor, gitTreeState: "archive" };
  return ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"]
    .flatMap((pkg) => Object.entries(values).map(([name, value]) => `-X ${pkg}.${name}=${value}`))
    .join(" ");
}

/** Returns the published files of some of Kubernetes' commands. */
export function kubernetesRelease(version: string, names: readonly string[], arch: string): ReleaseFile[] {
  return names.map((name) => {
    const address = `dl.k8s.io/release/${version}/bin/linux/${arch}/${name}`;
    return { address, checksums: `${address}.sha256` };
  });
}

/** Returns the key of a cached build. Anything that changes the binaries changes the key. */
export async function cacheKey(
  modules: readonly ToolModule[],
  platform: { os: string; arch: string } = { os: process.platform, arch: process.arch },
): Promise<string> {
  const hash = createHash("sha256");
  for (const module of modules) {
    const { tags, cgo, patch } = module;
    hash.update(JSON.stringify([module.module, module.version, module.commands, module.ldflags]));
    if (tags !== undefined || cgo !== undefined) hash.update(JSON.stringify({ tags, cgo }));
    if (patch !== undefined) hash.update(JSON.stringify(patch));
    for (const file of ["go.mod", "go.sum"]) hash.update(await readFile(join(module.dir, file)));
  }
  const versions = modules.map((module) => `${shortName(module)}-${module.version}`).reverse();
  return [...versions, platform.os, platform.arch, hash.digest("hex").slice(0, 12)].join("-");
}

/** Returns `kubernetes`, `etcd`, or `containerd`, for people and for folder names. */
export function shortName(module: Pick<ToolModule, "module">): string {
  if (module.module === ETCD) return "etcd";
  return module.module.replace(/\/v\d+$/, "").replace(/^.*\//, "");
}
