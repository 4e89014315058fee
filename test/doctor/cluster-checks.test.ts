import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { realClock } from "../../src/core/clock.ts";
import { checkApiServer, OLDEST_KUBERNETES } from "../../src/doctor/cluster-checks.ts";
import { KubeClient } from "../../src/kube/client.ts";
import { loadKubeConfig } from "../../src/kube/config.ts";
import { KubeApiError } from "../../src/kube/errors.ts";
import { ROOT } from "../project/lint-gate.ts";

/** An API server with this answer to GET /version. */
const apiServerWith = (answer: () => unknown) => ({ raw: async () => answer() }) as unknown as KubeClient;

describe("the API server", () => {
  test.each([
    ["1", "36", "pass"],
    ["1", "30", "pass"],
    ["1", "30+", "pass"],
    ["2", "0", "pass"],
    ["1", "29", "fail"],
    ["0", "36", "fail"],
    ["", "", "fail"],
  ])("with version %j.%j: %s", async (major, minor, status) => {
    const result = await checkApiServer(apiServerWith(() => ({ major, minor, gitVersion: `v${major}.${minor}.0` })));
    expect(result).toMatchObject({ check: "api-server", about: "cluster", status });
  });

  test.each([
    [0, "fail", /this machine can reach it/],
    [401, "fail", /Log in again/],
    [403, "skip", null],
  ])("that answers with %s: %s", async (status, expected, fix) => {
    const result = await checkApiServer(
      apiServerWith(() => {
        throw new KubeApiError("GET /version: it said no", { status });
      }),
    );
    expect(result.status).toBe(expected);
    if (fix === null) expect(result.message).toMatch(/^not checked: needs get \/version/);
    else expect(result.fix).toMatch(fix);
  });

  test.each([
    ["does not exist", "no-such-plug-in", [], /credentials for the API server: spawn no-such-plug-in ENOENT$/],
    ["wants a login", process.execPath, ["-e", "console.error('log in again'); process.exit(1)"], /: log in again$/],
  ])("is not called if the credential plug-in %s, which is reported once", async (_, command, args, message) => {
    const folder = await mkdtemp(join(tmpdir(), "berth-doctor-"));
    const path = join(folder, "config");
    const exec = { apiVersion: "client.authentication.k8s.io/v1", command, args };
    const config = {
      "current-context": "x",
      clusters: [{ name: "c", cluster: { server: "https://cluster.invalid" } }],
      users: [{ name: "u", user: { exec } }],
      contexts: [{ name: "x", context: { cluster: "c", user: "u" } }],
    };
    await writeFile(path, JSON.stringify(config));
    const kube = new KubeClient({ access: loadKubeConfig(path), clock: realClock });
    const result = await checkApiServer(kube);
    await kube.close();
    await rm(folder, { recursive: true });
    expect(result).toMatchObject({ status: "fail", fix: expect.stringMatching(/^Log in again, .*plug-in/) });
    expect(result.message).toMatch(message);
    expect(result.message).not.toMatch(/log in again.*log in again/);
  });

  test("fails if it returns some other page", async () => {
    expect(await checkApiServer(apiServerWith(() => "<html>"))).toMatchObject({ status: "fail" });
  });

  test("may be as old as the chart allows", async () => {
    const { kubeVersion } = parse(await readFile(join(ROOT, "charts/berth/Chart.yaml"), "utf8"));
    expect(kubeVersion).toBe(`>=${OLDEST_KUBERNETES.major}.${OLDEST_KUBERNETES.minor}.0-0`);
  });
});
