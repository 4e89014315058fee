import { describe, expect, test } from "vitest";
import { FINALIZER, LABEL_ENVIRONMENT } from "../../../src/api/names.ts";
import { shardOf } from "../../../src/election/shard-plan.ts";
import { SECRETS } from "../../../src/kube/resource.ts";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import { refusal } from "./api-server.ts";
import { LoopWorld, type LoopWorldOptions, NAME, NAMESPACE } from "./loop-world.ts";
import { TEMPLATE } from "./sleepy-world.ts";
import { BASE_URL } from "./work-api.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const OTHER = "sibling";
const ELSEWHERE = "elsewhere";
const SECOND_KEY = "sk-ant-oat01-second";
const WRONG_KEY = "sk-ant-oat01-made-up";

/** A world of two Environments with one environmentId: `NAME`, and the younger `OTHER`. */
function sharedWorld({ servesMs = 20 * SECOND, of = NAMESPACE, ...options }: SharedOptions = {}): LoopWorld {
  const world = new LoopWorld({
    sessions: { warm: 1, maxConcurrent: 2, retainEndedSeconds: 3_600 },
    fate: () => ({ startError: false, program: "stock", servesMs }),
    namespaces: [NAMESPACE, ELSEWHERE],
    ...options,
  });
  if (of === ELSEWHERE) world.createKey(ELSEWHERE, SECOND_KEY);
  // The environment has two keys.
  world.api.answer = (_call, { headers }) => {
    const isSecond = Reflect.get(headers, "authorization") === `Bearer ${SECOND_KEY}`;
    if (isSecond) Reflect.set(headers, "authorization", `Bearer ${world.api.world.keyOf(world.environmentId)}`);
    return undefined;
  };
  world.createEnvironment();
  world.createEnvironment(OTHER, of);
  // Created in the same second otherwise.
  setCreated(world, OTHER, of, new Date(world.clock.now() + SECOND).toISOString());
  return world;
}

interface SharedOptions extends LoopWorldOptions {
  readonly servesMs?: number;
  /** The namespace of the younger one. */
  readonly of?: string;
}

function setCreated(world: LoopWorld, name: string, namespace: string, creationTimestamp: string): void {
  world.server.patch(ENVIRONMENTS, namespace, name, { metadata: { creationTimestamp } });
}

const find = (world: LoopWorld, name: string, namespace = NAMESPACE) =>
  world.server.find(ENVIRONMENTS, namespace, name);

function conditionOf(world: LoopWorld, type: string, name: string, namespace = NAMESPACE) {
  return find(world, name, namespace)?.status?.conditions?.find((condition) => condition.type === type);
}

const reasonOf = (world: LoopWorld, name: string, namespace = NAMESPACE) =>
  conditionOf(world, "Ready", name, namespace)?.reason;

const setKey = (world: LoopWorld, key: string) =>
  world.server.patch(SECRETS, NAMESPACE, "key", {
    data: { "environment-key": Buffer.from(key).toString("base64") },
  });

/** The Environment whose Pod got the item. */
const serverOf = (world: LoopWorld, workId: string) =>
  world.pods.find(({ metadata }) => metadata.annotations?.["berth.dev/work-id"] === workId)?.metadata.labels?.[
    LABEL_ENVIRONMENT
  ];

const isAcked = (world: LoopWorld, workId: string) => world.item(workId).acks.length > 0;

function holdsTrue(world: LoopWorld): void {
  expect([...world.wrongs, ...world.violations]).toEqual([]);
}

describe.each([
  ["one namespace", {}],
  ["two namespaces, with two keys", { of: ELSEWHERE }],
  ["two shards", { shards: 2 }],
] as const)("of two Environments with one environmentId in %s", (_where, where: SharedOptions) => {
  const of = where.of ?? NAMESPACE;

  test("the older serves all sessions, and the other one names it and only has its key checked", async () => {
    const requests: string[] = [];
    const world = sharedWorld({
      ...where,
      points: ({ environment, point, phase }) => {
        const isRequest = phase === "before" && /^(claim\.poll|queue\.|item\.)/.test(point);
        if (environment === `${of}/${OTHER}` && isRequest) requests.push(point);
      },
    });
    world.startOperator();
    await world.until("the older one is ready", () => reasonOf(world, NAME) === "Ready");
    await world.until("the other one is not", () => reasonOf(world, OTHER, of) === "EnvironmentIdShared");
    expect(conditionOf(world, "Stalled", OTHER, of)).toMatchObject({
      reason: "EnvironmentIdShared",
      message: expect.stringContaining(
        `already served by Environment ${NAMESPACE}/${NAME}, which is older; delete one`,
      ),
    });
    const ids = Array.from({ length: 4 }, () => world.enqueue());
    await world.until("all are served", () => ids.every((id) => world.item(id).state === "stopped"), 10 * MINUTE);
    expect(new Set(ids.map((id) => serverOf(world, id)))).toEqual(new Set([NAME]));
    expect(world.pods.filter(({ metadata }) => metadata.labels?.[LABEL_ENVIRONMENT] === OTHER)).toEqual([]);
    expect(requests).toEqual(["queue.stats"]);
    holdsTrue(world);
  });

  test("the other one takes over only after the last session of a deleted one has ended", async () => {
    const world = sharedWorld({ ...where, servesMs: 40 * SECOND });
    world.startOperator();
    const first = world.enqueue();
    await world.until("the session runs", () => world.item(first).state === "active");
    world.server.delete(ENVIRONMENTS, NAMESPACE, NAME);
    const sessionId = world.api.world.item(first).data.id;
    const second = world.enqueue({ sessionId });
    await world.until("the other one waits", () => reasonOf(world, OTHER, of) === "AwaitingSessions");
    expect(conditionOf(world, "Reconciling", OTHER, of)?.message).toContain(`${NAMESPACE}/${NAME} has the same`);
    await world.until("the first session has ended", () => world.item(first).state === "stopped");
    expect(isAcked(world, second)).toBe(false);
    await world.until("the other one serves", () => world.item(second).state === "active", 2 * MINUTE);
    expect(serverOf(world, second)).toBe(OTHER);
    holdsTrue(world);
  });
});

