import { describe, expect, test } from "vitest";
import { SECRETS } from "../../../src/kube/resource.ts";
import { readJournal } from "../../../src/protocol/journal.ts";
import { LoopWorld, type LoopWorldOptions, NAMESPACE, type Operator } from "./loop-world.ts";
import { BASE_URL, WorkApi } from "./work-api.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const MOVED = "https://moved.test";

interface Moving {
  readonly world: LoopWorld;
  readonly operator: Operator;
  /** The Work API at the other address: same environment and key, other items. */
  readonly moved: WorkApi;
  /** The item of the running session. */
  readonly id: string;
  move(): void;
  enqueueThere(): string;
}

/** Starts a session that is claimed at the first address. */
async function moving(options: LoopWorldOptions = {}, servesMs = 5 * MINUTE): Promise<Moving> {
  const world = new LoopWorld({ ...options, sessions: { maxConcurrent: 4, warm: 1, ...options.sessions } });
  const moved = new WorkApi(world.clock, { seed: 2 });
  moved.world.createEnvironment({ id: world.environmentId, key: world.api.world.keyOf(world.environmentId) });
  world.api.elsewhere.set(MOVED, moved);
  world.createEnvironment();
  const operator = world.startOperator();
  const program = options.sessions?.["lease"] === "Operator" ? "plain" : "stock";
  world.fate = () => ({ startError: false, program, servesMs });
  await world.until("a parked Pod", () => world.parked.length > 0);
  const id = world.enqueue();
  await world.until("a running session", () => world.item(id).state === "active");
  return {
    world,
    operator,
    moved,
    id,
    move: () => world.patchEnvironment({ spec: { api: { baseUrl: MOVED } } }),
    enqueueThere: () => moved.world.enqueue(world.environmentId, {}).id,
  };
}

const stateThere = ({ moved }: Moving, id: string) => moved.world.item(id).state;

function holdsTrue({ world, moved }: Moving): void {
  expect([...world.wrongs, ...world.violations, ...moved.world.violations]).toEqual([]);
}

