import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import { newCredential } from "../../../simulator/ids.ts";
import type { NodeControl, NodeState } from "../../../testbed/real-node/control-protocol.ts";
import { serveControl } from "../../../testbed/real-node/control-server.ts";
import { LeakSearch } from "../../support/leak-search.ts";
import { recordCredentials } from "./credentials-seen.ts";
import { everyCredential, everyPlace, PLACES, type PlaceKind } from "./leaks.ts";
import type { SeenProcess } from "./process-watch.ts";
import type { E2eWorld } from "./world.ts";

const KEY = newCredential("sk-ant-oat01");
const POD = "0f6f1f3e-1111-2222-3333-444455556666";
const SANDBOXED = ["ANTHROPIC_ENVIRONMENT_ID=env_01", `ANTHROPIC_WORK_SECRET=${KEY}`];

/** An empty run, which contains only what a test adds. */
interface Run {
  readonly files?: Readonly<Record<string, string>>;
  readonly processes?: readonly SeenProcess[];
  readonly objects?: Readonly<Record<string, object>>;
  readonly labels?: Readonly<Record<string, string>>;
}

/** The places where the key is found. */
async function search({ files = {}, processes = [], objects = {}, labels = {} }: Run): Promise<[PlaceKind, string][]> {
  const dir = await mkdtemp(join(tmpdir(), "berth-leaks-"));
  const socket = join(dir, "control");
  const state = { logs: join(dir, "node/logs"), auditLog: join(dir, "cluster/audit.log") } as NodeState;
  const control = await serveControl({ state: async () => state } as NodeControl, socket);
  try {
    const written = {
      "cluster/audit.log": "",
      ...files,
      processes: processes.map((one) => JSON.stringify(one)).join("\n"),
    };
    for (const [file, text] of Object.entries(written)) {
      await mkdir(dirname(join(dir, file)), { recursive: true });
      await writeFile(join(dir, file), text);
    }
    await recordCredentials(dir, [KEY]);
    const lists: Record<string, unknown> = {
      "/apis": { groups: [{ preferredVersion: { groupVersion: "apps/v1" } }] },
      "/api/v1": { resources: ["pods", "secrets", "pods/log"].map(resource) },
      "/apis/apps/v1": { resources: ["deployments"].map(resource) },
    };
    const items = (path: string) => (objects[path] ? [{ metadata: { name: "one" }, ...objects[path] }] : null);
    const world = {
      cluster: { dir, nodeControl: socket },
      simulator: { credentials: async () => [] },
      kube: { raw: async (_verb: string, path: string) => lists[path] ?? { items: items(path) } },
      operators: { samples: async () => [{ name: "berth_up", metric: "berth_up", labels, value: 1 }] },
    } as unknown as E2eWorld;
    const places = await everyPlace(world);
    const leaks = new LeakSearch(await everyCredential(world));
    return PLACES.flatMap((kind) => leaks.find(places[kind]).map(({ where }): [PlaceKind, string] => [kind, where]));
  } finally {
    control.close();
    await rm(dir, { recursive: true });
  }
}

const resource = (name: string) => ({ name, kind: name === "secrets" ? "Secret" : name, verbs: ["list"] });

describe("a key is found", () => {
  test.each<[string, PlaceKind, Run]>([
    ["in the log of an operator, even of a deleted one", "logs", { files: { "operator-logs/berth-1.log": KEY } }],
    ["in the log of a program of the node", "logs", { files: { "node/logs/kubelet.log": `I1125 key=${KEY}` } }],
    ["in the log of the API server", "logs", { files: { "cluster/logs/kube-apiserver.log": `I1125 key=${KEY}` } }],
    ["in the API server's audit log", "logs", { files: { "cluster/audit.log": `{"requestURI":"/?key=${KEY}"}` } }],
    ["in a container's output", "containers", { files: { [`pod-logs/agents_one_${POD}/worker/0.log`]: KEY } }],
    ["in the arguments of a process", "processes", { processes: [{ arguments: ["runc", KEY], variables: [] }] }],
    [
      "in the environment of a process of the node",
      "processes",
      { processes: [{ arguments: ["containerd"], variables: SANDBOXED }] },
    ],
    [
      "in another variable of a sandbox",
      "processes",
      { processes: [{ pod: POD, arguments: ["worker"], variables: [...SANDBOXED, `OTHER=${KEY}`] }] },
    ],
    [
      "in the environment of a Pod that is not a sandbox",
      "processes",
      { processes: [{ pod: POD, arguments: ["berth"], variables: [`ANTHROPIC_ENVIRONMENT_KEY=${KEY}`] }] },
    ],
    ["in an object", "objects", { objects: { "/api/v1/pods": { spec: { env: [{ value: KEY }] } } } }],
    ["in an object of another group", "objects", { objects: { "/apis/apps/v1/deployments": { spec: { key: KEY } } } }],
    ["in a label of a metric", "metrics", { labels: { key: KEY } }],
  ])("%s", async (_where, kind, run) => {
    const found = await search(run);
    expect(found.map(([where]) => where)).toEqual([kind]);
  });
});

describe("a key is ignored", () => {
  test.each<[string, Run]>([
    ["in Secrets", { objects: { "/api/v1/secrets": { data: { key: KEY } } } }],
    [
      "in the sandbox variable that is meant for it",
      { processes: [{ pod: POD, arguments: ["worker"], variables: SANDBOXED }] },
    ],
    [
      "in the simulator's output about its own key",
      { files: { [`pod-logs/berth-e2e-simulator_simulator_${POD}/simulator/0.log`]: KEY } },
    ],
  ])("%s", async (_where, run) => {
    expect(await search(run)).toEqual([]);
  });
});
