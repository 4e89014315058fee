import { mkdtempDisposable, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { stringify } from "yaml";
import { FINALIZER } from "../../src/api/names.ts";
import { uninstall } from "../../src/commands/uninstall.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { FakeApiServer, type Script, sendStatus } from "../kube/api-server.ts";
import { type CliResult, cliRun } from "../support/cli-run.ts";

const ENVIRONMENTS = "/apis/berth.dev/v1alpha1/namespaces/agents/environments";

/** Runs one command line with `-o json` against an API server; undefined: against a port without a listener. */
async function berth(server: FakeApiServer | undefined, ...argv: string[]): Promise<CliResult> {
  await using folder = await mkdtempDisposable(join(tmpdir(), "berth-reports-"));
  const kubeconfig = join(folder.path, "config");
  await writeFile(kubeconfig, stringify(configOf(server?.access.server ?? "http://127.0.0.1:1")));
  const seams = { logger: silentLogger };
  return await cliRun([...argv, "-o", "json", `--kubeconfig=${kubeconfig}`], {
    commands: { uninstall: (settings) => uninstall(settings, seams) },
  });
}

function configOf(server: string): object {
  return {
    apiVersion: "v1",
    kind: "Config",
    "current-context": "x",
    clusters: [{ name: "c", cluster: { server } }],
    users: [{ name: "u", user: { token: "test-token" } }],
    contexts: [{ name: "x", context: { cluster: "c", user: "u" } }],
  };
}

/** Refuses requests of a method for paths with this ending. */
function forbid(server: FakeApiServer, method: string, pathEnd: string): void {
  const refuse: Script = (seen, response) => {
    if (seen.method !== method || !seen.path.endsWith(pathEnd)) return false;
    sendStatus(response, 403, "Forbidden", `${seen.method} ${seen.path} is forbidden`);
    return true;
  };
  server.scripts.push(refuse);
}

/** Creates two Environments with the operator's finalizer. */
function putEnvironments(server: FakeApiServer): void {
  for (const name of ["one", "two"]) {
    server.put(`${ENVIRONMENTS}/${name}`, { metadata: { name, namespace: "agents", finalizers: [FINALIZER] } });
  }
}

const CHECK = ["doctor", "--deployment=berth-system/berth-operator", "--timeout-seconds=0"];

test("doctor of a Deployment reports a cluster that does not answer, and exits with 1", async () => {
  const { code, out, err } = await berth(undefined, ...CHECK);
  expect({ code, err }).toEqual({ code: 1, err: "" });
  expect(JSON.parse(out).counts).toEqual({ pass: 0, warn: 0, fail: 3, skip: 0 });
  expect(out).toContain("ECONNREFUSED");
});

test("doctor of a Deployment fails without permission to read it", async () => {
  await using server = await FakeApiServer.start();
  forbid(server, "GET", "/deployments/berth-operator");
  const { code, out } = await berth(server, ...CHECK);
  expect(code).toBe(1);
  expect(JSON.parse(out).problems).toContainEqual(
    expect.objectContaining({ about: ["deployment berth-system/berth-operator"], message: "it is forbidden" }),
  );
});

test.each([
  ["--deployment=berth-operator", "--deployment: write the Deployment as NAMESPACE/NAME"],
  ["--timeout-seconds=soon", "--timeout-seconds: write whole seconds"],
])("doctor %s exits with 2, the fix and its usage line", async (flag, message) => {
  const { code, err } = await berth(undefined, "doctor", flag);
  expect(code).toBe(2);
  expect(err).toContain(message);
  expect(err).toContain("usage: berth doctor ");
});

test("uninstall from a cluster that does not answer reports that nothing was done, and exits with 1", async () => {
  const { code, out, err } = await berth(undefined, "uninstall", "--delete-environments");
  expect(code).toBe(1);
  const report = JSON.parse(out);
  expect(report).toEqual({
    ok: false,
    stopped: false,
    deleted: [],
    undrained: [],
    released: [],
    problem: expect.stringContaining("ECONNREFUSED"),
  });
  expect(err).toBe(`berth: ${report.problem}\n`);
});

test("uninstall that can't remove a finalizer reports the Environments released before", async () => {
  await using server = await FakeApiServer.start();
  putEnvironments(server);
  forbid(server, "PATCH", "/environments/two");
  const { code, out } = await berth(server, "uninstall", "--namespace=agents");
  expect(code).toBe(1);
  expect(JSON.parse(out)).toMatchObject({
    ok: false,
    deleted: [],
    released: ["agents/one"],
    problem: expect.stringContaining("environments/two is forbidden"),
  });
});

test("uninstall that may not delete an Environment reports those deleted before", async () => {
  await using server = await FakeApiServer.start();
  putEnvironments(server);
  forbid(server, "DELETE", "/environments/two");
  const { code, out } = await berth(server, "uninstall", "--namespace=agents", "--delete-environments");
  expect(code).toBe(1);
  expect(JSON.parse(out)).toMatchObject({
    ok: false,
    deleted: ["agents/one"],
    released: [],
    problem: expect.stringContaining("environments/two is forbidden"),
  });
});

test("reports contain no credential from an answer of the API server", async () => {
  await using server = await FakeApiServer.start();
  server.scripts.push((_seen, response) => {
    sendStatus(response, 403, "Forbidden", "no such user: sk-ant-secretsecret");
    return true;
  });
  const { out, err } = await berth(server, "uninstall", "--namespace=agents");
  expect(JSON.parse(out).problem).toContain("sk-ant-[redacted]");
  expect(out + err).not.toContain("secretsecret");
});
