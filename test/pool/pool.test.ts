import { expect, test } from "vitest";
import { ANNOTATION_NEEDS } from "../../src/api/names.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import type { Pod } from "../../src/kube/resource.ts";
import { Breaker } from "../../src/pods/breaker.ts";
import { Pool } from "../../src/pool/pool.ts";
import { Removals } from "../../src/pool/removal.ts";
import { ClaimTable } from "../../src/protocol/claim-table.ts";
import { pod } from "../pods/pods.ts";
import { claimOf } from "../protocol/claims.ts";
import { type Answer, FakeKube, refusal } from "../reconcile/fake-kube.ts";
import { claimSecret, fakeContext } from "../sessions/fake-context.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const NEW = pod({ phase: "Pending", containerStatuses: [] }, { spec: { nodeName: "" } });

const free = (name: string, status: Pod["status"] = {}) =>
  pod(
    {
      containerStatuses: [
        {
          name: "worker",
          state: { waiting: { reason: "CreateContainerConfigError", message: `secret "${name}" not found` } },
        },
      ],
      ...status,
    },
    {
      metadata: {
        ...{ name, uid: `${name}-uid`, creationTimestamp: new Date(new VirtualClock().now()).toISOString() },
        annotations: { "berth.dev/session-container": "worker", [ANNOTATION_NEEDS]: "[]" },
        labels: { "berth.dev/phase": "parked" },
      },
    },
  );

/** A pool that keeps one Pod, with these Pods in the cache. */
function poolOf(pods: readonly Pod[], answer: Answer) {
  const clock = new VirtualClock();
  const kube = new FakeKube(answer, clock);
  const claims = new ClaimTable();
  const sessions = {
    ...{ maxConcurrent: 1, warm: 1, parkedMaxAgeSeconds: 0, prepareTimeoutSeconds: 600, warmScaleDownSeconds: 300 },
    workspace: "Ephemeral",
  };
  const context = fakeContext({
    clock,
    kube: kube.client,
    pods: {
      list: () => pods,
      parked: () => pods,
      get: (name: string) => pods.find((each) => each.metadata.name === name),
    },
    podPolicy: {},
    nodeOutlook: () => "stays",
    environment: () => ({ spec: { sessions } }),
    template: () => ({ hash: "", needs: [], render: () => NEW }),
  });
  const pool: Pool = new Pool({
    context,
    claims,
    breaker: new Breaker(DEFAULT_TIMING),
    removals: new Removals({ context, onForeignSlot: () => {} }),
    streams: { keep: () => null, isReachable: () => true, problemOf: () => null },
    takeVolume: async () => {
      throw new Error("no volumes here");
    },
    onChange: () => pool.poke(),
  });
  const ending = new AbortController();
  const run = async (ms: number) => {
    pool.start(ending.signal);
    await clock.advance(ms);
    ending.abort();
    await clock.advance(1_000);
    await pool.ended();
  };
  const created = (plural: string) =>
    kube.calls.filter((call) => call.verb === "create" && call.plural === plural).map(({ ref }) => ref.name);
  return { pool, kube, claims, run, created };
}

test("creates no Pod before that is allowed", async () => {
  const { run, created } = poolOf([], () => NEW);
  await run(10_000);
  expect(created("pods")).toEqual([]);
});

test("retries refused creations with backoff", async () => {
  const { pool, run, created } = poolOf([], () => refusal(422, "Invalid", "no"));
  pool.allowCreation(true);
  await run(4 * DEFAULT_TIMING.prepareBackoffBaseMs);
  expect(created("pods").length).toBeGreaterThan(1);
  expect(created("pods").length).toBeLessThan(6);
});

test("keeps a Pod that is claimed while others are removed", async () => {
  const over = free("over", { phase: "Failed" });
  const { pool, claims, run, created } = poolOf([over, free("parked")], ({ verb, plural, ref }) => {
    if (verb === "create" && ref.name === "over") claims.add(claimOf({ name: "parked" } as never));
    if (plural === "pods" && verb === "get") return over;
    return plural === "secrets" ? claimSecret({ use: "removal" }) : {};
  });
  pool.drain();
  await run(1_000);
  expect(created("secrets")).toEqual(["over"]);
});

test.each([
  ["was evicted", { phase: "Failed", reason: "Evicted", message: "disk pressure" }, null],
  ["failed to start", { phase: "Failed", message: "no such command" }, "preparing"],
])("reports a problem, or none, for a free Pod that %s", async (_, status, problem) => {
  const over = free("over", { ...status, containerStatuses: [] });
  const { pool, run } = poolOf([over], ({ plural, verb }) => {
    if (plural === "pods" && verb === "get") return over;
    return plural === "secrets" ? claimSecret({ use: "removal" }) : {};
  });
  await run(1_000);
  expect(pool.problem()?.is ?? null).toBe(problem);
});
