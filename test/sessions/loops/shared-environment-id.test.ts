import { describe, expect, test } from "vitest";
import {
  ANNOTATION_SESSION_ID,
  API_VERSION,
  KIND,
  LABEL_ENVIRONMENT,
  LABEL_PHASE,
  LABEL_ROLE,
} from "../../../src/api/names.ts";
import { shardOf } from "../../../src/election/shard-plan.ts";
import { PODS, SECRETS } from "../../../src/kube/resource.ts";
import { renderJournal } from "../../../src/protocol/journal.ts";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import { refusal } from "./api-server.ts";
import { LoopWorld, type LoopWorldOptions, NAME, NAMESPACE } from "./loop-world.ts";
import { BASE_URL, WorkApi } from "./work-api.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const OTHER = "sibling";
const ELSEWHERE = "elsewhere";
const SECOND_KEY = "sk-ant-oat01-second";

/**
 * A world of two Environments with one environmentId. Each has a single Pod, so that the other one polls while it
 * works.
 */
function sharedWorld(options: LoopWorldOptions & { elsewhere?: boolean; servesMs?: number } = {}): LoopWorld {
  const world = new LoopWorld({
    sessions: { warm: 1, maxConcurrent: 2, retainFinishedSeconds: 3_600 },
    fate: () => ({ startError: false, program: "stock", servesMs: options.servesMs ?? 20 * SECOND }),
    namespaces: [NAMESPACE, ELSEWHERE],
    ...options,
  });
  world.createEnvironment();
  if (options.elsewhere) world.createKey(ELSEWHERE);
  world.createEnvironment(OTHER, options.elsewhere ? ELSEWHERE : NAMESPACE);
  return world;
}

const environmentOf = (world: LoopWorld, workId: string) => podOf(world, workId)?.metadata.labels?.[LABEL_ENVIRONMENT];

const podOf = (world: LoopWorld, workId: string) =>
  world.pods.find(({ metadata }) => metadata.annotations?.["berth.dev/work-id"] === workId);

const sessionOf = (world: LoopWorld, workId: string) => world.api.world.item(workId).data.id;

/** Lets time pass until all items are served. Returns the maximum of concurrent containers of one session. */
async function mostAtOnce(world: LoopWorld, ids: readonly string[]): Promise<number> {
  let most = 0;
  await world.until(
    "all items are served",
    () => {
      const running = [...world.node.running].map(({ workId }) => sessionOf(world, workId));
      for (const session of running) most = Math.max(most, running.filter((other) => other === session).length);
      return ids.every((id) => world.item(id).state === "stopped");
    },
    10 * MINUTE,
  );
  expect([...world.wrongs, ...world.violations]).toEqual([]);
  for (const id of ids) expect(world.item(id).acks).toHaveLength(1);
  return most;
}

const bothParked = (world: LoopWorld) =>
  world.until(
    "both Environments have a parked Pod",
    () => new Set(world.parked.map(({ metadata }) => metadata.labels?.[LABEL_ENVIRONMENT])).size === 2,
  );

test("the Environments of these tests are in different shards if there are two", () => {
  expect(shardOf(`${NAMESPACE}/${NAME}`, 2)).not.toBe(shardOf(`${NAMESPACE}/${OTHER}`, 2));
});

describe.each([
  ["one namespace", {}],
  ["two namespaces", { elsewhere: true }],
  ["two shards", { shards: 2 }],
] as const)("two Environments with one environmentId in %s", (_where, where) => {
  test("run the next item of a session only after the other Environment's Pod of it has ended", async () => {
    for (let seed = 1; seed <= 3; seed += 1) {
      const world = sharedWorld({ ...where, seed });
      world.startOperator();
      await bothParked(world);
      const first = world.enqueue();
      await world.until("the session runs", () => world.item(first).state === "active");
      const sessionId = sessionOf(world, first);
      const more = Array.from({ length: 3 }, () => world.enqueue({ sessionId }));
      const another = world.enqueue();
      expect(await mostAtOnce(world, [first, ...more, another]), `seed ${seed}`).toBe(1);
    }
  });

  test("run only one of two items of a session that are offered to both at the same moment", async () => {
    for (let seed = 1; seed <= 5; seed += 1) {
      const world = sharedWorld({ ...where, seed });
      world.startOperator();
      await bothParked(world);
      const first = world.enqueue();
      const second = world.enqueue({ sessionId: sessionOf(world, first) });
      expect(await mostAtOnce(world, [first, second]), `seed ${seed}`).toBe(1);
    }
  });
});

test("both Environments serve different sessions at the same time", async () => {
  const world = sharedWorld({ sessions: { warm: 1, maxConcurrent: 1 }, servesMs: MINUTE });
  world.startOperator();
  await bothParked(world);
  const ids = [world.enqueue(), world.enqueue()];
  await world.until("both containers run", () => world.node.running.size === 2, 20 * SECOND);
  expect(new Set(ids.map((id) => environmentOf(world, id)))).toEqual(new Set([NAME, OTHER]));
});

