import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { ROOT } from "./lint-gate.ts";

const EXAMPLES = join(ROOT, "examples");
const read = (path: string) => readFile(join(EXAMPLES, path), "utf8");
const names = await readdir(join(EXAMPLES, "images"));
const files = await Promise.all(names.map(async (name) => ({ name, text: await read(`images/${name}`) })));

describe.each(files)("examples/images/$name", ({ name, text }) => {
  test("names every base by a tag that a build argument replaces, without a stale digest", () => {
    const bases = new Map(
      [...text.matchAll(/^ARG (\w+_IMAGE)=(\S+)$/gm)].map(([, arg = "", image = ""]) => [arg, image]),
    );
    expect(bases.size).toBeGreaterThan(0);
    for (const [arg, image] of bases) {
      expect(image, arg).toMatch(/^[a-z]+:[\w.-]+$/);
      expect(text).toContain(`${arg}=${image}@sha256:`);
    }
    const stages = [...text.matchAll(/^FROM \$\{(\w+)\}/gm)].map(([, arg = ""]) => arg);
    expect(stages.length).toBe([...text.matchAll(/^FROM /gm)].length);
    expect([...new Set(stages)].sort()).toEqual([...bases.keys()].sort());
  });

  test("runs as a numeric user that is not root and can write to the folders of sessions", () => {
    const [, user = ""] = /^USER (\d+):\d+$/m.exec(text) ?? [];
    expect(Number(user)).toBeGreaterThan(0);
    expect(text).toContain(`chown ${user}:${user} /workspace /mnt/memory`);
  });

  test("starts the program directly, so that SIGTERM reaches it", () => {
    expect(text).toMatch(/^CMD \["[^"]+"(, "[^"]+")*\]\n$/m);
    expect(text.trimEnd().split("\n").at(-1)).toMatch(/^CMD /);
    expect(text).not.toMatch(/^ENTRYPOINT/m);
  });

  test("copies existing files, and contains its build command", async () => {
    const program = /^ARG PROGRAM=(\S+)$/m.exec(text)?.[1] ?? "";
    const copied = [...text.matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap(([, paths = ""]) => paths.split(" "));
    for (const path of copied) {
      await expect(stat(join(EXAMPLES, path.replace("$" + "{PROGRAM}", program))), path).resolves.toBeDefined();
    }
    expect(text).toContain(`docker build -f examples/images/${name} `);
  });
});

test("images have the tested versions of the SDKs, of the bundler, and of all packages that those use", async () => {
  const [tested, inImage] = await Promise.all([lockOf(ROOT), lockOf(join(EXAMPLES, "worker"))]);
  const { "": manifest, ...packages } = inImage;
  expect(Object.keys(manifest?.dependencies ?? {})).toEqual(["@anthropic-ai/sdk", "rolldown"]);
  const integrityIn = (lock: Lock) => Object.keys(packages).map((path) => [path, lock[path]?.integrity]);
  expect(integrityIn(inImage)).toEqual(integrityIn(tested));
  expect(await read("worker-go/go.mod")).toMatch(
    /^require github\.com\/anthropics\/anthropic-sdk-go\/v2 v2\.\d+\.\d+$/m,
  );
});

/** What a package-lock.json says of each package, by its path. */
type Lock = Readonly<
  Record<string, { readonly integrity?: string; readonly dependencies?: Readonly<Record<string, string>> }>
>;

async function lockOf(folder: string): Promise<Lock> {
  return (JSON.parse(await readFile(join(folder, "package-lock.json"), "utf8")) as { packages: Lock }).packages;
}