describe("an Environment whose api.baseUrl changes while sessions run", () => {
  test.each(["Worker", "Operator"] as const)(
    "lease: %s: sessions stay at the API that they were claimed from, and new ones are claimed from the new API",
    async (lease) => {
      const moving_ = await moving({ sessions: { lease } });
      const { world, id } = moving_;
      moving_.move();
      const there = moving_.enqueueThere();
      await world.until("a session of the new API runs", () => stateThere(moving_, there) === "active", 2 * MINUTE);
      await world.pass(3 * MINUTE);
      expect(world.item(id).state).toBe("active");
      expect(world.told.filter((words) => words.startsWith("SessionEnded"))).toEqual([]);
      await world.until(
        "the items at both addresses are stopped",
        () => world.isSettled && stateThere(moving_, there) === "stopped",
        20 * MINUTE,
      );
      expect(world.item(id).stoppedBy?.as).toBe(lease === "Worker" ? "sessions-token" : "environment-key");
      expect(world.told.join("\n")).not.toMatch(/lease|LeaseLost/);
      holdsTrue(moving_);
    },
  );

  test.each(["Worker", "Operator"] as const)(
    "lease: %s: an operator that starts after the change settles deleted sessions at the old address",
    async (lease) => {
      const moving_ = await moving({ sessions: { lease } });
      const { world, operator, id } = moving_;
      operator.kill();
      moving_.move();
      for (const { pod } of [...world.node.running]) world.server.delete({ plural: "pods" } as never, NAMESPACE, pod);
      world.startOperator();
      await world.until(
        "the item is stopped and its claim is settled",
        () => world.item(id).state === "stopped" && world.claims.length === 0,
        20 * MINUTE,
      );
      holdsTrue(moving_);
    },
  );

  test("parked Pods for the old address get no item and no key of the new one", async () => {
    const moving_ = await moving({ sessions: { credential: "WorkSecret", warm: 3 } }, 5 * SECOND);
    const { world } = moving_;
    await world.until("three parked Pods", () => world.parked.length === 3);
    const old = new Set(world.parked.map(({ metadata }) => metadata.name));
    moving_.move();
    const there = [moving_.enqueueThere(), moving_.enqueueThere(), moving_.enqueueThere()];
    await world.until(
      "all items at the new address are stopped",
      () => there.every((id) => stateThere(moving_, id) === "stopped"),
      10 * MINUTE,
    );
    const told = world.told.filter((words) => there.some((id) => words.includes(id))).join("\n");
    for (const name of old) expect(told).not.toContain(name);
    await world.until("everything is settled", () => world.isSettled, 10 * MINUTE);
    holdsTrue(moving_);
  });

  test("an old address that is no longer allowed gets no request, and Ready names it", async () => {
    const moving_ = await moving({ sessions: { lease: "Operator" } }, 20 * MINUTE);
    const { world, id } = moving_;
    world.allowedOrigin = (url) => url === MOVED;
    moving_.move();
    await world.pass(5 * SECOND);
    world.api.origins.clear();
    await world.pass(10 * MINUTE);
    expect([...world.api.origins]).toEqual([MOVED]);
    expect(world.claims.length).toBe(1);
    expect(readyMessage(world)).toContain(BASE_URL);
    world.allowedOrigin = () => true;
    // The lease has lapsed meanwhile: the item waits for another client's poll there.
    await world.until("no claim is left", () => world.claims.length === 0, 30 * MINUTE);
    expect(world.item(id).state).toBe("queued");
    await world.until("Ready no longer names the old address", () => !readyMessage(world).includes(BASE_URL));
    holdsTrue(moving_);
  });

  test.each(["Worker", "Operator"] as const)(
    "lease: %s: sessions stay where they were claimed while the spec names an address that is not allowed",
    async (lease) => {
      const moving_ = await moving({ sessions: { lease } }, 20 * MINUTE);
      const { world, id } = moving_;
      world.allowedOrigin = (url) => url === BASE_URL;
      moving_.move();
      await world.pass(10 * MINUTE);
      expect(world.item(id).state).toBe("active");
      expect(moved(moving_)).toEqual([]);
      await world.until("the item is stopped", () => world.item(id).state === "stopped", 30 * MINUTE);
      holdsTrue(moving_);
    },
  );

  test.each(["Worker", "Operator"] as const)(
    "lease: %s: an old address that is permanently gone holds a claim for an hour without blocking others",
    async (lease) => {
      const moving_ = await moving({ sessions: { lease, maxConcurrent: 1 } });
      const { world, id } = moving_;
      moving_.move();
      world.api.elsewhere.set(BASE_URL, new WorkApi(world.clock, { seed: 3 }));
      const there = moving_.enqueueThere();
      await world.until("no container runs", () => world.node.running.size === 0, 20 * MINUTE);
      await world.pass(50 * MINUTE);
      expect(world.claims.map((claim) => readJournal(claim)?.workId)).toEqual([id]);
      await world.until(
        "the item at the new address is stopped",
        () => stateThere(moving_, there) === "stopped",
        60 * MINUTE,
      );
      await world.until("no claim is left", () => world.claims.length === 0, 30 * MINUTE);
      expect(world.told.join("\n")).toContain(id);
      holdsTrue(moving_);
    },
  );

  test("a poll under way during a revert of the spec can still start a session, which stays where it began", async () => {
    const moving_ = await moving({ sessions: { lease: "Operator" } }, 30 * MINUTE);
    const { world, operator, moved } = moving_;
    moving_.move();
    await world.until("only Pods for the new address are parked", () => isReadyFor(world, MOVED), 5 * MINUTE);
    await world.pass(5 * MINUTE);
    // The operator polls without pauses again after an item.
    world.fate = () => ({ startError: false, program: "plain", servesMs: SECOND });
    const first = moving_.enqueueThere();
    const isOver = () => stateThere(moving_, first) === "stopped" && world.claims.length === 1;
    await world.until("no session of the new address runs", () => isOver() && isReadyFor(world, MOVED));
    world.fate = () => ({ startError: false, program: "plain", servesMs: 30 * MINUTE });
    const polls = () => moved.requests.get("poll") ?? 0;
    const before = polls();
    await world.until("a poll begins", () => polls() > before);
    let there = "";
    operator.kube.delay = ({ verb, plural }) => {
      if (verb !== "patch" || plural !== "environments") return 0;
      there ||= moving_.enqueueThere();
      return 5 * SECOND;
    };
    world.patchEnvironment({ spec: { api: { baseUrl: BASE_URL } } });
    await world.until(
      "the poll in flight starts a session",
      () => there !== "" && stateThere(moving_, there) === "active",
    );
    await world.pass(5 * MINUTE);
    expect(stateThere(moving_, there)).toBe("active");
    expect(world.told.filter((words) => words.startsWith("SessionEnded"))).toEqual([]);
    holdsTrue(moving_);
  });

  test("an old address that rejects the key does not block sessions at the new one", async () => {
    const moving_ = await moving();
    const { world, moved } = moving_;
    const key = "sk-ant-oat01-another";
    moved.world.setKey(world.environmentId, key);
    world.server.patch(SECRETS, NAMESPACE, "key", { data: { "environment-key": Buffer.from(key).toString("base64") } });
    moving_.move();
    const there = moving_.enqueueThere();
    await world.until(
      "the item at the new address is stopped",
      () => stateThere(moving_, there) === "stopped",
      10 * MINUTE,
    );
    await world.until("no container runs", () => world.node.running.size === 0, 20 * MINUTE);
    await world.pass(2 * MINUTE);
    expect(readyMessage(world)).toContain(BASE_URL);
    const next = moving_.enqueueThere();
    await world.until("the next item is stopped", () => stateThere(moving_, next) === "stopped", 10 * MINUTE);
    holdsTrue(moving_);
  });
});