describe("after a restart of the operator", () => {
  /** Kills the operator after one Environment acknowledged an item, before a container is opened for it. */
  async function diesBeforeOpening() {
    const world = sharedWorld({ elsewhere: true });
    const operator = world.startOperator();
    await bothParked(world);
    operator.kube.intercept.push(({ verb, plural, name }) => {
      if (verb === "patch" && plural === "secrets" && name !== "key") throw refusal(503, "Unavailable", "not now");
    });
    const first = world.enqueue();
    await world.until("the item is acknowledged", () => world.item(first).acks.length === 1);
    operator.kill();
    // Until then, the server still answers the polls of the dead operator.
    await world.pass(2 * SECOND);
    const owner = world.claims[0]?.metadata.namespace ?? "";
    const second = world.enqueue({ sessionId: sessionOf(world, first) });
    return { world, first, second, owner };
  }

  test("an Environment claims no session of the other's before the other's Secrets are read", async () => {
    const { world, first, second, owner } = await diesBeforeOpening();
    const next = world.startOperator();
    next.kube.delay = ({ verb, plural, namespace }) =>
      verb === "list" && plural === "secrets" && namespace === owner ? 8 * SECOND : 0;
    expect(await mostAtOnce(world, [first, second])).toBe(1);
  });

  test("an Environment whose Secrets can't be listed delays the other one by at most half a minute", async () => {
    const { world, owner } = await diesBeforeOpening();
    const next = world.startOperator();
    const beganMs = world.clock.monotonic();
    next.kube.intercept.push(({ verb, plural, namespace }) => {
      if (verb === "list" && plural === "secrets" && namespace === owner) throw refusal(403, "Forbidden", "no leave");
    });
    const another = world.enqueue();
    await world.until("the item is claimed", () => world.item(another).acks.length > 0, 2 * MINUTE);
    expect(world.clock.monotonic() - beganMs).toBeGreaterThan(25 * SECOND);
    expect(podOf(world, another)?.metadata.namespace).not.toBe(owner);
  });

  test("an Environment respects a Pod of the other one, even while the other's Secrets can't be listed", async () => {
    const world = sharedWorld({ elsewhere: true, servesMs: 3 * MINUTE });
    const operator = world.startOperator();
    await bothParked(world);
    const first = world.enqueue();
    await world.until("the session runs", () => world.item(first).state === "active");
    operator.kill();
    const owner = podOf(world, first)?.metadata.namespace;
    const next = world.startOperator();
    next.kube.intercept.push(({ verb, plural, namespace }) => {
      if (verb === "list" && plural === "secrets" && namespace === owner) throw refusal(403, "Forbidden", "no leave");
    });
    const second = world.enqueue({ sessionId: sessionOf(world, first) });
    await world.pass(2 * MINUTE);
    expect(world.item(second).acks).toEqual([]);
    next.kube.intercept.splice(0);
    expect(await mostAtOnce(world, [first, second])).toBe(1);
  });
});

test("an Environment without a valid key does not block sessions that are named in its namespace", async () => {
  const world = new LoopWorld({
    namespaces: [NAMESPACE, ELSEWHERE],
    sessions: { warm: 1, maxConcurrent: 2 },
    fate: ({ metadata }) => ({
      startError: false,
      program: metadata.name === FORGED ? "silent" : "stock",
      servesMs: MINUTE,
    }),
  });
  world.createEnvironment();
  world.createKey(ELSEWHERE, "sk-ant-oat01-made-up");
  world.createEnvironment(OTHER, ELSEWHERE);
  const operator = world.startOperator();
  const before = world.enqueue();
  await world.until("a session is served", () => world.item(before).state === "stopped" && world.claims.length === 0);
  operator.kill();
  forge(world, sessionOf(world, before));
  world.startOperator();
  await world.until("the forged Pod runs", () => [...world.node.running].some(({ pod }) => pod === FORGED));
  const id = world.enqueue({ sessionId: sessionOf(world, before) });
  await world.until("the item is claimed", () => world.item(id).acks.length > 0, 40 * SECOND);
  expect([...world.node.running].map(({ pod }) => pod)).toContain(FORGED);
});

const FORGED = "berth-sibling-forged";

