import { describe, expect, onTestFinished, test } from "vitest";
import type { Pod } from "../../src/kube/resource.ts";
import type { NodeOutlook } from "../../src/pods/node-health.ts";
import { ClaimTable } from "../../src/protocol/claim-table.ts";
import type { DepartingPods } from "../../src/sleep/departing-pods.ts";
import type { EndingSleep } from "../../src/sleep/removal.ts";
import { SleepReport } from "../../src/sleep/sleep-report.ts";
import { SleepingPods } from "../../src/sleep/sleeping-pods.ts";
import type { TurnAdding } from "../../src/sleep/turn-adding.ts";
import { parsed, sessionsSpec, stored } from "../api/environments.ts";
import { type TurnsPod, turnsPod } from "../pods/turn-pods.ts";
import { claimOf } from "../protocol/claims.ts";
import { FakeKube } from "../reconcile/fake-kube.ts";
import { fakeContext, OWNER } from "../sessions/fake-context.ts";
import { metricValue } from "../support/metric-value.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const FOREIGN_SLOT_MS = 60_000;
const RUNNING = { running: { startedAt: "2030-01-01T00:00:00Z" } };
const ENDED = { terminated: { exitCode: 0 } };
const SESSION = "sesn_1";

/** A Pod of the session, which waits for its second work item, with `of` on top. */
const podOf = (of: TurnsPod = {}) =>
  turnsPod({
    ...{ phase: "sleeping", ended: 1, turns: { 1: ENDED, 2: RUNNING }, ...of },
    annotations: {
      "berth.dev/session-id": SESSION,
      "berth.dev/sleeps-since": "2030-01-01T00:00:00.000Z",
      "berth.dev/sleeps-until": "2030-01-01T01:00:00.000Z",
      ...of.annotations,
    },
    metadata: { uid: `${of.name ?? "pod"}-uid`, resourceVersion: "7", ownerReferences: [OWNER], ...of.metadata },
  });
const assigned = (of: TurnsPod = {}) =>
  podOf({ ...of, phase: "running", annotations: { "berth.dev/assigned-at": "2030-01-01T00:00:00Z" } });

/** SleepingPods with these Pods in the cache, all of one session. */
function sleepingOf(pods: readonly Pod[], { sleepSeconds = 600 } = {}) {
  const clock = new VirtualClock();
  const kube = new FakeKube(() => ({}), clock);
  const claims = new ClaimTable();
  const removed: string[] = [];
  const leaving = new Set<string>();
  const told: string[] = [];
  let outlook: NodeOutlook = "stays";
  let waiting: readonly string[] = [];
  let shown: readonly string[] = [];
  let lacking = 0;
  const workspace = { type: "Pod", mountPath: "/workspace", sleepSeconds };
  const environment = parsed(stored(sessionsSpec({ workspace })));
  const context = fakeContext({
    ...{ clock, kube: kube.client, environment: () => environment, nodeOutlook: () => outlook },
    announce: (reason: string, message: string) => told.push(`${reason}: ${message}`),
    pods: {
      get: (name: string) => pods.find(({ metadata }) => metadata.name === name),
      ofSession: (id: string) => pods.filter(({ metadata }) => metadata.annotations?.["berth.dev/session-id"] === id),
      sleeping: () => pods.filter(({ metadata }) => metadata.labels?.["berth.dev/phase"] === "sleeping"),
    },
  });
  const report = new SleepReport(context);
  const removing = new Set<string>();
  let streamed: readonly (string | undefined)[] = [];
  const departing = {
    has: (name: string) => leaving.has(name) || removing.has(name),
    isRemoving: (name: string) => removing.has(name),
    remove: async (pod: Pod, { sessionId, why }: EndingSleep) => {
      const { name = "" } = pod.metadata;
      leaving.add(name);
      removed.push(name);
      report.ended(sessionId, pod, why);
    },
  };
  const sleeping = new SleepingPods({
    ...{ context, claims, departing: departing as unknown as DepartingPods, onChange: () => {} },
    turns: { keep: () => null, ended: async () => {} } as unknown as TurnAdding,
    streams: {
      keepAsleep: (pods) => {
        streamed = pods.map(({ metadata }) => metadata.name);
      },
    },
    report,
    waitingForRoom: () => ({ names: waiting, lacking }),
    items: { waits: () => false, waitsAny: (matches) => shown.some(matches), isBlind: false },
  });
  return {
    ...{ sleeping, clock, kube, claims, removed, leaving, removing, told, context },
    set: (
      more: Partial<{ outlook: NodeOutlook; waiting: readonly string[]; shown: readonly string[]; lacking: number }>,
    ) => {
      waiting = more.waiting ?? waiting;
      shown = more.shown ?? shown;
      lacking = more.lacking ?? lacking;
      outlook = more.outlook ?? outlook;
    },
    of: () => sleeping.of(SESSION),
    /** The Pods to which connections are kept, in their order. */
    streamed: () => streamed,
    patches: () => kube.calls.filter(({ verb }) => verb === "patch").map(({ body }) => body as Pod),
  };
}

