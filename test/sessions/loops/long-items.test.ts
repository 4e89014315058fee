import { describe, expect, test } from "vitest";
import { json } from "../../../simulator/http.ts";
import { LoopWorld, type LoopWorldOptions } from "./loop-world.ts";

const TEMPLATE = {
  spec: { containers: [{ name: "worker", image: "worker:1", command: ["worker"] }], terminationGracePeriodSeconds: 30 },
};

/** A world whose items have a secret of this many more characters, with a parked Pod. */
async function worldOf(sessions: Record<string, unknown>, more = 4_000, options: Partial<LoopWorldOptions> = {}) {
  const world = new LoopWorld({ ...options, sessions: { template: TEMPLATE, ...sessions } });
  const { world: simulator } = world.api;
  const secretFor = simulator.secretFor.bind(simulator);
  let padding = more;
  simulator.secretFor = (found) => {
    const secret = secretFor(found);
    if (secret === null) return null;
    const fields = JSON.parse(Buffer.from(secret, "base64url").toString("utf8"));
    return Buffer.from(JSON.stringify({ ...fields, padding: "x".repeat(padding) })).toString("base64url");
  };
  world.createEnvironment();
  const operator = world.startOperator();
  await world.until("a parked Pod", () => world.parked.length === 1);
  await world.pass(1_000);
  return {
    ...{ world, operator },
    pad: (length: number) => {
      padding = length;
    },
  };
}

/** The polled items of each result of `berth_claims_total`. */
async function claims({ metrics }: LoopWorld): Promise<Record<string, number>> {
  const { values } = await metrics.claims.get();
  return Object.fromEntries(values.filter(({ value }) => value > 0).map(({ labels, value }) => [labels.result, value]));
}

const modeOf = (world: LoopWorld) => world.environment?.status?.parking;

describe("an item whose ids and credential do not fit in a line", () => {
  test("is served by a Pod that waits for a key, if the spec leaves the choice to Berth", async () => {
    const { world } = await worldOf({ maxConcurrent: 1 });
    expect(modeOf(world)?.mode).toBe("Shell");
    const [shell] = world.parked;
    const id = world.enqueue();
    await world.until("the item is served", () => world.item(id).acks.length > 0 && world.isSettled, 300_000);
    expect(world.starts).toMatchObject([{ pod: expect.not.stringContaining(shell?.metadata.name ?? ""), workId: id }]);
    expect(modeOf(world)).toMatchObject({
      mode: "Key",
      failure: "the ids and the credential of a work item do not fit in the line that starts a session",
    });
    expect(world.item(id).acks).toHaveLength(1);
    expect([...world.wrongs, ...world.violations]).toEqual([]);
  });

  test.each([
    ["parking is Shell", { parking: "Shell" }],
    ["parking is Program", { parking: "Program" }],
  ])("is stopped and reported if %s, and the Pod serves the next one", async (_, sessions) => {
    const { world, pad } = await worldOf(sessions);
    const id = world.enqueue();
    await world.until("the item is stopped", () => world.item(id).state === "stopped" && world.isSettled);
    expect(world.starts).toEqual([]);
    const report = () => world.told.find((words) => words.startsWith("StartFailed"));
    await world.until("it is reported", () => report() !== undefined);
    expect(report()).toContain("do not fit in the line that starts a session; set spec.sessions.parking: Key");
    expect(await claims(world)).toEqual({ "too-long": 1 });
    expect(world.conditionOf("CredentialMissing")?.status).toBe("False");
    expect(modeOf(world)?.mode).not.toBe("Key");
    pad(0);
    const next = world.enqueue();
    await world.until("the next item is served", () => world.item(next).state === "stopped" && world.isSettled);
    expect(world.starts).toMatchObject([{ pod: expect.any(String), workId: next }]);
    expect([...world.wrongs, ...world.violations]).toEqual([]);
  });

  test("is reported as such by the operator that settles it after a restart", async () => {
    const { world, operator } = await worldOf({ parking: "Shell" });
    const id = world.enqueue();
    world.api.answer = (call) => (call === "stop" ? json(503, {}) : undefined);
    await world.until("the item is acknowledged", () => world.item(id).acks.length > 0);
    operator.kill();
    world.api.answer = () => undefined;
    world.startOperator();
    await world.until("the item is stopped", () => world.item(id).state === "stopped" && world.isSettled);
    expect(world.told.filter((words) => words.includes(id))).toEqual([
      expect.stringMatching(/^StartFailed: .* do not fit in the line that starts a session/),
    ]);
    expect([...world.wrongs, ...world.violations]).toEqual([]);
  });

  test("is not given to a free Pod of an earlier spec that waits in a shell", async () => {
    let prepareMs = 500;
    const { world, pad } = await worldOf({ parking: "Shell" }, 0, { prepareMs: () => prepareMs });
    // Pods of a template that has served are not replaced before the next ones are ready.
    world.enqueue();
    await world.until("a session has ended", () => world.starts.length === 1 && world.isSettled);
    await world.until("another Pod is parked", () => world.parked.length === 1);
    pad(4_000);
    prepareMs = 60_000;
    world.patchEnvironment({ spec: { sessions: { parking: "Key" } } });
    await world.until("the status shows it", () => modeOf(world)?.mode === "Key");
    const id = world.enqueue();
    await world.pass(30_000);
    expect([world.parked.length, world.claims, world.item(id).acks]).toEqual([1, [], []]);
    await world.until("the item is served", () => world.starts.length === 2 && world.isSettled);
    expect([...world.wrongs, ...world.violations]).toEqual([]);
  });

  test("is served if its Pod waits for a key", async () => {
    const { world } = await worldOf({ parking: "Key" });
    const id = world.enqueue();
    await world.until("the item is served", () => world.starts.length === 1 && world.isSettled);
    expect(world.item(id).state).toBe("stopped");
  });
});