/** Creates an assigned Pod and a claim for this session, in a namespace that never had an item of it. */
function forge(world: LoopWorld, sessionId: string): void {
  const { uid = "" } = world.server.find(ENVIRONMENTS, ELSEWHERE, OTHER)?.metadata ?? {};
  const { metadata } = world.server.create(PODS, {
    metadata: {
      name: FORGED,
      namespace: ELSEWHERE,
      labels: { [LABEL_ENVIRONMENT]: OTHER, [LABEL_ROLE]: "session", [LABEL_PHASE]: "assigned" },
      annotations: { [ANNOTATION_SESSION_ID]: sessionId },
      ownerReferences: [{ kind: "Environment", name: OTHER, uid, controller: true }],
    },
    spec: { containers: [{ name: "worker", image: "worker:1" }] },
  } as never);
  const journal = {
    use: "session" as const,
    lease: "Worker" as const,
    environmentUid: uid,
    podUid: metadata.uid ?? "",
    workId: "work_forged",
    sessionId,
    queuedAt: "",
    polledFromMs: world.clock.now(),
    polledUntilMs: world.clock.now(),
  };
  const credential = Buffer.from(JSON.stringify({ sessions_token: "of-nobody" })).toString("base64url");
  const secret = renderJournal({ name: FORGED, namespace: ELSEWHERE, environment: OTHER }, journal, credential);
  const stringData = {
    ...secret.stringData,
    "work-secret": credential,
    "acknowledged-at": new Date(world.clock.now()).toISOString(),
  };
  world.server.create(SECRETS, { ...secret, stringData });
}

test.each([
  ["without its Secret", null, BASE_URL],
  ["with a made-up key", "sk-ant-oat01-made-up", BASE_URL],
  ["with an address that never answers", "sk-ant-oat01-made-up", "https://silent.test"],
  ["with an address that is not allowed", "sk-ant-oat01-made-up", "https://forbidden.test"],
])(
  "an Environment of another namespace %s doesn't delay the claims of a new operator",
  async (_title, key, baseUrl) => {
    const world = new LoopWorld({ namespaces: [NAMESPACE, ELSEWHERE] });
    world.allowedOrigin = (url) => !url.includes("forbidden");
    const silent = new WorkApi(world.clock);
    silent.delay = () => 60 * MINUTE;
    world.api.elsewhere.set("https://silent.test", silent);
    world.createEnvironment();
    if (key !== null) world.createKey(ELSEWHERE, key);
    world.createEnvironment(OTHER, ELSEWHERE);
    world.server.patch(ENVIRONMENTS, ELSEWHERE, OTHER, { spec: { api: { baseUrl } } });
    const id = world.enqueue();
    world.startOperator();
    await world.until("the item is claimed", () => world.item(id).acks.length > 0, 8 * SECOND);
  },
);

test("an Environment with a second key of the same environment counts", async () => {
  const world = sharedWorld({ servesMs: 3 * MINUTE });
  world.createKey(ELSEWHERE, SECOND_KEY);
  world.server.delete(ENVIRONMENTS, NAMESPACE, OTHER);
  world.createEnvironment(OTHER, ELSEWHERE);
  world.api.answer = (_call, { headers }) => {
    const isSecond = Reflect.get(headers, "authorization") === `Bearer ${SECOND_KEY}`;
    if (isSecond) Reflect.set(headers, "authorization", `Bearer ${world.api.world.keyOf(world.environmentId)}`);
    return undefined;
  };
  world.startOperator();
  await bothParked(world);
  const ids = [world.enqueue(), world.enqueue(), world.enqueue()];
  await world.until("all containers run", () => world.node.running.size === 3, MINUTE);
  const served = new Set(ids.map((id) => podOf(world, id)?.metadata.namespace));
  expect(served).toEqual(new Set([NAMESPACE, ELSEWHERE]));
  const more = ids.map((id) => world.enqueue({ sessionId: sessionOf(world, id) }));
  expect(await mostAtOnce(world, [...ids, ...more])).toBe(1);
});

test("an Environment in always-on mode doesn't delay others", async () => {
  const world = new LoopWorld();
  world.createEnvironment();
  const { spec } = structuredClone(world.environment) ?? {};
  const { sessions: _, ...rest } = spec as Record<string, unknown>;
  const template = { spec: { containers: [{ name: "worker", image: "worker:1" }] } };
  world.server.create(ENVIRONMENTS, {
    apiVersion: API_VERSION,
    kind: KIND,
    metadata: { name: OTHER, namespace: NAMESPACE },
    spec: { ...rest, workers: { maxReplicas: 1, template } },
  } as never);
  world.startOperator();
  await world.until("a parked Pod", () => world.parked.length > 0);
  const id = world.enqueue();
  await world.until("the item is claimed", () => world.item(id).acks.length > 0, 2 * SECOND);
});

test("the other Environment can claim a session of an Environment that was deleted without its finalizer", async () => {
  const world = sharedWorld({ elsewhere: true, servesMs: 3 * MINUTE });
  world.startOperator();
  await bothParked(world);
  const first = world.enqueue();
  await world.until("the session runs", () => world.item(first).state === "active");
  const { namespace = "", labels } = podOf(world, first)?.metadata ?? {};
  const name = labels?.[LABEL_ENVIRONMENT] ?? "";
  world.server.patch(ENVIRONMENTS, namespace, name, { metadata: { finalizers: null } });
  world.server.delete(ENVIRONMENTS, namespace, name);
  await world.until("the Pod is gone", () => !podOf(world, first), 2 * MINUTE);
  const second = world.enqueue({ sessionId: sessionOf(world, first) });
  await world.until("the item is claimed", () => world.item(second).acks.length > 0, MINUTE);
});
