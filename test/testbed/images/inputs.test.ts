import { chmod, lstat, mkdir, readFile, readlink, symlink, writeFile } from "node:fs/promises";
import { delimiter, dirname, join } from "node:path";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { MissingToolError } from "../../../testbed/cluster/missing.ts";
import { distribution } from "../../../testbed/images/apt-sources.ts";
import { findProgram, runProgram } from "../../../testbed/images/commands.ts";
import { finalConfig, type PerformOptions, performDockerfile } from "../../../testbed/images/dockerfile.ts";
import { importedModules } from "../../../testbed/images/modules.ts";
import { copyContext } from "../../../testbed/images/operator.ts";
import { lockedClosure, packageEntries } from "../../../testbed/images/packages.ts";
import { temporaryDir } from "../cluster/temporary.ts";

const ROOT = join(import.meta.dirname, "..", "..", "..");

/** Creates a folder with these files. */
async function folder(files: Readonly<Record<string, string>>): Promise<string> {
  const root = await temporaryDir();
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), text);
  }
  return root;
}

describe("the package sources of a machine", () => {
  const release = { "os-release": 'ID=debian\nVERSION_CODENAME="trixie"\n' };

  test("are read from one-line files, without third-party sources", async () => {
    const etc = await folder({
      ...release,
      "apt/sources.list": [
        "# deb http://old.example trixie main",
        "deb [arch=amd64 signed-by=/k.gpg] http://a.example/debian trixie main contrib # ours",
        "deb-src http://a.example/debian trixie main",
      ].join("\n"),
      "apt/sources.list.d/security.list": "deb http://b.example/security trixie-security main\n",
      "apt/sources.list.d/vendor.list": "deb http://c.example stable main\n",
      "apt/sources.list.d/vendor.list.disabled": "deb http://d.example trixie main\n",
      "apt/sources.list.d/extra.list": "deb http://e.example trixie-extra tools\n",
    });
    expect(await distribution(etc)).toEqual({
      codename: "trixie",
      sources: [
        "deb [arch=amd64 signed-by=/k.gpg] http://a.example/debian trixie main contrib",
        "deb http://b.example/security trixie-security main",
      ],
    });
  });

  test("are read from deb822 files, with every suite of every stanza", async () => {
    const etc = await folder({
      ...release,
      "apt/sources.list.d/debian.sources": [
        "Types: deb deb-src",
        "# a comment",
        "URIs: http://a.example/debian",
        "Suites: trixie",
        "  trixie-updates",
        "Components: main",
        "Signed-By: /usr/share/keyrings/debian.gpg",
        "",
        "Types: deb",
        "Enabled: no",
        "URIs: http://off.example",
        "Suites: trixie",
        "Components: main",
        "",
        "Types: deb",
        "URIs: http://inline.example",
        "Suites: trixie",
        "Components: main",
        "Signed-By:",
        " -----BEGIN PGP PUBLIC KEY BLOCK-----",
        "",
      ].join("\n"),
    });
    expect((await distribution(etc))?.sources).toEqual([
      "deb [signed-by=/usr/share/keyrings/debian.gpg] http://a.example/debian trixie main",
      "deb [signed-by=/usr/share/keyrings/debian.gpg] http://a.example/debian trixie-updates main",
      "deb http://inline.example trixie main",
    ]);
  });

  test.each([
    ["has no apt", release],
    ["does not say its release", { "apt/sources.list": "deb http://a.example trixie main\n" }],
  ])("are unknown if the machine %s", async (_, files: Record<string, string>) => {
    expect(await distribution(await folder(files))).toBeUndefined();
  });
});

describe("a program", () => {
  test("that is missing is reported with the package that contains it", () => {
    expect(() => findProgram("mmdebstrap", { PATH: "/nowhere" })).toThrow(MissingToolError);
    expect(() => findProgram("mmdebstrap", { PATH: "/nowhere" })).toThrow("apt-get install mmdebstrap");
  });

  test("that fails is an error with the end of its output", async () => {
    const failing = runProgram("/bin/sh", ["-c", "echo one; echo two >&2; exit 3"]);
    await expect(failing).rejects.toThrow(/\/bin\/sh -c failed:\none\ntwo$/);
  });
});

describe("the packages of an image", () => {
  const locked = {
    "node_modules/a": { dependencies: { b: "1", "@s/c": "1" } },
    "node_modules/a/node_modules/b": { dependencies: { d: "1" } },
    "node_modules/b": {},
    "node_modules/@s/c": { peerDependencies: { d: "1", absent: "1" } },
    "node_modules/d": {},
    "node_modules/unused": {},
  };

  test("are those that it imports and their dependencies, as Node finds them", () => {
    expect(lockedClosure(locked, ["a"])).toEqual([
      "node_modules/@s/c",
      "node_modules/a",
      "node_modules/a/node_modules/b",
      "node_modules/d",
    ]);
  });

  test("must be in the lock file", () => {
    expect(() => lockedClosure(locked, ["e"])).toThrow("the lock file does not contain e, which this project needs");
  });

  test("must be installed as in the lock file", async () => {
    const lock = (integrity: string) => JSON.stringify({ packages: { "node_modules/a": { integrity } } });
    const root = await folder({
      "package-lock.json": lock("sha512-new"),
      "node_modules/.package-lock.json": lock("sha512-old"),
      "node_modules/a/index.js": "",
    });
    await expect(packageEntries(root, ["a"], "app")).rejects.toThrow(MissingToolError);
    await writeFile(join(root, "node_modules/.package-lock.json"), lock("sha512-new"));
    expect((await packageEntries(root, ["a"], "app")).map(({ path }) => path)).toEqual([
      "app/node_modules",
      "app/node_modules/a",
      "app/node_modules/a/index.js",
    ]);
  });
});

