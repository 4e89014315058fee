import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { findClientTools } from "../../testbed/cluster/client-tools.ts";
import { writePlugin } from "../../tools/kubectl-plugin/main.ts";
import { ROOT } from "./lint-gate.ts";

const SOURCE = "https://forge.example/owner/berth";
/** A build and a download, on a busy machine. */
const BUILD_TIMEOUT_MS = 120_000;
/** kubectl starts Node, which loads 9 MB. */
const RUN_TIMEOUT_MS = 60_000;

const { version } = JSON.parse(await readFile(join(ROOT, "package.json"), "utf8")) as { version: string };
const run = promisify(execFile);

let dir: string;
let kubectl: string;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "berth-plugin-"));
  kubectl = join(await findClientTools(), "kubectl");
  await writePlugin(join(dir, "bin"), SOURCE);
}, BUILD_TIMEOUT_MS);
afterAll(() => rm(dir, { recursive: true, force: true }));

interface Result {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

function started(file: string, args: readonly string[], path: readonly string[] = []): Promise<Result> {
  const env = { PATH: [...path, dirname(process.execPath), process.env["PATH"]].join(delimiter), HOME: dir };
  return run(file, args, { env }).then(
    ({ stdout, stderr }) => ({ code: 0, out: stdout, err: stderr }),
    ({ code, stdout, stderr }) => ({ code, out: stdout, err: stderr }),
  );
}

const plugin = (...args: readonly string[]) => started(kubectl, ["berth", ...args], [join(dir, "bin")]);
const checkout = (...args: readonly string[]) => started(process.execPath, [join(ROOT, "bin/berth.mjs"), ...args]);

describe("kubectl berth", { timeout: RUN_TIMEOUT_MS }, () => {
  test("is a plugin that kubectl finds on PATH, and prints Berth's version", async () => {
    expect(await plugin("version")).toEqual({ code: 0, out: `${version}\n`, err: "" });
    const list = await started(kubectl, ["plugin", "list"], [join(dir, "bin")]);
    expect(list.out).toContain(join(dir, "bin", "kubectl-berth"));
  });

  test("has the commands that only read, and shows them as people type them", async () => {
    const { code, out, err } = await plugin();
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err).toBe(
      "kubectl berth: name a command: doctor, explain, template, version or help\n" +
        "usage: kubectl berth <doctor|explain|template|version|help> [flags]\n",
    );
    for (const name of ["run", "uninstall", "simulator"])
      expect((await plugin(name)).err).toContain(`kubectl berth: unknown command '${name}'`);
    expect((await plugin("explain", "--help")).out).toMatch(/^Usage: kubectl berth explain <session/);
  });

  test("shows the same objects for an Environment as a checkout", async () => {
    const args = ["template", "-f", join(ROOT, "examples/environments/minimal.yaml")];
    const shown = await plugin(...args);
    expect(shown).toEqual(await checkout(...args));
    expect(shown.out).toMatch(/^kind: Pod$/m);
  });

  describe("with a cluster", () => {
    let api: Server;
    const asked: string[] = [];
    let kubeconfig: string;

    beforeAll(async () => {
      api = createServer((request, response) => {
        asked.push(`${request.headers["user-agent"]?.split("/")[0]} ${request.headers.authorization}`);
        const status = {
          kind: "Status",
          apiVersion: "v1",
          status: "Failure",
          reason: "Forbidden",
          code: 403,
          message: "no",
        };
        response.writeHead(403, { "content-type": "application/json" }).end(JSON.stringify(status));
      });
      await new Promise<void>((listening) => api.listen(0, "127.0.0.1", listening));
      kubeconfig = join(dir, "kubeconfig");
      const server = `http://127.0.0.1:${(api.address() as AddressInfo).port}`;
      const config = {
        "current-context": "it",
        contexts: [{ name: "it", context: { cluster: "it", user: "it" } }],
        clusters: [{ name: "it", cluster: { server } }],
        users: [{ name: "it", user: { token: "of-the-kubeconfig" } }],
      };
      await writeFile(kubeconfig, JSON.stringify(config));
    });
    afterAll(() => api.close());

    test.each([
      { args: ["doctor"], code: 0, said: "0 failed" },
      { args: ["explain", "session_1"], code: 1, said: "session_1" },
    ])("$args asks it, and reports what a checkout does", async ({ args, code, said }) => {
      asked.length = 0;
      const reported = await plugin(...args, "--kubeconfig", kubeconfig);
      expect(new Set(asked)).toEqual(new Set([`berth-${args[0]} Bearer of-the-kubeconfig`]));
      const other = await checkout(...args, "--kubeconfig", kubeconfig);
      expect(reported).toEqual({ ...other, err: other.err.replace(/^berth: /, "kubectl berth: ") });
      expect(reported).toMatchObject({ code });
      expect(reported.out + reported.err).toContain(said);
    });
  });

  test("reports the fix to an old Node", async () => {
    // The preloaded module makes the file see an old version.
    const old = `Object.defineProperty(process, "versions", { value: { ...process.versions, node: "20.1.0" } });`;
    const preload = `data:text/javascript,${encodeURIComponent(old)}`;
    const { code, err } = await started(process.execPath, ["--import", preload, join(dir, "bin/kubectl-berth")]);
    expect(code).toBe(1);
    expect(err).toMatch(/^kubectl berth: needs Node 24 or newer; this is Node 20\.1\.0 \(.+\)\.\nInstall Node 24 /);
  });
});

describe("the files of a release", () => {
  test("have a manifest for krew with the digest of the archive, which holds the plugin and the license", async () => {
    const { metadata, spec } = parse(await readFile(join(dir, "bin/krew.yaml"), "utf8"));
    expect([metadata.name, spec.version, spec.homepage]).toEqual(["berth", `v${version}`, SOURCE]);
    const [{ uri, sha256, bin }] = spec.platforms;
    const [, name = ""] = uri.split(`${SOURCE}/releases/download/v${version}/`);
    const archive = join(dir, "bin", name);
    expect(sha256).toBe(
      createHash("sha256")
        .update(await readFile(archive))
        .digest("hex"),
    );
    const unpacked = join(dir, "unpacked");
    await mkdir(unpacked);
    await run("tar", ["-xzf", archive, "-C", unpacked]);
    expect((await stat(join(unpacked, bin))).mode & 0o777).toBe(0o755);
    const same = (await readFile(join(unpacked, bin))).equals(await readFile(join(dir, "bin/kubectl-berth")));
    expect(same).toBe(true);
    expect(await readFile(join(unpacked, "LICENSE"), "utf8")).toContain("Apache License");
  });

  test("hold the licenses of the packages in the plugin, no operator, and no path of the builder's machine", async () => {
    const text = await readFile(join(dir, "bin/kubectl-berth"), "utf8");
    for (const name of ["@kubernetes/client-node", "commander", "undici", "yaml", "zod"]) {
      const { version: ofPackage } = JSON.parse(
        await readFile(join(ROOT, "node_modules", name, "package.json"), "utf8"),
      );
      expect(text.split(`${name} ${ofPackage} (`), name).toHaveLength(2);
    }
    const parts = ["// src/doctor/doctor.ts", "// src/operator.ts", "// src/console/", ROOT];
    expect(parts.filter((part) => text.includes(part))).toEqual(["// src/doctor/doctor.ts"]);
  });
});