describe("if the key of the served Environment is rejected", () => {
  test("for a moment, its running session goes on, and the other one claims nothing", async () => {
    const world = sharedWorld({ of: ELSEWHERE, servesMs: 3 * MINUTE });
    world.startOperator();
    const first = world.enqueue();
    await world.until("the session runs", () => world.item(first).state === "active");
    setKey(world, WRONG_KEY);
    await world.until("the other one waits", () => reasonOf(world, OTHER, ELSEWHERE) === "AwaitingSessions");
    const second = world.enqueue({ sessionId: world.api.world.item(first).data.id });
    await world.pass(MINUTE);
    expect(isAcked(world, second)).toBe(false);
    setKey(world, world.api.world.keyOf(world.environmentId));
    await world.until("the other one is out", () => reasonOf(world, OTHER, ELSEWHERE) === "EnvironmentIdShared");
    await world.until("both are served", () => world.item(second).state === "stopped", 10 * MINUTE);
    expect(serverOf(world, second)).toBe(NAME);
    holdsTrue(world);
  });

  test.each([
    ["wrong", WRONG_KEY],
    ["missing", ""],
  ])("or %s, the other one takes over, and the older one waits for its sessions afterwards", async (_title, key) => {
    const world = sharedWorld({ of: ELSEWHERE, servesMs: MINUTE });
    world.startOperator();
    const before = world.enqueue();
    await world.until("the older one serves", () => world.item(before).state === "active");
    setKey(world, key);
    await world.until("the other one serves", () => reasonOf(world, OTHER, ELSEWHERE) === "Ready");
    const first = world.enqueue();
    await world.until("its session runs", () => world.item(first).state === "active");
    expect(serverOf(world, first)).toBe(OTHER);
    setKey(world, world.api.world.keyOf(world.environmentId));
    await world.until("the older one waits", () => reasonOf(world, NAME) === "AwaitingSessions");
    const second = world.enqueue({ sessionId: world.api.world.item(first).data.id });
    await world.until("both are served", () => world.item(second).state === "stopped", 10 * MINUTE);
    expect(serverOf(world, second)).toBe(NAME);
    holdsTrue(world);
  });

  test("a new operator waits for its sessions too", async () => {
    const world = sharedWorld({ of: ELSEWHERE, servesMs: 2 * MINUTE });
    const operator = world.startOperator();
    const first = world.enqueue();
    await world.until("the session runs", () => world.item(first).state === "active");
    await world.until("its key was accepted", () => find(world, NAME)?.status?.queue !== undefined);
    operator.kill();
    setKey(world, WRONG_KEY);
    const second = world.enqueue({ sessionId: world.api.world.item(first).data.id });
    world.startOperator();
    await world.until("the other one waits", () => reasonOf(world, OTHER, ELSEWHERE) === "AwaitingSessions");
    await world.until("the next item is claimed", () => isAcked(world, second), 10 * MINUTE);
    expect(world.node.running.size).toBe(0);
    await world.until("the other one serves", () => world.item(second).state === "active");
    expect(serverOf(world, second)).toBe(OTHER);
    holdsTrue(world);
  });
});

test("a restart of the operator doesn't give the queue to a younger Environment", async () => {
  for (let seed = 1; seed <= 3; seed += 1) {
    const world = sharedWorld({ seed });
    const operator = world.startOperator();
    await world.until("the younger one is out", () => reasonOf(world, OTHER) === "EnvironmentIdShared");
    operator.kill();
    const ids = [world.enqueue(), world.enqueue()];
    world.startOperator();
    await world.until("both are served", () => ids.every((id) => world.item(id).state === "stopped"), 10 * MINUTE);
    expect(ids.map((id) => serverOf(world, id))).toEqual([NAME, NAME]);
    holdsTrue(world);
  }
});