describe("the Pod of a session", () => {
  test("is ready while its next turn waits", () => {
    const pod = podOf();
    const { of, sleeping } = sleepingOf([pod]);
    expect([of(), sleeping.hasReady]).toEqual([{ is: "ready", pod }, true]);
  });

  test("is awaited while the list shows an item of it, unless the Pod is not ready for it", () => {
    const { sleeping, set, leaving } = sleepingOf([podOf()]);
    const awaited = (...shown: string[]) => {
      set({ shown });
      return sleeping.isAwaited;
    };
    expect([awaited(), awaited("sesn_new"), awaited("sesn_new", SESSION)]).toEqual([false, false, true]);
    leaving.add("berth-research-x");
    expect(awaited(SESSION)).toBe(false);
  });

  test.each<[string, Pod]>([
    ["its next turn is not added yet", podOf({ turns: { 1: ENDED } })],
    ["its next turn does not wait yet", podOf({ turns: { 1: ENDED, 2: undefined } })],
    ["its waiting turn was killed", podOf({ turns: { 1: ENDED, 2: ENDED } })],
    ["its work item runs", assigned()],
    ["its work item is being settled", assigned({ turns: { 1: ENDED, 2: ENDED } })],
  ])("is busy while %s: no other Pod may serve the session", (_, pod) => {
    const { of, sleeping } = sleepingOf([pod]);
    expect([of(), sleeping.hasReady]).toEqual([{ is: "busy" }, false]);
  });

  test.each<[string, Pod]>([
    ["it is being deleted", podOf({ metadata: { deletionTimestamp: "2030-01-01T00:00:00Z" } })],
    ["its session runs, and its keeper has ended", assigned({ turns: { 2: ENDED }, keeper: ENDED })],
    ["its node is lost", assigned({ status: { reason: "NodeLost" } })],
  ])("is none if %s", (_, pod) => expect(sleepingOf([pod]).of()).toBeNull());

  test("is none once Berth has deleted it", () => {
    const { of, leaving } = sleepingOf([podOf()]);
    leaving.add("berth-research-x");
    expect(of()).toBeNull();
  });

  test("is busy while Berth deletes it, unless the session has another Pod", () => {
    const { of, removing } = sleepingOf([podOf()]);
    removing.add("berth-research-x");
    expect(of()).toEqual({ is: "busy" });
    const newer = podOf({ name: "newer" });
    const two = sleepingOf([podOf(), newer]);
    two.removing.add("berth-research-x");
    expect(two.of()).toEqual({ is: "ready", pod: newer });
  });

  test("is none although its deletion is not answered, if it shows", () => {
    const { of, removing } = sleepingOf([podOf({ metadata: { deletionTimestamp: "2030-01-01T00:00:00Z" } })]);
    removing.add("berth-research-x");
    expect(of()).toBeNull();
  });

  test("is busy while a claim has it, although it still looks asleep", () => {
    const { of, claims, sleeping } = sleepingOf([podOf()]);
    claims.add(claimOf({ turn: 2 }));
    expect([of(), sleeping.hasReady, sleeping.views()]).toEqual([{ is: "busy" }, false, []]);
  });

  test("is busy while one is assigned, whatever another one does", () => {
    expect(sleepingOf([podOf(), assigned({ name: "another" })]).of()).toEqual({ is: "busy" });
  });

  test("is the one that slept last, which has the newest files", () => {
    const later = podOf({ name: "later", annotations: { "berth.dev/sleeps-since": "2030-01-01T00:20:00Z" } });
    expect(sleepingOf([podOf(), later, podOf({ name: "third" })]).of()).toEqual({ is: "ready", pod: later });
  });

  test("is none for a while after another client took its slot, and until then serves no item", async () => {
    const { of, sleeping, clock } = sleepingOf([podOf()]);
    sleeping.leave("berth-research-x");
    expect([of(), sleeping.hasReady]).toEqual([null, false]);
    await clock.advance(FOREIGN_SLOT_MS - 1);
    expect(of()).toBeNull();
    await clock.advance(1);
    expect(of()).toMatchObject({ is: "ready" });
  });

  test("is given up on a node that is about to be removed, with an Event, and is busy until it is gone", async () => {
    const { of, set, removed, told, context, clock } = sleepingOf([podOf()]);
    set({ outlook: "leaves" });
    expect(of()).toEqual({ is: "busy" });
    await clock.settle();
    expect(removed).toEqual(["berth-research-x"]);
    expect(told).toEqual([expect.stringMatching(/^SleepEnded: session sesn_1 .*its node is leaving/)]);
    expect(await metricValue(context.metrics.sleepsEnded, { ...context.labels, reason: "Unfit" })).toBe(1);
  });

  test("is busy on a node that does not answer, and given up only after prepareTimeoutSeconds", async () => {
    const { of, set, sleeping, removed, told, clock } = sleepingOf([podOf()], { sleepSeconds: 3_000 });
    const ending = new AbortController();
    sleeping.start(ending.signal);
    set({ outlook: "silent" });
    const offer = async (seconds: number) => {
      for (let passed = 0; passed < seconds; passed += 10) {
        expect(of()).toEqual({ is: "busy" });
        await clock.advance(10_000);
      }
    };
    await offer(580);
    set({ outlook: "stays" });
    expect(of()).toMatchObject({ is: "ready" });
    expect(removed).toEqual([]);
    sleeping.noteReach(podOf(), true);
    set({ outlook: "silent" });
    await offer(600);
    expect(removed).toEqual([]);
    await offer(10);
    sleeping.poke();
    await clock.advance(1_000);
    expect(removed).toEqual(["berth-research-x"]);
    expect(told).toEqual([expect.stringMatching(/^SleepEnded: .*did not get ready.*prepareTimeoutSeconds/)]);
    ending.abort();
    await sleeping.ended();
  });

  test("is not given up while a claim has it", async () => {
    const { sleeping, claims, removed, clock } = sleepingOf([podOf()]);
    claims.add(claimOf({ turn: 2 }));
    sleeping.giveUp(podOf());
    await clock.settle();
    expect(removed).toEqual([]);
  });
});

