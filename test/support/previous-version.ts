/** The version before this one, from the repository's history: its operator as a process, and its manifests. */
import { execFile } from "node:child_process";
import { mkdtemp, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const ROOT = join(import.meta.dirname, "..", "..");

/**
 * The last commit of that version: it has `parking: Key` and `Init`, and no waiting shells. docs/releasing.md says when
 * to replace it.
 */
const COMMIT = "e63ffd7636cdb9e6be2205e38857d5570e172d7a";

/** What its operator needs to run as a process (operator-process.ts), and its manifests. */
const PATHS = [
  "package.json",
  "src",
  "deploy",
  ...["operator-main", "operator-process", "sudden-death"].map((name) => `test/support/${name}.ts`),
];

/**
 * Why that version can't be had, for skipping a test; undefined: it can.
 * @throws {Error} in CI, which must not skip it
 */
export async function previousVersionMissing(): Promise<string | undefined> {
  try {
    await run("git", ["cat-file", "-e", `${COMMIT}^{commit}`], { cwd: ROOT });
    return undefined;
  } catch {
    const message = `no commit ${COMMIT} in this clone: fetch the whole history (git fetch --unshallow)`;
    if (process.env["CI"] === "true") throw new Error(message);
    return message;
  }
}

/** A folder with that version, which uses this checkout's packages. */
export interface PreviousVersion extends AsyncDisposable {
  /** The root of its sources. */
  readonly root: string;
  /** Its manifests, with the CRD in `crds`. */
  readonly deploy: string;
}

export async function unpackPreviousVersion(): Promise<PreviousVersion> {
  const root = await mkdtemp(join(tmpdir(), "berth-previous-"));
  const archive = join(root, "sources.tar");
  await run("git", ["archive", "--output", archive, COMMIT, ...PATHS], { cwd: ROOT });
  await run("tar", ["-xf", archive, "-C", root]);
  await symlink(join(ROOT, "node_modules"), join(root, "node_modules"));
  return {
    root,
    deploy: join(root, "deploy"),
    [Symbol.asyncDispose]: () => rm(root, { recursive: true, force: true }),
  };
}
