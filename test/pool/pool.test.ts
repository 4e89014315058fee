import { expect, test } from "vitest";
import { ANNOTATION_NEEDS } from "../../src/api/names.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import type { Pod } from "../../src/kube/resource.ts";
import { Pool } from "../../src/pool/pool.ts";
import { capacityVerdict } from "../../src/protocol/capacity-problem.ts";
import { ClaimTable } from "../../src/protocol/claim-table.ts";
import { DepartingPods } from "../../src/sleep/departing-pods.ts";
import { Removals } from "../../src/sleep/removal.ts";
import { SessionVolumes } from "../../src/sleep/session-volumes.ts";
import { pod } from "../pods/pods.ts";
import { claimOf } from "../protocol/claims.ts";
import { type Answer, FakeKube, refusal } from "../reconcile/fake-kube.ts";
import { claimSecret, fakeContext } from "../sessions/fake-context.ts";
import { keeperPod } from "../support/keeper-pods.ts";
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
        labels: { "berth.dev/phase": "warm" },
      },
    },
  );

/** A pool that keeps `warm` Pods, with these Pods in the cache. No attach to the Pod `unattached` succeeds. */
function poolOf(pods: readonly Pod[], answer: Answer, unattached = "", warm = 1, made = NEW) {
  const kept: string[][] = [];
  const failures: string[] = [];
  const clock = new VirtualClock();
  const startedMs = clock.monotonic();
  const kube = new FakeKube(answer, clock);
  const claims = new ClaimTable();
  const sessions = {
    ...{ maxConcurrent: warm, warm, parkedMaxAgeSeconds: 0, prepareTimeoutSeconds: 600 },
    workspace: "Ephemeral",
  };
  const context = fakeContext({
    clock,
    kube: kube.client,
    pods: {
      list: () => pods,
      warm: () => pods,
      get: (name: string) => pods.find((each) => each.metadata.name === name),
    },
    podPolicy: {},
    nodeOutlook: () => "stays",
    environment: () => ({ spec: { sessions } }),
    template: () => ({ hash: "", needs: [], parking: { mode: "Key" }, render: () => made }),
    shellFailed: (message: string) => failures.push(message),
    sleepFailed: (message: string) => failures.push(message),
  });
  const pool: Pool = new Pool({
    context,
    claims,
    departing: new DepartingPods({
      context,
      removals: new Removals({ context, onForeignSlot: () => {}, report: { ended: () => {} } }),
      onStays: (name) => pool.leave(name),
      onChange: () => pool.poke(),
    }),
    turns: { keep: () => null, add: () => {} },
    streams: {
      keep: (waiting) => {
        kept.push(waiting.map(({ metadata }) => metadata.name ?? ""));
        return null;
      },
      isReachable: ({ metadata }) => metadata.name !== unattached,
      unreachableMs: () => clock.monotonic() - startedMs,
      isDoubtful: () => false,
      problemOf: ({ metadata }) => (metadata.name === unattached ? "error dialing backend" : null),
    },
    volumes: new SessionVolumes(context, () => {}),
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
  return { pool, kube, claims, run, created, kept, failures };
}

test("creates no Pod before that is allowed", async () => {
  const { run, created } = poolOf([], () => NEW);
  await run(10_000);
  expect(created("pods")).toEqual([]);
});

test.each([
  ["PodLevelResourcesNotSupported", undefined],
  ["OutOfmemory", { limits: { memory: "2Gi" } }],
])("creates Pods without limits of the whole Pod only if a kubelet has refused them: %s", async (reason, resources) => {
  const container = { resources: { limits: { memory: "2Gi" } } };
  const made = keeperPod({ name: "new", namespace: "agents", container });
  const refused = free("refused", { phase: "Failed", reason, containerStatuses: [] });
  const pods = [refused];
  const answer: Answer = ({ plural, verb }) => {
    if (verb === "delete") pods.length = 0;
    if (plural === "secrets") return claimSecret({ use: "removal" });
    return verb === "get" ? refused : made;
  };
  const { pool, kube, run } = poolOf(pods, answer, "", 1, made);
  pool.allowCreation(true);
  await run(2 * DEFAULT_TIMING.prepareBackoffBaseMs);
  const sent = kube.calls.filter(({ verb, plural }) => verb === "create" && plural === "pods");
  expect(sent.map(({ body }) => (body as Pod).spec["resources"])).toContainEqual(resources);
});

test.each([
  ["half a second later if another Pod waits", { waiting: 1, demand: 0 }, { early: 0, late: 1 }],
  ["at once if no Pod waits", { waiting: 0, demand: 0 }, { early: 2, late: 2 }],
  ["at once if more items wait than Pods", { waiting: 1, demand: 2 }, { early: 1, late: 1 }],
])("creates a Pod %s", async (_what, { waiting, demand }, { early, late }) => {
  const pods = [free("other")].slice(0, waiting);
  for (const [ms, count] of [
    [400, early],
    [600, late],
  ] as const) {
    const { pool, run, created } = poolOf(pods, () => NEW, "", 2);
    pool.allowCreation(true);
    pool.setDemand(demand);
    await run(ms);
    expect(created("pods")).toHaveLength(count);
  }
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

test("reports an init container that failed before and after its Pod has ended, before the next plan", async () => {
  const checkout = { name: "checkout", state: { terminated: { exitCode: 2, message: "no such branch" } } };
  const failing = { conditions: [], containerStatuses: [], initContainerStatuses: [checkout] };
  const pods = [free("a", { ...failing, phase: "Pending" })];
  const { pool } = poolOf(pods, () => NEW);
  const problem = { is: "preparing", message: "init container checkout ended with 2: no such branch" };
  expect(pool.problem()).toEqual(problem);
  pods[0] = free("a", { ...failing, phase: "Failed" });
  expect(pool.problem()).toEqual(problem);
});

test("names the RuntimeClass of a Pod that no node takes", () => {
  const message = "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.";
  const conditions = [{ type: "PodScheduled", status: "False", reason: "Unschedulable", message }];
  const waiting = free("a", { phase: "Pending", conditions, containerStatuses: [] });
  const { pool } = poolOf(
    [{ ...waiting, spec: { ...waiting.spec, nodeName: "", runtimeClassName: "gvisor" } }],
    () => NEW,
  );
  const use = { busy: 0, max: 1, depth: 0, failing: null, wasReady: true };
  expect(capacityVerdict(pool.problem(), use)).toEqual({
    reason: "Unschedulable",
    message:
      "no node takes a Pod of RuntimeClass gvisor: 0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector; add nodes, or change the template's requests, selectors and tolerations",
  });
});

test("counts the Pods without room that waiting work lacks, and no warm ones", () => {
  const conditions = [{ type: "PodScheduled", status: "False", reason: "Unschedulable", message: "0/1 nodes" }];
  const waiting = (name: string) => free(name, { phase: "Pending", conditions, containerStatuses: [] });
  const names = ["a", "b", "c"];
  const unscheduled = names.map((name) => ({ ...waiting(name), spec: { ...waiting(name).spec, nodeName: "" } }));
  const starting = free("starting", { containerStatuses: [] });
  const { pool } = poolOf([...unscheduled, free("parked"), starting], () => NEW);
  const lacking = (demand: number) => {
    pool.setDemand(demand);
    return pool.waitingForRoom().lacking;
  };
  expect(pool.waitingForRoom().names).toEqual(names);
  // One Pod is parked, and one starts.
  expect([0, 2, 3, 9].map(lacking)).toEqual([0, 0, 1, 7]);
});

const GATED = "waits for its scheduling gates (kueue.x-k8s.io/admission)";

test.each<[number, string, string]>([
  [9, "Available", "Pods can be created and get ready"],
  [11, "SchedulingGated", `a Pod ${GATED}; check the controllers that remove them`],
])(
  "after %i s of a Pod with scheduling gates, capacity is %s, and the Pod may still find room",
  async (seconds, reason, message) => {
    const held = free("held", { phase: "Pending", containerStatuses: [] });
    const schedulingGates = [{ name: "kueue.x-k8s.io/admission" }];
    const { pool, run } = poolOf([{ ...held, spec: { ...held.spec, nodeName: "", schedulingGates } }], () => NEW);
    pool.setDemand(1);
    await run(seconds * 1_000);
    expect(pool.waitingForRoom()).toEqual({ names: [], lacking: 0 });
    const use = { busy: 0, max: 1, depth: 1, failing: null, wasReady: true };
    expect(capacityVerdict(pool.problem(), use)).toEqual({ reason, message });
  },
);

test("reports a Pod that can't be attached to, and claims nothing for it", async () => {
  const { pool, run } = poolOf([free("parked")], () => NEW, "parked");
  expect([pool.hasClaimable, pool.take("sesn_1", new Set(), () => true)]).toEqual([false, null]);
  expect(pool.counts()).toEqual({ warm: 0, preparing: 1 });
  expect(pool.problem()).toEqual({ is: "attach", message: "error dialing backend" });
  await run(1_000);
  expect(capacityVerdict(pool.problem(), { busy: 0, max: 1, depth: 0, failing: null, wasReady: true })).toEqual({
    reason: "AttachFailing",
    message: "cannot attach to waiting Pods: error dialing backend",
  });
});

test("replaces a Pod that could not be attached to in time, and names the reason", async () => {
  const old = free("parked");
  const scheduled = { type: "PodScheduled", status: "True", lastTransitionTime: old.metadata.creationTimestamp ?? "" };
  const conditions = [...(old.status?.conditions ?? []).filter(({ type }) => type !== "PodScheduled"), scheduled];
  const late = { ...old, status: { ...old.status, conditions } };
  const { pool, run, created } = poolOf(
    [late],
    ({ plural, verb }) => {
      if (plural === "pods" && verb === "get") return late;
      return plural === "secrets" ? claimSecret({ use: "removal" }) : {};
    },
    "parked",
  );
  await run(601_000);
  expect(created("secrets")).toEqual(["parked"]);
  expect(pool.problem()).toEqual({ is: "attach", message: "error dialing backend" });
});

test("keeps connections to all Pods that wait, the oldest first, whether they are reachable or not", async () => {
  const aged = (name: string, seconds: number) => {
    const each = free(name);
    const createdMs = Date.parse(each.metadata.creationTimestamp ?? "") - seconds * 1_000;
    return { ...each, metadata: { ...each.metadata, creationTimestamp: new Date(createdMs).toISOString() } };
  };
  const creating = free("creating", { containerStatuses: [] });
  const pods = [aged("b", 5), aged("c", 1), creating, aged("a", 90), aged("claimed", 100)];
  const { claims, run, kept } = poolOf(pods, () => NEW, "c");
  claims.add(claimOf({ name: "claimed" } as never));
  await run(100);
  expect(kept[0]).toEqual(["a", "b", "c"]);
});

const NO_SHELL = 'exec: "/bin/sh": no such file or directory';

test.each([
  ["has no shell", NO_SHELL, "Shell", {}, ["the image has no /bin/sh"]],
  ["could not be started otherwise", "mkdir /x: read-only file system", "Shell", {}, []],
  [
    "has no shell for a program",
    NO_SHELL,
    "Program",
    { "berth.dev/ended-turn": "0" },
    ["the image has no /bin/sh, date or sleep"],
  ],
])(
  "reports that Pods can't wait in a shell, or sleep, if the image %s",
  async (_, message, parking, turns, expected) => {
    const { metadata, ...rest } = free("parked", {
      phase: "Failed",
      containerStatuses: [
        { name: "worker", state: { terminated: { exitCode: 128, reason: "StartError", message, finishedAt: null } } },
      ],
    });
    const annotations = { ...metadata.annotations, "berth.dev/parking": parking, ...turns };
    const over = { ...rest, metadata: { ...metadata, annotations } };
    const { pool, run, failures } = poolOf([over], ({ plural, verb }) => {
      if (plural === "pods" && verb === "get") return over;
      return plural === "secrets" ? claimSecret({ use: "removal" }) : {};
    });
    await run(1_000);
    expect([...new Set(failures)]).toEqual(expected);
    expect(pool.problem()).toMatchObject({ is: "preparing", message: expect.stringContaining(message) });
  },
);
