import { describe, expect, test } from "vitest";
import { ANNOTATION_ASSIGNED_AT } from "../../../src/api/names.ts";
import { refusal } from "./api-server.ts";
import { LoopWorld, NAMESPACE, type Operator } from "./loop-world.ts";

const TEMPLATE = {
  spec: { containers: [{ name: "worker", image: "worker:1", command: ["worker"] }], terminationGracePeriodSeconds: 30 },
};

/** Longer than prepareTimeoutSeconds by default. */
const LONG_MS = 3_600_000;

async function parkedWorld(sessions: Record<string, unknown> = {}) {
  const world = new LoopWorld({ sessions: { template: TEMPLATE, ...sessions } });
  world.createEnvironment();
  const operator = world.startOperator();
  await world.until("a Pod is parked", () => world.parked.length === 1);
  await world.pass(1_000);
  return { world, operator };
}

/** Serves one item, and returns the requests that were sent for it. */
async function serve(world: LoopWorld, { kube }: Operator): Promise<readonly string[]> {
  const sent: string[] = [];
  kube.sent = ({ verb, plural }) => void sent.push(`${verb} ${plural}`);
  world.enqueue();
  await world.until("the item is served", () => world.starts.length === 1 && world.isSettled);
  expect([...world.wrongs, ...world.violations]).toEqual([]);
  return sent.filter((request) => request === "attach pods" || request === "log pods");
}

describe("a session's line", () => {
  test.each([
    ["a shell", {}],
    ["a program", { parking: "Program" }],
  ])("starts it in %s", async (_what, sessions) => {
    const { world, operator } = await parkedWorld(sessions);
    const [pod] = world.parked;
    expect(pod?.status?.containerStatuses?.[0]?.state?.running).toBeDefined();
    expect(pod?.metadata.annotations?.[ANNOTATION_ASSIGNED_AT]).toBeUndefined();
    await serve(world, operator);
    expect(world.items.map(({ state }) => state)).toEqual(["stopped"]);
  });

  test("is sent again if it was lost", async () => {
    const { world, operator } = await parkedWorld({ parking: "Shell" });
    let lost = 0;
    operator.kube.loses = (what) => what === "line" && lost++ === 0;
    expect(await serve(world, operator)).toContain("log pods");
    expect(lost).toBe(2);
  });

  test("delays no other session if only the answers of some were lost", async () => {
    const { world, operator } = await parkedWorld({ parking: "Shell" });
    world.fate = () => ({ startError: false, program: "stock", servesMs: 200_000 });
    operator.kube.loses = (what) => what === "marker";
    for (let n = 1; n <= 4; n += 1) {
      world.enqueue();
      await world.until("it runs", () => world.starts.length === n, 20_000);
      await world.pass(5_000);
    }
  });

  test("is not sent again if only its answer was lost", async () => {
    const { world, operator } = await parkedWorld({ parking: "Shell", lease: "Operator" });
    const lines: string[] = [];
    const { wrote } = operator.kube;
    operator.kube.wrote = (ref, text) => {
      lines.push(text);
      wrote(ref, text);
    };
    operator.kube.loses = (what) => what === "marker";
    expect(await serve(world, operator)).toContain("log pods");
    expect(lines).toHaveLength(1);
  });
});

test("a Pod that can't be attached to gets no session", async () => {
  const world = new LoopWorld({ sessions: { template: TEMPLATE, parking: "Shell" } });
  world.weather.attach = { ...world.weather.attach, refused: 1 };
  world.createEnvironment();
  world.startOperator();
  world.enqueue();
  await world.until("a Pod waits", () => world.parked.length === 1);
  await world.pass(60_000);
  expect([world.starts, world.claims]).toEqual([[], []]);
  world.weather.attach = { ...world.weather.attach, refused: 0 };
  await world.until("the item is served", () => world.starts.length === 1 && world.isSettled);
});

