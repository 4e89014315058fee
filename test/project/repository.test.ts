import { execFile } from "node:child_process";
import { readdir, readFile, stat } from "node:fs/promises";
import { join, relative } from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { ROOT } from "./lint-gate.ts";

/** The lock file that npm writes. */
interface LockFile {
  readonly packages: Readonly<
    Record<string, { readonly link?: boolean; readonly integrity?: string; readonly resolved?: string }>
  >;
}
interface Manifest {
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
  readonly scripts: Readonly<Record<string, string>>;
}

const readJson = async <T>(path: string) => JSON.parse(await readFile(join(ROOT, path), "utf8")) as T;

/** Larger files are data that no person reads. */
const MAX_READ_BYTES = 2 * 2 ** 20;

const run = promisify(execFile);

/** Every file in the repository or about to be added: git's list, without the files in .gitignore. */
async function repositoryFiles(): Promise<string[]> {
  const list = ["ls-files", "--cached", "--others", "--exclude-standard", "-z"];
  const paths = await run("git", list, { cwd: ROOT, maxBuffer: 16 * 2 ** 20 }).then(
    ({ stdout }) => stdout.split("\0").filter((path) => path !== ""),
    allFiles,
  );
  const sizes = await Promise.all(
    paths.map((path) =>
      stat(join(ROOT, path)).then(
        ({ size }) => size,
        () => undefined,
      ),
    ),
  );
  return paths.filter((_, index) => (sizes[index] ?? Number.POSITIVE_INFINITY) <= MAX_READ_BYTES);
}

/** Without git, as in an unpacked archive. */
async function allFiles(): Promise<string[]> {
  const left = /(^|\/)(node_modules|dist|coverage|\.git|\.tmp|\.pages)(\/|$)/;
  const entries = await readdir(ROOT, { recursive: true, withFileTypes: true });
  const paths = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  return paths.map((path) => relative(ROOT, path)).filter((path) => !left.test(path));
}

/**
 * Paths of a developer's machine and hosts of registries. The parts are joined so that this file passes its own test.
 */
const FORBIDDEN: readonly RegExp[] = [
  new RegExp(`(?<![\\w.~-])/${"root"}/`),
  new RegExp(`(?<![\\w.~-])/${"work"}/(main|shared|\\.)`),
  new RegExp(`/tmp/${"bash"}|/tmp/${"brief"}`),
  new RegExp(`(?<![\\w.~-])/${"home"}/(?!berth\\b|node\\b|agent\\b|worker\\b|sandbox\\b)[a-z]`),
  new RegExp(`/${"Users"}/[a-z]`),
  new RegExp(`registry\\.${"npmjs"}\\.org|registry\\.${"yarnpkg"}\\.com|proxy\\.${"golang"}\\.org`),
];

test("the patterns for forbidden paths and hosts match them", () => {
  const found = (line: string) => FORBIDDEN.some((form) => form.test(line));
  const parts = [
    ["see /", "root/x"],
    ["cd /", "work/main"],
    ["'/ho", "me/somebody/x'"],
    ["/Us", "ers/x"],
    ["https://registry.", "npmjs.org/x"],
  ];
  for (const pair of parts) expect(found(pair.join("")), pair.join("")).toBe(true);
  for (const line of [
    "api/root/x",
    "./work/main.ts",
    "src/work/types.ts",
    "https://registry.example.com/x",
    "$HOME/x",
  ]) {
    expect(found(line), line).toBe(false);
  }
});

describe("no file of the repository", () => {
  test("names a path of a developer's machine or the host of a package registry", async () => {
    const findings: string[] = [];
    for (const path of await repositoryFiles()) {
      const text = await readFile(join(ROOT, path), "utf8");
      for (const [index, line] of text.split("\n").entries()) {
        if (FORBIDDEN.some((form) => form.test(line))) findings.push(`${path}:${index + 1}: ${line.slice(0, 160)}`);
      }
    }
    expect(findings).toEqual([]);
  });

  test("holds a credential that looks real", async () => {
    const findings: string[] = [];
    for (const path of await repositoryFiles()) {
      const text = await readFile(join(ROOT, path), "utf8");
      // Real keys are long. Those of tests and examples are short or say that they are fake.
      for (const [found] of text.matchAll(/sk-ant-[a-z0-9]+-[A-Za-z0-9_-]{60,}/g)) findings.push(`${path}: ${found}`);
      if (/-----BEGIN (RSA |EC )?PRIVATE KEY-----\n[A-Za-z0-9+/]/.test(text)) findings.push(`${path}: a private key`);
    }
    expect(findings).toEqual([]);
  });

  test("ends a line with white space, or lacks its last line break", async () => {
    const findings: string[] = [];
    for (const path of await repositoryFiles()) {
      if (!/\.(ts|mjs|md|json|ya?ml|grit)$|(^|\/)(Dockerfile|\.\w+ignore)$/.test(path)) continue;
      const text = await readFile(join(ROOT, path), "utf8");
      if (/[ \t]$/m.test(text)) findings.push(`${path}: blanks at the end of a line`);
      if (text !== "" && !text.endsWith("\n")) findings.push(`${path}: no line break at the end`);
    }
    expect(findings).toEqual([]);
  });
});

/**
 * The packages of the repository by folder. The site has its own, so that the operator has none of its dependencies.
 */