describe("the modules of a program", () => {
  test("are its static imports and their imports, without types", async () => {
    const root = await folder({
      "program/main.ts": [
        'import { a } from "./a.ts";',
        "import {",
        "  type B,",
        "  b,",
        '} from "../src/b.ts";',
        'import type { C } from "./types.ts";',
        'import "side-effect";',
        'import { readFile } from "node:fs/promises";',
        'export * from "@scope/name/deep/file";',
        'const text = `from "./not.ts"`;',
      ].join("\n"),
      "program/a.ts": 'import { b } from "../src/b.ts";\nexport type { C } from "./types.ts";\n',
      "src/b.ts": 'import { z } from "zod";\n',
    });
    const { files, packages } = await importedModules(root, "program/main.ts");
    expect([...files.keys()].sort()).toEqual(["program/a.ts", "program/main.ts", "src/b.ts"]);
    expect(packages).toEqual(["@scope/name", "side-effect", "zod"]);
  });

  test("of the simulator don't need the operator's Kubernetes packages", async () => {
    const { files, packages } = await importedModules(ROOT, "simulator/main.ts");
    expect(files.has("simulator/server.ts")).toBe(true);
    expect(packages).toContain("zod");
    expect(packages).not.toContain("@kubernetes/client-node");
  });
});

describe("a Dockerfile that is executed here", () => {
  const dockerfile = [
    "ARG BASE=base",
    "FROM $BASE AS build",
    "WORKDIR /build",
    "COPY package.json ./",
    "RUN npm ci --offline",
    "COPY src src",
    "FROM $BASE",
    "ENV A=1 B=2",
    "WORKDIR /app",
    "COPY --from=build /build/node_modules node_modules",
    "COPY src src",
    "USER 5:6",
    "EXPOSE 1 2",
    'ENTRYPOINT ["node", "x"]',
    'CMD ["run"]',
  ].join("\n");
  const project = {
    Dockerfile: dockerfile,
    ".dockerignore": "*\n!package.json\n!src\n",
    "package.json": '{"name":"x","version":"1.0.0"}',
    "src/a.js": "",
    "secret.txt": "not for the image",
  };

  test("defines in its last stage how containers start", () => {
    expect(finalConfig(dockerfile)).toEqual({
      user: "5:6",
      env: { A: "1", B: "2" },
      workdir: "/app",
      entrypoint: ["node", "x"],
      cmd: ["run"],
      ports: [1, 2],
    });
  });

  test("only gets the files that .dockerignore allows", async () => {
    const context = await copyContext(await folder(project), join(await temporaryDir(), "context"));
    await expect(lstat(join(context, "src/a.js"))).resolves.toBeDefined();
    await expect(lstat(join(context, "secret.txt"))).rejects.toThrow("ENOENT");
  });

  test("installs once per lock file if installs are kept, and otherwise each time", async () => {
    const bin = await folder({
      npm: '#!/bin/sh\necho "$*" >> "$COUNT"\nmkdir node_modules\ncat package.json > node_modules/made\n',
    });
    await chmod(join(bin, "npm"), 0o755);
    const count = join(bin, "count");
    vi.stubEnv("PATH", [bin, process.env["PATH"]].join(delimiter));
    vi.stubEnv("COUNT", count);
    onTestFinished(() => void vi.unstubAllEnvs());
    const root = await folder(project);
    const installs = join(await temporaryDir(), "installs");
    const made = async (options: PerformOptions) => {
      const image = await performDockerfile(root, await temporaryDir(), options);
      return await readFile(join(image.root, "app/node_modules/made"), "utf8");
    };
    const runs = async () => (await readFile(count, "utf8")).trimEnd().split("\n").length;
    expect(await made({ installs })).toBe(project["package.json"]);
    // Files that are copied after the install don't matter.
    await writeFile(join(root, "src/a.js"), "changed");
    expect(await made({ installs })).toBe(project["package.json"]);
    expect(await runs()).toBe(1);
    await writeFile(join(root, "package.json"), '{"name":"y"}');
    expect(await made({ installs })).toBe('{"name":"y"}');
    expect(await runs()).toBe(2);
    await made({});
    expect(await runs()).toBe(3);
  });

  test("copies symbolic links unchanged, not as paths of this machine", async () => {
    const root = await folder({ ...project, Dockerfile: "FROM base\nCOPY src src\n" });
    await symlink("a.js", join(root, "src/link.js"));
    const image = await performDockerfile(root, await temporaryDir());
    expect(await readlink(join(image.root, "src/link.js"))).toBe("a.js");
    const context = await copyContext(root, join(await temporaryDir(), "context"));
    expect(await readlink(join(context, "src/link.js"))).toBe("a.js");
  });
});