describe.each(["Shell", "Program"])("with parking: %s, a node that stops answering", (parking) => {
  /** Four Pods with a connection each. Those with these places in the order of their names are on a node that fails. */
  async function silencedWorld(places: readonly number[], isNoticed: boolean) {
    const world = new LoopWorld({ sessions: { template: TEMPLATE, parking, warm: 4, maxConcurrent: 4 } });
    world.createEnvironment();
    const operator = world.startOperator();
    await world.until("four Pods wait", () => world.parked.length === 4);
    await world.pass(40_000);
    const names = world.parked.map(({ metadata }) => metadata.name ?? "").toSorted();
    const silent = new Set(places.map((place) => names[place]));
    operator.kube.nodeAnswers = (name) => !silent.has(name);
    if (isNoticed) operator.kube.cutStreams();
    return { world, operator, silent };
  }

  test.each([
    ["and breaks its connections", true],
    ["and whose connections seem open", false],
  ])("%s gets no item, and all are served once it is back", async (_, isNoticed) => {
    const { world, operator } = await silencedWorld([0, 1, 2, 3], isNoticed);
    const items = [1, 2, 3, 4].map(() => world.enqueue());
    await world.pass(180_000);
    expect(items.map((id) => world.item(id).acks.length)).toEqual([0, 0, 0, 0]);
    expect([world.starts, world.claims, world.sessionReasons]).toEqual([[], [], []]);
    operator.kube.nodeAnswers = () => true;
    await world.until("all items are served", () => world.starts.length === 4 && world.isSettled);
    expect([...world.wrongs, ...world.violations]).toEqual([]);
  });

  test("leaves its items to the Pods of other nodes", async () => {
    const { world, silent } = await silencedWorld([0, 1, 2], false);
    const id = world.enqueue();
    await world.until("the item is served", () => world.item(id).state === "stopped", 40_000);
    expect(world.starts.map(({ pod }) => silent.has(pod))).toEqual([false]);
    expect(world.item(id).acks).toHaveLength(1);
  });
});

test("a Pod that has waited for long survives a restart of the operator", async () => {
  const { world, operator } = await parkedWorld({ parking: "Shell" });
  const names = () => world.parked.map(({ metadata }) => metadata.name);
  const before = names();
  await world.pass(LONG_MS);
  operator.kill();
  await world.pass(1_000);
  await serve(world, world.startOperator());
  expect(world.starts.map(({ pod }) => pod)).toEqual(before);
});

test("a session whose container ended before its line was sent is not reported as started", async () => {
  const { world, operator } = await parkedWorld({ parking: "Shell" });
  const name = world.parked[0]?.metadata.name ?? "";
  operator.kube.sent = ({ verb, plural }) => {
    if (verb === "patch" && plural === "pods") world.node.kill(name);
  };
  world.enqueue();
  await world.until("the item is settled", () => world.isSettled && world.sessionReasons.length > 0);
  expect(world.starts).toEqual([]);
  expect(world.told.join("\n")).not.toContain("SessionStarted");
});

test("a waiting Pod that is killed ends its streams, and refuses others", async () => {
  const { world, operator } = await parkedWorld({ parking: "Shell" });
  const name = world.parked[0]?.metadata.name ?? "";
  const ref = { namespace: NAMESPACE, name };
  const stream = operator.kube.attach(ref, { container: "worker" });
  await world.pass(100);
  expect((await stream).isOpen).toBe(true);
  world.node.kill(name);
  await world.pass(100);
  expect(await (await stream).closed).toBe("the server closed the stream");
  const again = operator.kube.attach(ref, { container: "worker" });
  const refused = expect(again).rejects.toMatchObject({ status: 500 });
  await world.pass(100);
  await refused;
});

