import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { FINALIZER } from "../../src/api/names.ts";
import { type UninstallReport, uninstall } from "../../src/commands/uninstall.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { renderJournal } from "../../src/protocol/journal.ts";
import { FakeApiServer, send, sendStatus } from "../kube/api-server.ts";

const ENVIRONMENT = "/apis/berth.dev/v1alpha1/namespaces/agents/environments/research";
const CLAIM = "/api/v1/namespaces/agents/secrets/berth-research-x";

let server: FakeApiServer;
let folder: string;

beforeEach(async () => {
  server = await FakeApiServer.start();
  folder = await mkdtemp(join(tmpdir(), "berth-uninstall-"));
  const cluster = { name: "c", cluster: { server: server.access.server } };
  const context = { name: "c", context: { cluster: "c", user: "u" } };
  const user = { name: "u", user: { token: "t" } };
  const config = { clusters: [cluster], contexts: [context], users: [user], "current-context": "c" };
  await writeFile(join(folder, "config"), JSON.stringify(config));
});

afterEach(async () => {
  await server[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

function uninstallAll(deployment?: { namespace: string; name: string }): Promise<UninstallReport> {
  const settings = {
    kubeconfig: join(folder, "config"),
    kubeEnvironment: {},
    proxy: {},
    namespaces: ["agents"],
    deployment,
    deleteEnvironments: true,
    drainSeconds: 0,
    output: "text" as const,
  };
  return uninstall(settings, { logger: silentLogger });
}

/** An Environment that is being deleted and did not drain. It is gone as soon as its finalizer is. */
function putUndrained(): void {
  const deletionTimestamp = "2026-01-02T03:04:05Z";
  server.put(ENVIRONMENT, {
    metadata: { name: "research", namespace: "agents", uid: "u", deletionTimestamp, finalizers: [FINALIZER] },
  });
  server.scripts.push(({ method, path }, response) => {
    if (path !== ENVIRONMENT || method === "GET") return false;
    if (method === "PATCH") server.remove(ENVIRONMENT);
    send(response, 200, { metadata: { name: "research", uid: "u" } });
    return true;
  });
  const where = { name: "berth-research-x", namespace: "agents", environment: "research" };
  const journal = { use: "session", lease: "Worker", environmentUid: "u", podUid: "p", queuedAt: "" } as const;
  const item = { workId: "work_1", sessionId: "sesn_1", polledFromMs: 0, polledUntilMs: 0 };
  server.put(CLAIM, renderJournal(where, { ...journal, ...item }, "credential"));
}

test.each(["GET", "DELETE"])(
  "deletes claim records before their Environment, so that a repeat after a refused %s of Secrets finds them again",
  async (refused) => {
    putUndrained();
    let isRefused = true;
    server.scripts.unshift(({ method, path }, response) => {
      if (!isRefused || method !== refused || !path.startsWith("/api/v1/namespaces/agents/secrets")) return false;
      sendStatus(response, 500, "InternalError", "etcdserver: leader changed");
      return true;
    });
    expect((await uninstallAll()).problem).toContain("leader changed");
    isRefused = false;
    expect((await uninstallAll()).problem).toBeNull();
    expect([server.read(ENVIRONMENT), server.read(CLAIM)]).toEqual([undefined, undefined]);
  },
);

test("an Environment that can't be changed doesn't keep the others, and is named", async () => {
  const other = ENVIRONMENT.replace("research", "batch");
  for (const [path, name] of [
    [ENVIRONMENT, "research"],
    [other, "batch"],
  ] as const)
    server.put(path, { metadata: { name, namespace: "agents", uid: name, finalizers: [FINALIZER] } });
  server.scripts.push(({ method, path }, response) => {
    if (path === ENVIRONMENT && method === "PATCH") sendStatus(response, 403, "Forbidden", "denied by policy guard");
    else if (method === "DELETE") send(response, 200, { metadata: {} });
    else return false;
    return true;
  });
  const { ok, problem, released } = await uninstallAll();
  expect([ok, released]).toEqual([false, ["agents/batch"]]);
  expect(problem).toMatch(/^agents\/research: .*denied by policy guard/);
});

test("a finalizer that another client adds meanwhile is kept", async () => {
  server.put(ENVIRONMENT, { metadata: { name: "research", namespace: "agents", uid: "u", finalizers: [FINALIZER] } });
  let patches = 0;
  server.scripts.push(({ method, path }, response) => {
    if (path === ENVIRONMENT && method === "DELETE") {
      send(response, 200, { metadata: { name: "research", uid: "u" } });
      return true;
    }
    if (path !== ENVIRONMENT || method !== "PATCH") return false;
    patches += 1;
    const metadata = { name: "research", namespace: "agents", uid: "u", finalizers: [FINALIZER, "example.org/theirs"] };
    if (patches === 1) server.put(ENVIRONMENT, { metadata });
    return false;
  });
  expect((await uninstallAll()).problem).toBeNull();
  expect(server.read(ENVIRONMENT)?.metadata.finalizers).toEqual(["example.org/theirs"]);
});

test("a 404 from a proxy before the API server does not count as a missing CRD", async () => {
  server.scripts.push(({ path }, response) => {
    if (!path.startsWith("/apis")) return false;
    if (path === "/apis") send(response, 200, { groups: [{ name: "berth.dev" }] });
    else sendStatus(response, 404, "", "page not found");
    return true;
  });
  expect((await uninstallAll()).problem).toContain("page not found");
});

test("an operator's Pod that was evicted, and stays as Failed, does not count as running", async () => {
  const [namespace, name] = ["berth-system", "berth-operator"];
  const spec = { replicas: 1, selector: { matchLabels: { app: name } }, template: { spec: { containers: [] } } };
  server.put(`/apis/apps/v1/namespaces/${namespace}/deployments/${name}`, { metadata: { name, namespace }, spec });
  const pod = { metadata: { name: `${name}-1`, namespace, labels: { app: name } }, status: { phase: "Failed" } };
  server.put(`/api/v1/namespaces/${namespace}/pods/${name}-1`, pod);
  server.scripts.push(({ method, path }, response) => {
    if (method !== "PATCH" || !path.endsWith("/scale")) return false;
    send(response, 200, { metadata: { name, namespace }, spec: { replicas: 0 } });
    return true;
  });
  expect(await uninstallAll({ namespace, name })).toMatchObject({ problem: null, stopped: true });
});
