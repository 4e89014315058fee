import { describe, expect, test } from "vitest";
import { seededRandom } from "../../simulator/ids.ts";
import { NodeWatch } from "../../src/controller/node-watch.ts";
import { KubeApiError } from "../../src/kube/errors.ts";
import { NODES } from "../../src/kube/resource.ts";
import { createLogger } from "../../src/observe/logger.ts";
import { ApiServer } from "../sessions/loops/api-server.ts";
import { FakeKube } from "../sessions/loops/kube.ts";
import { FAIR, Link } from "../sessions/loops/network.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const MINUTE = 60_000;

/** Watches Nodes on a fake API server; `allow(false)` revokes the permission to read them. */
async function watching(options: { allowed?: boolean } = {}) {
  const clock = new VirtualClock();
  const random = seededRandom(1);
  const server = new ApiServer(clock);
  const link = new Link(clock, random, () => FAIR);
  const kube = new FakeKube({ server, link, clock, random, weather: () => ({ lagMs: 10, breaks: 0 }) });
  let allowed = options.allowed ?? true;
  kube.intercept.push(({ plural }) => {
    if (plural === "nodes" && !allowed)
      throw new KubeApiError("nodes is forbidden", { status: 403, reason: "Forbidden" });
  });
  const lines: { level: string; msg: string }[] = [];
  const logger = createLogger("debug", { write: (line: string) => void lines.push(JSON.parse(line)) });
  const changes: string[] = [];
  const nodes = new NodeWatch({ client: kube.client, clock, random, logger, onChange: (node) => changes.push(node) });
  const ending = new AbortController();
  const running = nodes.run(ending.signal);
  const node = (name: string, spec: Record<string, unknown> = {}) =>
    server.create(NODES, {
      metadata: { name, namespace: "", labels: { a: "b" } },
      spec,
      status: { images: ["large"] },
    });
  await clock.advance(1_000);
  return {
    clock,
    server,
    nodes,
    node,
    lines,
    changes,
    asked: () => kube.requests.get("list nodes") ?? 0,
    allow(now: boolean) {
      allowed = now;
    },
    async end() {
      ending.abort();
      await clock.advance(0);
      await running;
    },
  };
}

describe("with permission to read Nodes", () => {
  test("keeps a node's cordon and taints, and nothing else of it", async () => {
    const { nodes, node, clock, end } = await watching();
    node("a", { unschedulable: true, podCIDR: "10.0.0.0/24" });
    node("b", { taints: [{ key: "x", effect: "NoSchedule" }] });
    await clock.advance(1_000);
    expect(nodes.get("a")).toEqual({ unschedulable: true });
    expect(nodes.get("b")).toEqual({ taints: [{ key: "x", effect: "NoSchedule" }] });
    expect(nodes.get("c")).toBeUndefined();
    expect(nodes.get(undefined)).toBeUndefined();
    await end();
  });

  test("reports a changed cordon or taint, but not a heartbeat, which changes only the status", async () => {
    const { node, server, clock, changes, end } = await watching();
    node("a");
    await clock.advance(1_000);
    changes.length = 0;
    server.patch(NODES, "", "a", { status: { heartbeat: 1 } }, true);
    server.patch(NODES, "", "a", { metadata: { labels: { c: "d" } } });
    await clock.advance(1_000);
    expect(changes).toEqual([]);
    server.patch(NODES, "", "a", { spec: { unschedulable: true } });
    await clock.advance(1_000);
    expect(changes).toEqual(["a"]);
    await end();
  });
});

describe("without permission to read Nodes", () => {
  test("knows no node, logs it once, and lists again only from time to time", async () => {
    const { nodes, node, clock, lines, asked, end } = await watching({ allowed: false });
    node("a", { unschedulable: true });
    await clock.advance(60 * MINUTE);
    expect(nodes.get("a")).toBeUndefined();
    expect(lines.map(({ level, msg }) => [level, msg])).toEqual([
      ["info", expect.stringContaining("features.nodes=true")],
    ]);
    expect(asked()).toBeLessThan(150);
    await end();
  });

  test("detects a permission that is granted later", async () => {
    const { nodes, node, clock, allow, changes, end } = await watching({ allowed: false });
    node("a", { unschedulable: true });
    await clock.advance(MINUTE);
    allow(true);
    await clock.advance(6 * MINUTE);
    expect(nodes.get("a")).toEqual({ unschedulable: true });
    expect(changes).toContain("a");
    await end();
  });
});

test("ends with its signal, in any state", async () => {
  for (const allowed of [true, false]) {
    const { clock, end } = await watching({ allowed });
    await clock.advance(MINUTE);
    await end();
  }
});