describe("an Environment whose api.baseUrl and key Secret change in one patch while a session runs", () => {
  const THEIRS = "sk-ant-oat01-of-the-other-address";

  /** The Authorization headers that each address received. */
  function heard(...apis: WorkApi[]): Set<string>[] {
    return apis.map((api) => {
      const keys = new Set<string>();
      api.answer = (_call, { headers }) => {
        keys.add(headers["authorization"] ?? "");
        return undefined;
      };
      return keys;
    });
  }

  test.each(["Worker", "Operator"] as const)(
    "lease: %s: neither address gets the other's key, and the session stays where it was claimed",
    async (lease) => {
      const moving_ = await moving({ sessions: { lease } }, 10 * MINUTE);
      const { world, operator, moved, id } = moving_;
      moved.world.setKey(world.environmentId, THEIRS);
      world.server.create(SECRETS, {
        metadata: { name: "theirs", namespace: NAMESPACE },
        data: { "environment-key": Buffer.from(THEIRS).toString("base64") },
      });
      const [here = new Set(), there = new Set()] = heard(world.api, moved);
      // Reading the new key takes a while.
      operator.kube.delay = ({ verb, plural }) => (verb === "get" && plural === "secrets" ? 5 * SECOND : 0);
      world.patchEnvironment({ spec: { api: { baseUrl: MOVED, keySecretRef: { name: "theirs" } } } });
      await world.pass(8 * MINUTE);
      expect(world.item(id).state).toBe("active");
      expect([...there]).toEqual([`Bearer ${THEIRS}`]);
      expect([...here]).not.toContain(`Bearer ${THEIRS}`);
      const item = moving_.enqueueThere();
      await world.until(
        "the items at both addresses are stopped",
        () => world.isSettled && stateThere(moving_, item) === "stopped",
        20 * MINUTE,
      );
      expect(world.told.join("\n")).not.toMatch(/lease|LeaseLost|KeyRejected|KeyMissing/);
      expect([...here]).not.toContain(`Bearer ${THEIRS}`);
      holdsTrue(moving_);
    },
  );

  test("no request is sent to the new address while the new Secret is missing", async () => {
    const moving_ = await moving({ sessions: { lease: "Operator" } }, 20 * MINUTE);
    const { world, moved, id } = moving_;
    moved.world.setKey(world.environmentId, THEIRS);
    const [here = new Set(), there = new Set()] = heard(world.api, moved);
    world.patchEnvironment({ spec: { api: { baseUrl: MOVED, keySecretRef: { name: "theirs" } } } });
    await world.pass(8 * MINUTE);
    expect([...there]).toEqual([]);
    expect(world.item(id).state).toBe("active");
    world.server.create(SECRETS, {
      metadata: { name: "theirs", namespace: NAMESPACE },
      data: { "environment-key": Buffer.from(THEIRS).toString("base64") },
    });
    const item = moving_.enqueueThere();
    await world.until("a session of the new API runs", () => stateThere(moving_, item) === "active", 5 * MINUTE);
    expect(world.item(id).state).toBe("active");
    expect([...there]).toEqual([`Bearer ${THEIRS}`]);
    expect([...here]).not.toContain(`Bearer ${THEIRS}`);
  });
});

/** The calls that the other address received. */
const moved = ({ moved }: Moving) => [...moved.requests.keys()];

function isReadyFor(world: LoopWorld, address: string): boolean {
  return (
    world.parked.length > 0 && world.parked.every((pod) => pod.metadata.annotations?.["berth.dev/api"] === address)
  );
}

function readyMessage(world: LoopWorld): string {
  const { conditions = [] } = (world.environment?.["status"] ?? {}) as {
    conditions?: { type: string; message: string }[];
  };
  return conditions.find(({ type }) => type === "Ready")?.message ?? "";
}
