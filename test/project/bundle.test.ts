import { execFile, spawn } from "node:child_process";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { builtinModules } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import { type OutputAsset, type OutputChunk, rolldown } from "rolldown";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { LICENCES_FILE, packageFolder } from "../../tools/bundle/licences.ts";
import config from "../../tools/bundle/rolldown.config.ts";
import { freePort } from "../support/free-port.ts";
import { ROOT } from "./lint-gate.ts";

/** rolldown takes most of this on a busy machine. */
const BUILD_TIMEOUT_MS = 120_000;

let dir: string;
let chunks: OutputChunk[];
let assets: OutputAsset[];

beforeAll(async () => {
  // The same layout as in the image: package.json and bin are beside the bundle.
  dir = await mkdtemp(join(tmpdir(), "berth-bundle-"));
  for (const path of ["bin", "package.json"]) await cp(join(ROOT, path), join(dir, path), { recursive: true });
  const bundle = await rolldown(config);
  const { output } = await bundle.write({ ...config.output, dir: join(dir, "dist") });
  await bundle.close();
  chunks = output.filter((part) => part.type === "chunk");
  assets = output.filter((part) => part.type === "asset");
}, BUILD_TIMEOUT_MS);
afterAll(() => rm(dir, { recursive: true, force: true }));

/** All modules that are loaded together with a file, without dynamic imports. */
function loadedWith(fileName: string): string[] {
  const seen = new Set<string>();
  const add = (name: string) => {
    const chunk = chunks.find(({ fileName }) => fileName === name);
    if (chunk === undefined || seen.has(name)) return;
    seen.add(name);
    chunk.imports.forEach(add);
  };
  add(fileName);
  return chunks.filter(({ fileName }) => seen.has(fileName)).flatMap(({ moduleIds }) => moduleIds);
}

describe("the bundle", () => {
  test("needs nothing but Node", async () => {
    const known = new Set([...chunks.map(({ fileName }) => fileName), ...builtinModules]);
    const asked = chunks.flatMap(({ imports, dynamicImports }) => [...imports, ...dynamicImports]);
    expect(asked.filter((name) => !known.has(name.replace(/^node:/, "")))).toEqual([]);
    const { version } = JSON.parse(await readFile(join(ROOT, "package.json"), "utf8"));
    const { stdout } = await promisify(execFile)(process.execPath, [join(dir, "bin/berth.mjs"), "version"]);
    expect(stdout).toBe(`${version}\n`);
  });

  test(
    "runs the credential plug-in of a kubeconfig with the client library",
    async () => {
      const apiVersion = "client.authentication.k8s.io/v1";
      const credential = { apiVersion, kind: "ExecCredential", status: { token: "of-the-plug-in" } };
      const exec = { apiVersion, command: "echo", args: [JSON.stringify(credential)], interactiveMode: "Never" };
      // Nothing listens there, so with a credential the connection fails.
      const server = `https://127.0.0.1:${await freePort()}`;
      const kubeconfig = {
        "current-context": "it",
        contexts: [{ name: "it", context: { cluster: "it", user: "it" } }],
        clusters: [{ name: "it", cluster: { server } }],
        users: [{ name: "it", user: { exec } }],
      };
      const file = join(dir, "kubeconfig");
      await writeFile(file, JSON.stringify(kubeconfig));
      const flags = ["--kubeconfig", file, "--leader-elect=false", "--metrics-bind-address", "0"];
      const args = [join(dir, "bin/berth.mjs"), "run", ...flags, "--health-probe-bind-address", "127.0.0.1:0"];
      const env = { PATH: process.env["PATH"] };
      const child = spawn(process.execPath, args, { stdio: ["ignore", "ignore", "pipe"], env });
      try {
        const failures: string[] = [];
        for await (const line of createInterface({ input: child.stderr })) {
          const { msg, error } = JSON.parse(line);
          if (msg !== "list of a reflector failed") continue;
          failures.push(error);
          break;
        }
        expect(failures).toEqual([expect.stringContaining("ECONNREFUSED")]);
      } finally {
        child.kill("SIGKILL");
      }
    },
    BUILD_TIMEOUT_MS,
  );

  test("has no part of the protocol's model", () => {
    const all = chunks.flatMap(({ moduleIds }) => moduleIds);
    expect(all).toContain(join(ROOT, "src/sessions/session-loop.ts"));
    expect(all.filter((id) => id.startsWith(join(ROOT, "model")))).toEqual([]);
  });

  test("loads neither the client library nor undici's parts for browsers at its start", () => {
    const atStart = loadedWith("main.js");
    expect(atStart).toContain(join(ROOT, "node_modules/undici/lib/dispatcher/agent.js"));
    const heavy = ["@kubernetes/client-node", "undici/index.js", "undici/lib/mock", "undici/lib/web/websocket"];
    for (const path of heavy) expect(atStart.filter((id) => id.includes(`node_modules/${path}`))).toEqual([]);
  });

  test("loads other commands only when they run", () => {
    const all = chunks.flatMap(({ moduleIds }) => moduleIds);
    const atStart = loadedWith("main.js");
    for (const path of ["doctor/doctor.ts", "explain/gather.ts", "commands/preview.ts"]) {
      expect(all).toContain(join(ROOT, "src", path));
      expect(atStart).not.toContain(join(ROOT, "src", path));
    }
  });

  test(
    "has the commands that read Environments, and reports that it lacks the simulator",
    async () => {
      const berth = (...argv: string[]) => promisify(execFile)(process.execPath, [join(dir, "bin/berth.mjs"), ...argv]);
      const environment = join(ROOT, "examples/environments/minimal.yaml");
      expect((await berth("template", "-f", environment)).stdout).toMatch(/^apiVersion: v1\nkind: Pod\n/);
      const missing = ["--kubeconfig", join(dir, "no-kubeconfig")];
      for (const looking of [["doctor"], ["explain", "session_1"]]) {
        await expect(berth(...looking, ...missing)).rejects.toMatchObject({
          code: 2,
          stderr: expect.stringMatching(/^berth: cannot read kubeconfig/),
        });
      }
      await expect(berth("simulator")).rejects.toMatchObject({
        code: 1,
        stderr: expect.stringMatching(/^berth: the simulator is not part of the image/),
      });
    },
    BUILD_TIMEOUT_MS,
  );

  test("has only one-byte characters, so that it stays small in memory", () => {
    expect(chunks.filter(({ code }) => /[^\0-\xff]/.test(code)).map(({ fileName }) => fileName)).toEqual([]);
  });

  test("contains the license of every package in it", async () => {
    const licences = String(assets.find(({ fileName }) => fileName === LICENCES_FILE)?.source);
    const folders = new Set(chunks.flatMap(({ moduleIds }) => moduleIds.flatMap((id) => packageFolder(id) ?? [])));
    expect(folders.size).toBeGreaterThan(10);
    for (const folder of folders) {
      const { name, version } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
      const [, part = ""] = licences.split(`${name} ${version} (`);
      expect(part.slice(0, 400), folder).toMatch(/licen[cs]e|copyright|permission is hereby|public domain/i);
    }
  });
});