describe.each(["Worker", "Operator"])("lease: %s", (lease) => {
  test("a Pod that never reads its line is deleted, and its item is stopped", async () => {
    const { world, operator } = await parkedWorld({ parking: "Shell", lease });
    operator.kube.loses = (what) => what === "line";
    const id = world.enqueue();
    await world.until("the item is stopped", () => world.item(id).state === "stopped" && world.isSettled, 300_000);
    expect(world.starts).toEqual([]);
    expect(world.told.join("\n")).toMatch(/StartFailed: .*did not read its session's line within firstBeatTimeoutSec/);
    expect([...world.wrongs, ...world.violations]).toEqual([]);
  });

  test.each([
    ["its log has lost its beginning", () => Promise.resolve("working\n"), 0],
    ["its log may not be read", () => Promise.reject(refusal(403, "Forbidden", "no")), 0],
    ["its Pod can't be attached to either", () => Promise.reject(refusal(403, "Forbidden", "no")), 1],
  ])("a session runs on after a restart of the operator, although %s", async (_, log, refused) => {
    const { world, operator } = await parkedWorld({ parking: "Shell", lease });
    const program = lease === "Operator" ? "plain" : "stock";
    world.fate = () => ({ startError: false, program, servesMs: 200_000 });
    world.enqueue();
    await world.until("it runs", () => world.starts.length === 1);
    await world.pass(5_000);
    operator.kill();
    world.server.log = log;
    world.weather.attach = { ...world.weather.attach, refused };
    await world.pass(1_000);
    world.startOperator();
    await world.until("it is served", () => world.isSettled, 300_000);
    expect(world.starts).toHaveLength(1);
    expect(world.sessionReasons).toContain("Completed");
    expect(world.told.filter((words) => words.startsWith("SessionStarted"))).toHaveLength(1);
    expect([...world.wrongs, ...world.violations]).toEqual([]);
  });

  test("a session's time counts from its assignment after a restart of the operator", async () => {
    const { world, operator } = await parkedWorld({ parking: "Shell", lease, maxDurationSeconds: 120 });
    const program = lease === "Operator" ? "silent" : "deaf";
    world.fate = () => ({ startError: false, program, servesMs: 0 });
    world.enqueue();
    await world.until("it runs", () => world.starts.length === 1);
    await world.pass(90_000);
    operator.kill();
    world.startOperator();
    // It has 30 s of grace.
    await world.until("it has ended", () => world.isSettled, 100_000);
    expect(world.sessionReasons).toContain("MaxDuration");
  });
});

describe("an operator that stops", () => {
  const MOMENTS = ["create secrets", "get pods", "acknowledged", "patch secrets", "patch pods", "line"] as const;
  const LEASES = ["Worker", "Operator"] as const;

  /** Queues an item, and resolves when an operator that is ended at this moment of its claim has stopped. */
  async function stopAt(moment: (typeof MOMENTS)[number], lease: string, end: (operator: Operator) => Promise<void>) {
    const { world, operator } = await parkedWorld({ lease });
    let begun = false;
    let hasStopped = false;
    const reached = (what: string) => {
      if (what !== moment || begun) return;
      begun = true;
      void end(operator).then(() => {
        hasStopped = true;
      });
    };
    operator.kube.sent = ({ verb, plural }) => reached(`${verb} ${plural}`);
    const { wrote } = operator.kube;
    operator.kube.wrote = (ref, text) => {
      reached("line");
      wrote(ref, text);
    };
    world.api.world.events.on("item", (_item, event) => reached(event));
    world.enqueue();
    await world.until("the operator has stopped", () => hasStopped);
    return world;
  }

  async function expectServedByNext(world: LoopWorld): Promise<void> {
    world.startOperator();
    await world.until("the item is served", () => world.starts.length === 1 && world.isSettled);
    expect([...world.wrongs, ...world.violations]).toEqual([]);
  }

  test.each(MOMENTS.flatMap((moment) => LEASES.map((lease) => [moment, lease] as const)))(
    "gives a Pod its acknowledged session first: %s, lease: %s",
    async (moment, lease) => {
      const world = await stopAt(moment, lease, (operator) => operator.stop());
      const acknowledged = world.items.filter(({ acks }) => acks.length > 0);
      expect(world.starts.map(({ workId }) => workId)).toEqual(acknowledged.map(({ id }) => id));
      await expectServedByNext(world);
    },
  );

  test.each(LEASES)("leaves that to the next one if it has lost its Lease: %s", async (lease) => {
    const world = await stopAt("acknowledged", lease, (operator) => {
      operator.loseLeadership();
      return operator.stop();
    });
    expect(world.starts).toEqual([]);
    await expectServedByNext(world);
  });

  test.each(LEASES)("leaves the report of the start to the one that sends the line: %s", async (lease) => {
    const world = await stopAt("patch pods", lease, (operator) => {
      operator.loseLeadership();
      return operator.stop();
    });
    // The Pod is assigned before the next one lists it.
    await world.pass(1_000);
    await expectServedByNext(world);
    expect(world.told.filter((words) => words.startsWith("SessionStarted"))).toHaveLength(1);
  });
});
