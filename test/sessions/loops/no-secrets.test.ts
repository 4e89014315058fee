import { expect, test } from "vitest";
import { SECRETS } from "../../../src/kube/resource.ts";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import { LoopWorld, type LoopWorldOptions, NAME, NAMESPACE } from "./loop-world.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const QUEUED = 300;

/** A world with a full queue whose environment issues no secrets. */
async function withoutSecrets(options: LoopWorldOptions = {}) {
  const world = new LoopWorld({
    switches: { secrets: "none" },
    ...options,
    sessions: { maxConcurrent: 50, warm: 2, ...options.sessions },
  });
  world.createEnvironment();
  const operator = world.startOperator();
  await world.until("parked Pods", () => world.parked.length === 2);
  for (let n = 0; n < QUEUED; n += 1) world.enqueue();
  return { world, operator };
}

const taken = (world: LoopWorld) => world.items.filter(({ acks }) => acks.length > 0).length;
const message = (world: LoopWorld) => world.conditionOf("CredentialMissing")?.message ?? "";
const polls = (world: LoopWorld) => world.api.requests.get("poll") ?? 0;

function holdsTrue(world: LoopWorld): void {
  expect([...world.wrongs, ...world.violations]).toEqual([]);
}

test("three items without a secret pause claiming, and the others stay in the queue", async () => {
  const { world, operator } = await withoutSecrets();
  let secrets = 0;
  operator.kube.intercept.push(({ verb, plural, body }) => {
    if (verb === "create" && plural === "secrets" && JSON.stringify(body).includes('"refusal"')) secrets += 1;
  });
  await world.until("three items were claimed", () => taken(world) === 3, 10 * SECOND);
  await world.pass(SECOND);
  const before = polls(world);
  await world.pass(55 * SECOND);
  expect(polls(world)).toBe(before);
  expect(taken(world)).toBe(3);
  expect(secrets).toBe(3);
  expect(world.conditionOf("CredentialMissing")).toMatchObject({ status: "True", reason: "CredentialMissing" });
  expect(message(world)).toMatch(/^spec\.sessions\.credential: the last 3 work items came without their own secret/);
  expect(message(world)).toContain("claiming is paused");
  expect(message(world)).toContain("spec.sessions.credential");
  expect(world.conditionOf("Ready")).toMatchObject({ status: "False", reason: "CredentialMissing" });
  holdsTrue(world);
});

test("the operator claims one item after 1, 2 and 4 more minutes, and the condition says when", async () => {
  const { world } = await withoutSecrets();
  await world.until("three items were claimed", () => taken(world) === 3, 10 * SECOND);
  for (const [minutes, count] of [
    [1, 4],
    [2, 5],
    [4, 6],
  ] as const) {
    // The status is written again after 5 s.
    await world.pass(7 * SECOND);
    const next = Date.parse(/after (\S+Z)/.exec(message(world))?.[1] ?? "");
    expect(next - world.clock.now()).toBeGreaterThan(minutes * MINUTE - 15 * SECOND);
    expect(next - world.clock.now()).toBeLessThan(minutes * MINUTE);
    await world.pass(minutes * MINUTE - 15 * SECOND);
    expect(taken(world)).toBe(count - 1);
    await world.until("the next probe is claimed", () => taken(world) === count, 20 * SECOND);
  }
  expect(world.claims.length).toBeLessThanOrEqual(1);
  holdsTrue(world);
});

test("claiming resumes immediately when an item comes with a secret", async () => {
  const { world } = await withoutSecrets({ sessions: { maxConcurrent: 4, warm: 4 } });
  await world.until("three items were claimed", () => taken(world) === 3, 10 * SECOND);
  for (const item of world.api.world.items.values()) Object.assign(item, { issuesSecret: true });
  world.api.world.switches.secrets = "issued";
  for (let n = 0; n < 4; n += 1) world.enqueue();
  await world.until("more items are claimed", () => taken(world) >= 6, 2 * MINUTE);
  await world.until(
    "CredentialMissing is False again",
    () => world.conditionOf("CredentialMissing")?.reason === "CredentialsPresent",
    10 * SECOND,
  );
  await world.until("20 items are claimed", () => taken(world) >= 20, 2 * MINUTE);
  holdsTrue(world);
});

test("claiming resumes immediately when the spec no longer needs secrets", async () => {
  const { world } = await withoutSecrets();
  await world.until("three items were claimed", () => taken(world) === 3, 10 * SECOND);
  await world.pass(10 * SECOND);
  world.patchEnvironment({ spec: { sessions: { credential: "EnvironmentKey" } } });
  await world.until("an item has a Pod", () => world.podsOf("running").length > 0, 20 * SECOND);
  expect(world.conditionOf("CredentialMissing")).toMatchObject({ status: "False", reason: "CredentialsPresent" });
});

test("a changed key makes the operator claim one item immediately", async () => {
  const { world } = await withoutSecrets();
  await world.until("the third probe is claimed", () => taken(world) === 6, 10 * MINUTE);
  const key = Buffer.from(world.api.world.setKey(world.environmentId)).toString("base64");
  world.server.patch(SECRETS, NAMESPACE, "key", { data: { "environment-key": key } });
  await world.until("the next probe is claimed", () => taken(world) === 7, 2 * MINUTE);
  await world.pass(50 * SECOND);
  expect(taken(world)).toBe(7);
});

test("another operator refuses at most three more items", async () => {
  const { world, operator } = await withoutSecrets();
  await world.until("three items were claimed", () => taken(world) === 3, 10 * SECOND);
  operator.kill();
  world.startOperator();
  await world.pass(50 * SECOND);
  expect(taken(world)).toBeLessThanOrEqual(6);
  expect(world.server.find(ENVIRONMENTS, NAMESPACE, NAME)?.status?.conditions).toContainEqual(
    expect.objectContaining({ type: "CredentialMissing", status: "True" }),
  );
  holdsTrue(world);
});

test("items without a secret among others do not pause claiming", async () => {
  const world = new LoopWorld({ sessions: { maxConcurrent: 4, warm: 4 } });
  world.createEnvironment();
  world.startOperator();
  await world.until("parked Pods", () => world.parked.length === 4);
  for (let n = 0; n < 12; n += 1) world.enqueue({ secret: n % 2 === 0 });
  await world.until("all items are served and settled", () => world.isSettled, 5 * MINUTE);
  holdsTrue(world);
});