test("connections are kept to Pods whose next turn waits, the session that slept last first", async () => {
  const at = (name: string, second: number, of: TurnsPod = {}) => {
    const annotations = { "berth.dev/session-id": name, "berth.dev/sleeps-since": `2030-01-01T00:00:0${second}Z` };
    return podOf({ name, annotations, ...of });
  };
  const pods = [at("first", 0), at("last", 2), at("unready", 3, { turns: { 1: ENDED } }), at("second", 1)];
  const { sleeping, streamed, clock } = sleepingOf(pods);
  const ending = new AbortController();
  sleeping.start(ending.signal);
  sleeping.poke();
  await clock.advance(1_000);
  expect(streamed()).toEqual(["last", "second", "first"]);
  ending.abort();
  await sleeping.ended();
});

describe("Pods that wait for room", () => {
  const names = ["first", "second", "third"];
  /** Three sleeping Pods. */
  function threeAsleep(others: readonly Pod[] = []) {
    const pods = names.map((name, n) => {
      const annotations = { "berth.dev/session-id": name, "berth.dev/sleeps-since": `2030-01-01T00:00:0${n}Z` };
      return podOf({ name, annotations });
    });
    const made = sleepingOf([...pods, ...others]);
    const ending = new AbortController();
    onTestFinished(async () => {
      ending.abort();
      await made.sleeping.ended();
    });
    made.sleeping.start(ending.signal);
    /** What was removed until then. A sleeping Pod is deleted after five seconds in which work has lacked room. */
    const pass = async (waiting: readonly string[], lacking = waiting.length, ms = 6_000) => {
      made.set({ waiting, lacking });
      made.sleeping.poke();
      await made.clock.advance(ms);
      return [...made.removed];
    };
    return { pass, claims: made.claims, sleeping: made.sleeping, first: pods[0] ?? podOf() };
  }

  test("each get that of one sleeping Pod, however long they wait", async () => {
    const { pass } = threeAsleep();
    expect(await pass(["waiting-1"])).toEqual(["first"]);
    expect(await pass(["waiting-1"])).toEqual(["first"]);
    expect(await pass(["waiting-1", "waiting-2"])).toEqual(["first", "second"]);
    expect(await pass([])).toEqual(["first", "second"]);
    expect(await pass(["waiting-3"])).toEqual(names);
  });

  test("get that of sessions that fall asleep later, if too few sleep at first", async () => {
    const { pass, claims } = threeAsleep();
    const [second, third] = ["second", "third"].map((name) => claimOf({ name }));
    for (const running of [second, third]) if (running) claims.add(running);
    expect(await pass(["waiting-1", "waiting-2"])).toEqual(["first"]);
    if (second) claims.remove(second);
    expect(await pass(["waiting-1", "waiting-2"], 2, 1_000)).toEqual(["first", "second"]);
    if (third) claims.remove(third);
    expect(await pass(["waiting-1", "waiting-2"])).toEqual(["first", "second"]);
  });

  test("get no more than waiting work needs, although warm Pods wait too", async () => {
    const { pass } = threeAsleep();
    const waiting = ["warm-1", "warm-2", "warm-3"];
    expect(await pass(waiting, 0)).toEqual([]);
    expect(await pass(waiting, 1)).toEqual(["first"]);
    expect(await pass(waiting, 1)).toEqual(["first"]);
  });

  test("get no second one because they were not needed for a moment", async () => {
    const { pass } = threeAsleep();
    expect(await pass(["waiting-1"], 1)).toEqual(["first"]);
    expect(await pass(["waiting-1"], 0)).toEqual(["first"]);
    expect(await pass(["waiting-1"], 1)).toEqual(["first"]);
  });

  test("of a full quota each get theirs without another pause", async () => {
    const { pass } = threeAsleep();
    expect(await pass(["quota-0"], 3)).toEqual(["first"]);
    expect(await pass([], 2, 1_000)).toEqual(["first"]);
    expect(await pass(["quota-1"], 2, 1_000)).toEqual(["first", "second"]);
  });

  test("get none for items that are claimed soon, or that wait for a Pod that can't be reached", async () => {
    const { pass, sleeping, first } = threeAsleep();
    for (let n = 0; n < 3; n += 1) {
      expect(await pass(["warm-1"], 1, 4_000)).toEqual([]);
      expect(await pass(["warm-1"], 0, 1_000)).toEqual([]);
    }
    sleeping.noteReach(first, false);
    expect(await pass(["warm-1"], 1)).toEqual([]);
    expect(await pass(["warm-1", "waiting-2"], 2)).toEqual(["first"]);
  });

  test("get another one when the room went to another of them", async () => {
    const { pass } = threeAsleep([podOf({ name: "warm-2", phase: "warm" })]);
    expect(await pass(["warm-1", "warm-2"], 1)).toEqual(["first"]);
    expect(await pass(["warm-1"], 0)).toEqual(["first"]);
    expect(await pass(["warm-1"], 1)).toEqual(["first", "second"]);
  });
});
