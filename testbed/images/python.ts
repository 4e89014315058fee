import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { findProgram, runProgram } from "./commands.ts";
import { BASE_PACKAGES, bootstrap, debianEntries } from "./debian.ts";
import { entriesKey, keyOf } from "./keys.ts";
import { difference, unpack } from "./layers.ts";
import type { LayerBlob } from "./oci.ts";
import type { LayerRecipe } from "./store.ts";
import type { TarEntry } from "./tar.ts";
import { directory, file, treeEntries } from "./tree.ts";

/** Increase this when the same inputs give a different result. */
const RECIPE = 1;
/** A package index may be slow. */
const TIMEOUT_MS = 300_000;
/** Wheels for these platforms run on the glibc of every Debian and Ubuntu with Python 3.11. */
const WHEEL_LIBCS = ["manylinux_2_17", "manylinux2014", "manylinux_2_28"];
const WHEEL_MACHINES: Readonly<Record<string, string>> = { x64: "x86_64", arm64: "aarch64" };
/** Where Debian's Python looks for packages that Debian doesn't install. */
const LOCAL = "usr/local/lib";
/** Files that depend on the installing machine: programs name its interpreter, and RECORD has their hashes. */
const NOT_PORTABLE = /^bin(\/|$)|\.dist-info\/(RECORD|INSTALLER|REQUESTED|direct_url\.json)$/;

/** Installs Debian's own Python on top of Debian. */
export function pythonRecipe(debian: LayerBlob): LayerRecipe {
  return {
    name: "python",
    key: keyOf("python", RECIPE, debian.digest),
    make: async (work) => {
      const upper = await bootstrap(join(work, "upper"), work, [...BASE_PACKAGES, "python3"]);
      await compile(upper, join("/usr/lib", await pythonName(upper)), "/usr/lib/python3/dist-packages");
      const lower = await unpack([debian], join(work, "lower"));
      return await difference(await debianEntries(upper), await debianEntries(lower));
    },
  };
}

/**
 * Installs the Python workers and the packages that they import, on top of Debian and Python.
 * @param worker the folder of the programs and their requirements.txt, where each package has a version and hashes
 */
export async function pythonWorkerRecipe(
  worker: string,
  below: readonly LayerBlob[],
  more: readonly TarEntry[],
): Promise<LayerRecipe> {
  const names = (await readdir(worker)).filter((name) => name.endsWith(".py"));
  const programs = await Promise.all(
    names.map(async (name) => file(`app/${name}`, await readFile(join(worker, name)))),
  );
  const requirements = await readFile(join(worker, "requirements.txt"), "utf8");
  const digests = below.map(({ digest }) => digest);
  return {
    name: "Python worker",
    key: keyOf("python worker", RECIPE, digests, requirements, entriesKey([...programs, ...more])),
    make: async (work) => {
      const root = await unpack(below, join(work, "root"));
      const python = await pythonName(root);
      const packages = join(LOCAL, python, "dist-packages");
      const list = join(work, "requirements.txt");
      await writeFile(list, requirements);
      await install(list, python.replace("python", ""), join(root, packages));
      await compile(root, join("/", packages));
      const without = (path: string) => NOT_PORTABLE.test(path);
      return [
        directory(join(LOCAL, python)),
        directory(packages),
        ...(await treeEntries(join(root, packages), { at: packages, without })),
        directory("app"),
        ...programs,
        ...more,
      ];
    },
  };
}

/** Returns the name of the only Python in a root file system, for example `python3.11`. */
async function pythonName(root: string): Promise<string> {
  const [name, another] = (await readdir(join(root, "usr", "lib"))).filter((file) => /^python3\.\d+$/.test(file));
  if (name === undefined || another !== undefined)
    throw new Error(`${root} must have exactly one Python, not ${name}, ${another}`);
  return name;
}

/**
 * Installs only wheels, each of which must match one of its hashes, so nothing is built or executed here. The machine's
 * pip downloads them with its own configuration.
 */
async function install(requirements: string, version: string, target: string): Promise<void> {
  const machine = WHEEL_MACHINES[process.arch] ?? process.arch;
  const args = [
    "install",
    ...["--require-hashes", "--only-binary=:all:", "--no-compile", "--no-cache-dir", "--disable-pip-version-check"],
    ...["--root-user-action=ignore", "--implementation=cp", `--python-version=${version}`],
    ...WHEEL_LIBCS.map((libc) => `--platform=${libc}_${machine}`),
    ...["--target", target, "--requirement", requirements],
  ];
  await runProgram(findProgram("pip3"), args, { timeoutMs: TIMEOUT_MS });
}

/**
 * Compiles the files in these folders with the root file system's own Python. Python trusts the results without a
 * check: by default it compares source times, which a layer changes, so a container with a read-only root would compile
 * the whole SDK at every start.
 */
async function compile(root: string, ...folders: readonly string[]): Promise<void> {
  const args = ["-m", "compileall", "-q", "-f", "--invalidation-mode", "unchecked-hash", ...folders];
  // Otherwise, Python hashes and orders sets differently in every process.
  const env = { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", PYTHONHASHSEED: "0" };
  await runProgram(findProgram("chroot"), [root, "/usr/bin/python3", ...args], { env });
}
