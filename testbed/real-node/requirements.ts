import { execFile } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { join } from "node:path";
import { delimiter } from "node:path/posix";
import { promisify } from "node:util";
import { MissingToolError } from "../cluster/missing.ts";

/** Debian's folder of the CNI plug-ins. */
export const CNI_PLUGINS = "/usr/lib/cni";

/** The programs that a node needs or that build its images, by Debian package. */
const PROGRAMS: Readonly<Record<string, readonly string[]>> = {
  runc: ["runc"],
  "containernetworking-plugins": [`${CNI_PLUGINS}/bridge`, `${CNI_PLUGINS}/host-local`, `${CNI_PLUGINS}/portmap`],
  iproute2: ["ip"],
  iptables: ["iptables"],
  conntrack: ["conntrack"],
  "util-linux": ["unshare", "nsenter"],
  mount: ["mount"],
  ethtool: ["ethtool"],
  socat: ["socat"],
  "busybox-static": ["busybox"],
  "python3-pip": ["pip3"],
  mmdebstrap: ["mmdebstrap"],
  buildah: ["buildah"],
  // containerd is built with cgo.
  gcc: ["gcc"],
  "libc6-dev": ["/usr/include/stdio.h"],
};

/** Many users who become root with `su` don't have sbin on their PATH. */
const SYSTEM_DIRS = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/** Returns a PATH that includes the system's programs. */
export function systemPath(path: string | undefined): string {
  return [...(path ?? "").split(delimiter), ...SYSTEM_DIRS].filter(Boolean).join(delimiter);
}

/** Returns the Debian packages whose programs are missing. */
export function missingPackages(path: string = systemPath(process.env["PATH"])): string[] {
  const dirs = path.split(delimiter);
  const isThere = (program: string) => {
    const candidates = program.startsWith("/") ? [program] : dirs.map((dir) => join(dir, program));
    return candidates.some(exists);
  };
  return Object.keys(PROGRAMS).filter((name) => !PROGRAMS[name]?.every(isThere));
}

/** Checks that a node can run on this machine. @throws MissingToolError with a message that says what to do */
export async function checkRequirements(): Promise<void> {
  if (process.platform !== "linux") {
    throw new MissingToolError(
      `A node needs Linux, and this is ${process.platform}. Use a cluster instead: docs/e2e.md.`,
    );
  }
  if (process.getuid?.() !== 0) {
    throw new MissingToolError(
      "A node needs root: it makes namespaces, mounts and control groups. Run this with sudo.",
    );
  }
  const missing = missingPackages();
  if (missing.length > 0) {
    throw new MissingToolError(
      `A node needs programs of these Debian packages: ${missing.join(", ")}. Install them with \`npm run setup:node\`.`,
    );
  }
  try {
    await promisify(execFile)("unshare", [...NAMESPACES, "true"], { env: { PATH: systemPath(process.env["PATH"]) } });
  } catch (error) {
    const said = error instanceof Error && "stderr" in error ? String(error.stderr).trim() : String(error);
    throw new MissingToolError(`A node needs its own namespaces, but this machine does not allow them: ${said}`);
  }
}

/** Flags of `unshare`. Everything in the namespaces ends with it. */
export const NAMESPACES = ["--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"] as const;

function exists(path: string): boolean {
  try {
    accessSync(path, constants.R_OK);
    return true;
  } catch {
    return false;
  }
}