describe.each(["", "site/"])("dependencies of %spackage.json", (folder) => {
  const declared = async () => {
    const { dependencies, devDependencies, optionalDependencies } = await readJson<Manifest>(`${folder}package.json`);
    return { ...dependencies, ...devDependencies, ...optionalDependencies };
  };

  test("are pinned to one version each", async () => {
    for (const [name, version] of Object.entries(await declared())) {
      expect(version, name).toMatch(/^\d+\.\d+\.\d+(-[\w.]+)?$/);
    }
  });

  test("are each explained in the decision record", async () => {
    const record = await readFile(join(ROOT, "docs/decisions/0001-dependencies.md"), "utf8");
    const [main = "", site = ""] = record.split("\nFor the site alone");
    const explained = [...(folder === "" ? main : site).matchAll(/^\| `([^`]+)`/gm)].map(([, name]) => name);
    expect(explained.sort()).toEqual(Object.keys(await declared()).sort());
  });

  test("are all locked with an integrity hash and without a registry", async () => {
    const { packages } = await readJson<LockFile>(`${folder}package-lock.json`);
    for (const [path, { integrity, resolved, link }] of Object.entries(packages)) {
      if (path === "" || link) continue;
      expect(integrity, path).toMatch(/^sha512-/);
      expect(resolved, path).toBeUndefined();
    }
  });

  test("run no scripts when they are installed", async () => {
    const settings = await readFile(join(ROOT, `${folder}.npmrc`), "utf8");
    if (/^ignore-scripts=true$/m.test(settings)) return;
    const { packages } = await readJson<{
      packages: Record<string, { hasInstallScript?: boolean; optional?: boolean }>;
    }>(`${folder}package-lock.json`);
    const scripted = Object.entries(packages).filter(([, { hasInstallScript }]) => hasInstallScript);
    // fsevents is for macOS only and contains its binary.
    expect(scripted.map(([path]) => path).filter((path) => !path.endsWith("/fsevents"))).toEqual([]);
  });
});

describe("links of the documentation", () => {
  test("lead to existing files", async () => {
    const dead: string[] = [];
    const files = await repositoryFiles();
    for (const path of files.filter((file) => file.endsWith(".md"))) {
      const text = (await readFile(join(ROOT, path), "utf8")).replaceAll(/```[\s\S]*?```/g, "");
      for (const [, target = ""] of text.matchAll(/\]\(([^)\s#]+)(?:#[^)]*)?\)/g)) {
        if (/^[a-z]+:/.test(target)) continue;
        const linked = join(path, "..", target);
        const exists = files.some((file) => file === linked || file.startsWith(`${linked.replace(/\/$/, "")}/`));
        if (!exists) dead.push(`${path}: ${target}`);
      }
    }
    expect(dead).toEqual([]);
  });
});

describe("npm scripts", () => {
  test("each check for a recent Node, and explain how to get one", async () => {
    const { scripts } = await readJson<Manifest>("package.json");
    for (const [name, script] of Object.entries(scripts)) {
      expect(script.startsWith("node tools/check-node.mjs && "), name).toBe(true);
    }
    // The Node of this test is recent. The next test simulates an old one.
    await run(process.execPath, [join(ROOT, "tools/check-node.mjs")]);
  });

  test.each(["tools/check-node.mjs", "bin/berth.mjs"])("%s reports the fix to an old Node", async (script) => {
    // The preloaded module makes the file see an old version.
    const old = `Object.defineProperty(process, "versions", { value: { ...process.versions, node: "20.1.0" } });`;
    const preload = `data:text/javascript,${encodeURIComponent(old)}`;
    const started = run(process.execPath, ["--import", preload, join(ROOT, script)]);
    await expect(started).rejects.toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/needs Node 24 or newer; this is Node 20\.1\.0 \(.+\)\.\n.*npm/),
    });
  });
});

describe("the image", () => {
  test("is based on the tested Node, and runs as a numeric user that is not root", async () => {
    const dockerfile = await readFile(join(ROOT, "Dockerfile"), "utf8");
    const [, base = ""] = /^ARG NODE_IMAGE=(\S+)$/m.exec(dockerfile) ?? [];
    // No digest: without daily checks it would pin a base with known faults, and an invented one would be useless.
    expect(base).toBe(`node:${process.versions.node.split(".")[0]}-slim`);
    const stages = [...dockerfile.matchAll(/^FROM (?:--platform=\S+ )?(\S+)/gm)].map(([, image]) => image);
    expect(new Set(stages), "one argument gives every stage another base").toEqual(new Set([`$\{NODE_IMAGE}`]));
    // A release has two platforms and no emulator, so only a stage on the builder's platform may run anything.
    const [build = "", last = ""] = dockerfile.split(/^FROM /m).slice(1);
    expect(build).toMatch(/^--platform=\$BUILDPLATFORM /);
    expect(last).not.toMatch(/^RUN /m);
    const [user] = [...dockerfile.matchAll(/^USER (\d+):\d+$/gm)].map(([, id]) => Number(id));
    expect(user).toBeGreaterThan(0);
    expect(dockerfile).toMatch(
      /^ENTRYPOINT \["node", "--max-semi-space-size=8", "\/app\/bin\/berth\.mjs"\]\nCMD \["run"\]$/m,
    );
  });

  test("copies only existing files that .dockerignore allows", async () => {
    const dockerfile = await readFile(join(ROOT, "Dockerfile"), "utf8");
    const allowed = (await readFile(join(ROOT, ".dockerignore"), "utf8")).split("\n");
    const copied = [...dockerfile.matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap(([, paths = ""]) =>
      paths.split(" "),
    );
    expect(copied).toContain("src");
    for (const path of copied) {
      await expect(stat(join(ROOT, path)), path).resolves.toBeDefined();
      expect(allowed).toContain(`!${path}`);
    }
  });
});