test("a restart doesn't either while the older one's namespace can't be listed", async () => {
  const world = sharedWorld({ of: ELSEWHERE });
  const first = world.startOperator();
  await world.until("the younger one is out", () => reasonOf(world, OTHER, ELSEWHERE) === "EnvironmentIdShared");
  first.kill();
  const { kube } = world.startOperator();
  kube.intercept.push(({ verb, plural, namespace }) => {
    if (verb === "list" && plural === "environments" && namespace === NAMESPACE)
      throw refusal(500, "InternalError", "not now");
  });
  const id = world.enqueue();
  const message = () => conditionOf(world, "Stalled", OTHER, ELSEWHERE)?.message;
  await world.until(
    "the status says so",
    () => message()?.includes(`cannot list the Environments of ${NAMESPACE}`) === true,
  );
  await world.pass(MINUTE);
  expect(isAcked(world, id)).toBe(false);
  kube.intercept.splice(0);
  await world.until("the item is served", () => world.item(id).state === "stopped", 5 * MINUTE);
  expect(serverOf(world, id)).toBe(NAME);
  holdsTrue(world);
});

test("the pause of the older one pauses the queue, and the other one says so", async () => {
  const world = sharedWorld();
  world.patchEnvironment({ spec: { paused: true } });
  world.startOperator();
  await world.until("the other one is out", () => reasonOf(world, OTHER) === "EnvironmentIdShared");
  expect(conditionOf(world, "Ready", OTHER)?.message).toContain("which is older and paused");
  const id = world.enqueue();
  await world.pass(2 * MINUTE);
  expect(isAcked(world, id)).toBe(false);
});

test.each([
  ["without its Secret", null, BASE_URL],
  ["with a made-up key", WRONG_KEY, BASE_URL],
  ["with an address that is not allowed", WRONG_KEY, "https://forbidden.test"],
])("an older Environment %s blocks nothing, and is told no name", async (_title, key, baseUrl) => {
  const world = sharedWorld();
  world.allowedOrigin = (url) => !url.includes("forbidden");
  if (key !== null) world.createKey(ELSEWHERE, key);
  world.server.delete(ENVIRONMENTS, NAMESPACE, OTHER);
  world.createEnvironment(OTHER, ELSEWHERE);
  setCreated(world, OTHER, ELSEWHERE, new Date(world.clock.now() - MINUTE).toISOString());
  world.server.patch(ENVIRONMENTS, ELSEWHERE, OTHER, {
    metadata: { finalizers: [FINALIZER] },
    spec: { api: { baseUrl } },
  });
  const id = world.enqueue();
  world.startOperator();
  await world.until("the item is claimed", () => isAcked(world, id), 8 * SECOND);
  await world.pass(MINUTE);
  expect(JSON.stringify(find(world, OTHER, ELSEWHERE)?.status)).not.toContain(`${NAMESPACE}/${NAME}`);
});

test("a sleeping session of the older one doesn't hold up the other one, which serves its next message", async () => {
  const world = sharedWorld({
    of: ELSEWHERE,
    sessions: { template: TEMPLATE, warm: 1, maxConcurrent: 2, workspace: { type: "Pod", sleepSeconds: 3_600 } },
  });
  world.startOperator();
  const first = world.enqueue();
  await world.until("the session sleeps", () => world.podsOf("sleeping").length === 1, 5 * MINUTE);
  setKey(world, WRONG_KEY);
  await world.until("the other one serves", () => reasonOf(world, OTHER, ELSEWHERE) === "Ready");
  const second = world.enqueue({ sessionId: world.api.world.item(first).data.id });
  await world.until("the next message runs", () => world.item(second).state === "active", 2 * MINUTE);
  expect(serverOf(world, second)).toBe(OTHER);
  holdsTrue(world);
});

test("an Environment that is created again with another queue is served by the shard of that queue", async () => {
  const world = new LoopWorld({ shards: 2 });
  const shardOfId = (id: string) => shardOf(`${BASE_URL} ${id}`, 2);
  let { id } = world.api.world.createEnvironment({});
  while (shardOfId(id) === shardOfId(world.environmentId)) ({ id } = world.api.world.createEnvironment({}));
  world.createEnvironment();
  world.startOperator();
  await world.until("it is ready", () => reasonOf(world, NAME) === "Ready");
  world.server.delete(ENVIRONMENTS, NAMESPACE, NAME);
  world.createEnvironment();
  world.patchEnvironment({ spec: { environmentId: id } });
  setKey(world, world.api.world.keyOf(id));
  const next = world.api.world.enqueue(id, {}).id;
  await world.until("its item is served", () => world.item(next).state === "stopped", 2 * MINUTE);
  const old = world.enqueue();
  await world.pass(MINUTE);
  expect(isAcked(world, old)).toBe(false);
});
