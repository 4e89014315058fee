import { describe, expect, test } from "vitest";
import { json } from "../../../simulator/http.ts";
import { FINALIZER } from "../../../src/api/names.ts";
import { SECRETS } from "../../../src/kube/resource.ts";
import { renderJournal } from "../../../src/protocol/journal.ts";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import { refusal } from "./api-server.ts";
import { LoopWorld, type LoopWorldOptions, NAME, NAMESPACE, type Operator } from "./loop-world.ts";
import { FAIR } from "./network.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;

/** A world with an Environment and one operator. */
function served(options: LoopWorldOptions = {}): { world: LoopWorld; operator: Operator } {
  const world = new LoopWorld(options);
  world.createEnvironment();
  return { world, operator: world.startOperator() };
}

function holdsTrue(world: LoopWorld): void {
  expect([...world.wrongs, ...world.violations]).toEqual([]);
}

describe("capacity", () => {
  test("serves a burst beyond the warm Pods, and never exceeds maxConcurrent", async () => {
    const { world } = served({ sessions: { maxConcurrent: 3, warm: 1 } });
    await world.until("a parked Pod", () => world.parked.length > 0);
    for (let n = 0; n < 8; n += 1) world.enqueue();
    await world.until("everything is settled", () => world.isSettled);
    expect(world.items.every(({ stoppedBy }) => stoppedBy?.as === "sessions-token")).toBe(true);
    expect(world.maxLivePods).toBeLessThanOrEqual(3);
    holdsTrue(world);
  });

  test("creates a Pod for an item that another client polled and dropped, even with no warm Pods", async () => {
    const { world } = served({ sessions: { maxConcurrent: 2, warm: 0 } });
    const id = world.enqueue();
    const poll = { workerId: "died", reclaimMs: 5_000, blockMs: undefined, duplicate: false };
    await world.api.world.environment(world.environmentId).poll({ ...poll, signal: AbortSignal.abort() });
    await world.until("the item is stopped", () => world.item(id).state === "stopped", 2 * MINUTE);
    holdsTrue(world);
  });
});

describe("Pods that are deleted, or can't be", () => {
  /** Refuses requests of this kind until `stop` is called. */
  function refuse(operator: Operator, verb: string, plural: string, error = refusal(403, "Forbidden", "no leave")) {
    let refused = 0;
    operator.kube.intercept.push((request) => {
      if (request.verb !== verb || request.plural !== plural) return;
      refused += 1;
      throw error;
    });
    return { stop: () => operator.kube.intercept.splice(0), count: () => refused };
  }

  test("a free Pod whose slot can't be locked is retried with pauses, and not replaced meanwhile", async () => {
    const { world, operator } = served({ sessions: { maxConcurrent: 2, warm: 2 } });
    await world.until("two parked Pods", () => world.parked.length === 2);
    const refused = refuse(operator, "create", "secrets");
    world.patchEnvironment({ spec: { sessions: { warm: 0, maxConcurrent: 1 } } });
    await world.pass(5 * MINUTE);
    expect(refused.count()).toBeGreaterThan(3);
    expect(refused.count()).toBeLessThan(60);
    expect(world.pods.length).toBe(2);
    refused.stop();
    await world.until(
      "at most one Pod and no claim is left",
      () => world.pods.length <= 1 && world.claims.length === 0,
    );
  });

  test("items stay in the queue while Pods can't be read, and the condition says why", async () => {
    const { world, operator } = served({ sessions: { maxConcurrent: 10, warm: 3 } });
    await world.until("parked Pods", () => world.parked.length === 3);
    const refused = refuse(operator, "get", "pods");
    const ids = [world.enqueue(), world.enqueue(), world.enqueue()];
    await world.pass(5 * MINUTE);
    expect(world.conditionOf("Ready")?.message).toMatch(
      /Berth claims nothing while it cannot read Pods.*give the operator permission to get Pods/,
    );
    expect(refused.count()).toBeGreaterThan(3);
    // One try per offer of an item.
    expect(refused.count()).toBeLessThan(3 * 30);
    expect(ids.map((id) => [world.item(id).state, world.item(id).acks.length])).toEqual(ids.map(() => ["queued", 0]));
    expect(world.claims).toEqual([]);
    refused.stop();
    await world.until(
      "all items are stopped",
      () => ids.every((id) => world.item(id).state === "stopped"),
      10 * MINUTE,
    );
    expect(world.conditionOf("Ready")?.status).toBe("True");
    expect([...world.wrongs, ...world.violations]).toEqual([]);
  });

  test("refused reads of a Pod by a busy server affect Ready only after 45 seconds", async () => {
    const { world, operator } = served({ sessions: { maxConcurrent: 10, warm: 3 } });
    await world.until("parked Pods", () => world.parked.length === 3);
    const refused = refuse(operator, "get", "pods", refusal(503, "ServiceUnavailable", "busy"));
    const id = world.enqueue();
    await world.until("a read is refused", () => refused.count() > 0);
    await world.pass(40 * SECOND);
    expect(world.conditionOf("Ready")?.status).toBe("True");
    await world.pass(20 * SECOND);
    expect(world.conditionOf("Ready")).toMatchObject({ status: "False", reason: "NothingStarts" });
    refused.stop();
    await world.until("the item is stopped", () => world.item(id).state === "stopped", 10 * MINUTE);
    await world.until("Ready is True", () => world.conditionOf("Ready")?.status === "True", MINUTE);
  });

  test("Pods whose deletion hangs delay neither one another nor new Pods", async () => {
    const { world, operator } = served({ sessions: { maxConcurrent: 8, warm: 4 } });
    await world.until("parked Pods", () => world.parked.length === 4);
    const old = new Set(world.pods.map(({ metadata }) => metadata.uid));
    operator.kube.delay = ({ verb, plural }) => (verb === "delete" && plural === "pods" ? 25 * SECOND : 0);
    const containers = [{ name: "worker", image: "worker:2" }];
    world.patchEnvironment({ spec: { sessions: { template: { spec: { containers } } } } });
    const fresh = () => world.parked.filter(({ metadata }) => !old.has(metadata.uid));
    await world.until("two new Pods exist", () => fresh().length >= 2, 20 * SECOND);
    await world.until(
      "all old Pods are gone",
      () => !world.pods.some(({ metadata }) => old.has(metadata.uid)),
      3 * MINUTE,
    );
    await world.until("four new Pods exist", () => fresh().length === 4);
    await world.until("no removal Secret is left", () => world.claims.length === 0);
    expect(world.maxLivePods).toBeLessThanOrEqual(9);
  });

  test("a lock that could not be deleted after its Pod is deleted later", async () => {
    const { world, operator } = served({ sessions: { maxConcurrent: 2, warm: 2 }, timing: { warmScaleDownMs: 1_000 } });
    await world.until("two parked Pods", () => world.parked.length === 2);
    const refused = refuse(operator, "delete", "secrets");
    world.patchEnvironment({ spec: { sessions: { warm: 0 } } });
    await world.until("the Pods are gone", () => world.pods.length === 0);
    expect(world.claims.length).toBe(2);
    refused.stop();
    await world.until("no Secret is left", () => world.claims.length === 0);
  });

  test("a lock whose creation got no answer is recognized at the next try", async () => {
    const { world } = served({ sessions: { maxConcurrent: 3, warm: 3 }, timing: { warmScaleDownMs: 1_000 } });
    await world.until("three parked Pods", () => world.parked.length === 3);
    world.weather.kube = { lost: 0.5, slow: 0, refused: 0 };
    world.patchEnvironment({ spec: { sessions: { warm: 0 } } });
    await world.until("no Pod and no Secret is left", () => world.pods.length + world.claims.length === 0, 60 * MINUTE);
  });

  test("a removal of an earlier process whose deletion is refused does not block sessions", async () => {
    const { world, operator } = served({ sessions: { maxConcurrent: 2, warm: 2 }, timing: { warmScaleDownMs: 1_000 } });
    await world.until("two parked Pods", () => world.parked.length === 2);
    refuse(operator, "delete", "pods");
    world.patchEnvironment({ spec: { sessions: { warm: 1 } } });
    await world.until("the Secret of a removal exists", () => world.claims.length > 0);
    operator.kill();
    const next = world.startOperator();
    const refused = refuse(next, "delete", "pods");
    const id = world.enqueue();
    await world.until("the item is served", () => world.item(id).state === "stopped");
    refused.stop();
    await world.until("everything is settled", () => world.isSettled);
    holdsTrue(world);
  });

  test("Pods that the watch does not show are not created again", async () => {
    const { world } = served({ sessions: { maxConcurrent: 4, warm: 0 } });
    await world.pass(5 * SECOND);
    world.weather.watch = { lagMs: 100 * MINUTE, breaks: 0 };
    for (let n = 0; n < 10; n += 1) world.enqueue();
    await world.pass(3 * MINUTE);
    const created = world.server.history.filter(({ plural, type }) => plural === "pods" && type === "ADDED");
    expect(created.length).toBe(4);
  });

  test("a Pod that runs without a claim is deleted", async () => {
    const { world } = served();
    await world.until("a parked Pod", () => world.parked.length > 0);
    const [pod] = world.parked;
    const name = pod?.metadata.name ?? "";
    // Another client's Secret under the Pod's name starts the container. After its deletion, no record names a session.
    const secret = Buffer.from(JSON.stringify({ sessions_token: "none" })).toString("base64url");
    world.server.create(SECRETS, {
      metadata: { name, namespace: NAMESPACE },
      stringData: { "work-id": "work_x", "session-id": "s", "work-secret": secret },
    });
    world.fate = () => ({ startError: false, program: "silent", servesMs: 0 });
    await world.until("the container runs", () => world.node.running.size > 0);
    world.server.delete(SECRETS, NAMESPACE, name);
    await world.until("the Pod is gone", () => !world.pods.some(({ metadata }) => metadata.name === name), 5 * MINUTE);
    await world.until("another Pod is parked", () => world.parked.length > 0);
    expect(world.claims).toEqual([]);
  });

  test("a journal written after the initial list is found, and its Pod is freed", async () => {
    const { world } = served({ sessions: { warm: 2, parkedMaxAgeSeconds: 0 } });
    await world.until("two parked Pods", () => world.parked.length === 2);
    const [pod] = world.parked;
    const { name = "", uid = "" } = pod?.metadata ?? {};
    const nowMs = world.clock.now();
    const journal = renderJournal(
      { name, namespace: NAMESPACE, environment: NAME },
      {
        ...{ use: "session", lease: "Worker", environmentUid: world.environment?.metadata.uid ?? "", podUid: uid },
        ...{ workId: "work_late", sessionId: "session_late", queuedAt: "" },
        ...{ polledFromMs: nowMs, polledUntilMs: nowMs },
      },
      "c2VjcmV0",
    );
    world.server.create(SECRETS, journal);
    await world.until("no Secret is left", () => world.claims.length === 0, 3 * MINUTE);
    expect(world.pods.map(({ metadata }) => metadata.name)).toContain(name);
    await world.until("both Pods are parked", () => world.parked.length >= 2);
    expect(world.told.filter((text) => text.includes("session_late"))).toEqual([]);
    holdsTrue(world);
  });

  test("an assigned Pod whose Secret is unknown to a new process is adopted, not deleted", async () => {
    const { world, operator } = served();
    world.fate = () => ({ startError: false, program: "stock", servesMs: 2 * MINUTE });
    await world.until("a parked Pod", () => world.parked.length > 0);
    const id = world.enqueue();
    await world.until("a running session", () => world.item(id).state === "active");
    operator.kill();
    // Simulates a journal that is written after the next process has listed the Secrets.
    const next = world.startOperator();
    const record = world.claims[0];
    const name = record?.metadata.name ?? "";
    world.server.delete(SECRETS, NAMESPACE, name);
    next.kube.intercept.push(({ verb, plural }) => {
      if (verb === "list" && plural === "secrets" && record) {
        next.kube.intercept.length = 0;
        world.clock.setTimer(() => world.server.create(SECRETS, { ...record, metadata: { ...record.metadata } }), 1);
      }
    });
    await world.until("the item is stopped", () => world.item(id).state === "stopped", 5 * MINUTE);
    expect(world.item(id).stoppedBy?.as).toBe("sessions-token");
    await world.until("everything is settled", () => world.isSettled);
    holdsTrue(world);
  });

  test("a slot that another client's Secret occupies is left alone, and used again once it is free", async () => {
    const { world } = served({ sessions: { maxConcurrent: 1, warm: 1, parkedMaxAgeSeconds: 0 } });
    await world.until("a parked Pod", () => world.parked.length > 0);
    const name = world.parked[0]?.metadata.name ?? "";
    world.server.create(SECRETS, { metadata: { name, namespace: NAMESPACE }, stringData: { mine: "yes" } });
    const id = world.enqueue();
    await world.pass(30 * SECOND);
    expect(world.item(id).state).toBe("queued");
    expect(world.server.find(SECRETS, NAMESPACE, name)).toBeDefined();
    world.server.delete(SECRETS, NAMESPACE, name);
    await world.until("the item is served", () => world.item(id).state === "stopped", 5 * MINUTE);
    holdsTrue(world);
  });
});

describe("claims whose requests fail", () => {
  /** Starts an operator with a free Pod. */
  async function offered(options: LoopWorldOptions = {}) {
    const { world, operator } = served(options);
    await world.until("a parked Pod", () => world.parked.length > 0);
    return { world, operator };
  }

  test("retries the creation of a Secret a few times, without a hot loop", async () => {
    const { world, operator } = await offered();
    let creations = 0;
    operator.kube.intercept.push(({ verb, plural }) => {
      if (verb !== "create" || plural !== "secrets") return;
      creations += 1;
      throw refusal(503, "ServiceUnavailable", "etcd is away", true);
    });
    world.enqueue();
    await world.pass(4 * SECOND);
    expect(creations).toBeGreaterThan(1);
    expect(creations).toBeLessThan(12);
    operator.kube.intercept.length = 0;
    await world.until("everything is settled", () => world.isSettled);
    holdsTrue(world);
  });

  test("retries an acknowledgement that fails immediately a few times, without a hot loop", async () => {
    const { world } = await offered();
    const id = world.enqueue();
    world.api.answer = (call) => (call === "ack" ? json(500, { type: "error" }) : undefined);
    await world.pass(4 * SECOND);
    const sent = world.api.requests.get("ack") ?? 0;
    expect(sent).toBeGreaterThan(1);
    expect(sent).toBeLessThan(8);
    world.api.answer = () => undefined;
    await world.until("the item is stopped", () => world.item(id).state === "stopped");
    holdsTrue(world);
  });

  test("a Retry-After beyond the window delays neither the slot nor the shutdown", async () => {
    const { world, operator } = await offered();
    const id = world.enqueue();
    world.api.answer = (call) =>
      call === "ack" ? { ...json(429, { type: "error" }), headers: { "retry-after": "120" } } : undefined;
    await world.until("an acknowledgement", () => (world.api.requests.get("ack") ?? 0) > 0);
    let ended = false;
    void operator.stop().then(() => {
      ended = true;
    });
    await world.pass(5 * SECOND);
    expect(ended).toBe(true);
    expect(world.item(id).state).toBe("queued");
    expect(world.claims).toEqual([]);
    holdsTrue(world);
  });

  test("an Environment that is deleted between poll and acknowledgement leaves the item in the queue", async () => {
    const { world, operator } = await offered();
    // The operator learns of the deletion before the creation of the Secret is answered.
    world.weather.watch = { lagMs: 0, breaks: 0 };
    const id = world.enqueue();
    operator.kube.intercept.push(({ verb, plural }) => {
      if (verb === "create" && plural === "secrets") world.server.delete(ENVIRONMENTS, NAMESPACE, NAME);
    });
    await world.until("the Environment is gone", () => world.environment === undefined);
    expect(world.item(id).state).toBe("queued");
    expect(world.item(id).acks).toEqual([]);
    expect(world.claims).toEqual([]);
    holdsTrue(world);
  });

  test("an Environment that is paused during a poll leaves its item in the queue until it is resumed", async () => {
    const { world } = await offered();
    const pause = (paused: boolean) => world.patchEnvironment({ spec: { paused } });
    await world.until("a long poll waits", () => world.api.world.environment(world.environmentId).waiting > 0);
    pause(true);
    // The watch has reported the pause, and the poll has most of its second left.
    await world.pass(300);
    const id = world.enqueue();
    await world.pass(MINUTE);
    expect(world.item(id)).toMatchObject({ state: "queued", acks: [], offers: [{ number: 1 }] });
    expect(world.claims).toEqual([]);
    pause(false);
    await world.until("the item is stopped", () => world.item(id).state === "stopped");
    holdsTrue(world);
  });

  test("an Environment at a forbidden origin gets no request, and says so", async () => {
    const world = new LoopWorld();
    world.allowedOrigin = () => false;
    world.createEnvironment();
    world.startOperator();
    await world.pass(10 * MINUTE);
    expect([...world.api.origins]).toEqual([]);
    expect(world.conditionOf("QueueReachable")?.reason).toBe("OriginNotAllowed");
  });

  test("a health check that a poll returns while claiming is paused stays in the queue until it resumes", async () => {
    const { world } = await offered();
    await world.until("a long poll waits", () => world.api.world.environment(world.environmentId).waiting > 0);
    world.patchEnvironment({ spec: { paused: true } });
    await world.pass(300);
    const id = world.enqueue({ type: "healthcheck" });
    await world.pass(MINUTE);
    expect(world.item(id)).toMatchObject({ state: "queued", acks: [], offers: [{ number: 1 }] });
    world.patchEnvironment({ spec: { paused: false } });
    await world.until("the item is stopped", () => world.item(id).state === "stopped");
    holdsTrue(world);
  });

  test("a health check that was acknowledged but not stopped is stopped later, even if already stopping", async () => {
    const { world } = await offered({ switches: { lapsedStopping: "stays" } });
    world.api.answer = (call) => (call === "stop" ? json(500, { type: "error" }) : undefined);
    const [left, asked] = [world.enqueue({ type: "healthcheck" }), world.enqueue({ type: "healthcheck" })];
    await world.until("both items are acknowledged", () => world.items.every(({ state }) => state === "starting"));
    world.api.world.stopItem(asked, false);
    expect(world.item(asked).state).toBe("stopping");
    world.api.answer = () => undefined;
    await world.until("both items are stopped", () => world.items.every(({ state }) => state === "stopped"));
    expect([left, asked].map((id) => world.item(id).acks.length)).toEqual([1, 1]);
    holdsTrue(world);
  });

  test("a health check whose poll was answered late is left for the next offer", async () => {
    const { world } = await offered();
    world.weather.work = { lost: 0, slow: 1, refused: 0 };
    for (let n = 0; n < 10; n += 1) world.enqueue({ type: "healthcheck" });
    await world.pass(2 * MINUTE);
    expect(world.items.some(({ offers, acks }) => offers.length > 0 && acks.length === 0)).toBe(true);
    world.weather.work = FAIR;
    await world.until("all items are stopped", () => world.items.every(({ state }) => state === "stopped"));
    holdsTrue(world);
  });

  test("an item is not acknowledged for a Pod that only the cache still shows", async () => {
    const { world } = await offered();
    world.weather.watch = { lagMs: 100 * MINUTE, breaks: 0 };
    for (const pod of world.parked) world.server.removePod(NAMESPACE, pod.metadata.name ?? "");
    const id = world.enqueue();
    await world.pass(20 * SECOND);
    expect(world.item(id).offers.length).toBeGreaterThan(0);
    expect(world.item(id).acks).toEqual([]);
    expect(world.claims).toEqual([]);
    holdsTrue(world);
  });

  test("an unanswered acknowledgement is not repeated for a Pod that is gone", async () => {
    const { world } = await offered();
    const id = world.enqueue();
    world.api.answer = (call) => {
      if (call !== "ack") return undefined;
      for (const pod of world.parked) world.server.removePod(NAMESPACE, pod.metadata.name ?? "");
      return json(500, { type: "error" });
    };
    await world.pass(4 * SECOND);
    expect(world.api.requests.get("ack")).toBe(1);
    world.api.answer = () => undefined;
    await world.until("the item is stopped", () => world.item(id).state === "stopped");
    holdsTrue(world);
  });
});

describe("the finalizer", () => {
  const held = (world: LoopWorld) => world.environment?.metadata.finalizers?.includes(FINALIZER) ?? false;

  async function idleAfterOne(options: LoopWorldOptions = {}) {
    const { world, operator } = served(options);
    await world.until("a parked Pod", () => world.parked.length > 0);
    world.enqueue();
    await world.until("everything is settled and the finalizer is still there", () => world.isSettled && held(world));
    return { world, operator };
  }

  test("is removed some time after the last claim, even if its removal fails at first", async () => {
    const { world, operator } = await idleAfterOne();
    const { intercept } = operator.kube;
    let refused = 0;
    intercept.push(({ verb, plural, body }) => {
      if (verb !== "patch" || plural !== "environments" || !JSON.stringify(body).includes("finalizers")) return;
      refused += 1;
      throw refusal(500, "InternalError", "etcd is away", true);
    });
    await world.until("a removal of the finalizer was refused", () => refused > 0);
    intercept.length = 0;
    await world.until("the finalizer is gone", () => !held(world));
  });

  test("is removed again after a failed claim", async () => {
    const { world } = await idleAfterOne();
    await world.until("the finalizer is gone", () => !held(world));
    world.api.answer = (call) => (call === "ack" ? json(409, { type: "error" }) : undefined);
    world.enqueue();
    await world.until("the finalizer is back", () => held(world));
    world.api.answer = () => undefined;
    world.patchEnvironment({ spec: { paused: true } });
    await world.until("the finalizer is gone again", () => !held(world));
  });

  test("is removed again when it was added after the request timed out", async () => {
    const { world, operator } = await idleAfterOne();
    await world.until("the finalizer is gone", () => !held(world));
    const isPatch = ({ verb, plural }: { verb: string; plural: string }) =>
      verb === "patch" && plural === "environments";
    // A second longer than the request's timeout.
    operator.kube.delay = (request) => (isPatch(request) ? 31 * SECOND : 0);
    const id = world.enqueue();
    await world.until("a claim begins", () => world.item(id).offers.length > 0);
    // No claim follows this one.
    world.api.world.stopItem(id, false);
    await world.until("the finalizer is back", () => held(world));
    operator.kube.delay = () => 0;
    await world.until("the finalizer is gone again", () => !held(world));
  });

  test("is present when an item is acknowledged, even if the claim begins during its removal", async () => {
    for (let delayMs = 0; delayMs < 90; delayMs += 6) {
      const { world } = await idleAfterOne({ seed: delayMs + 1 });
      await world.until(
        "the removal of the finalizer begins",
        () => world.clock.monotonic() > 0 && !heldSoon(world),
        5 * MINUTE,
      );
      await world.pass(delayMs);
      world.enqueue();
      await world.until("all items are settled", () => {
        const live = world.items.find(({ state }) => state === "starting" || state === "active");
        if (live && !held(world)) world.wrongs.push(`${live.state} without the finalizer`);
        return world.isSettled;
      });
      holdsTrue(world);
    }
  }, 60_000);

  /** False from shortly before the removal, which is due 30 s after the claim's end. */
  function heldSoon(world: LoopWorld): boolean {
    const last = Math.max(...world.server.history.filter(({ plural }) => plural === "secrets").map(({ atMs }) => atMs));
    return world.clock.monotonic() < last + 30 * SECOND - 100;
  }
});

describe("a key that is rejected for a moment", () => {
  test("does not delay claims once it is accepted again", async () => {
    const { world } = served({ sessions: { maxConcurrent: 2, warm: 1 } });
    world.fate = () => ({ startError: false, program: "dies", servesMs: 20 * SECOND });
    await world.until("a parked Pod", () => world.parked.length > 0);
    world.enqueue();
    await world.until("a running session", () => world.node.running.size > 0);
    await world.until("another parked Pod", () => world.parked.length > 0);
    // One call is refused while another is under way, whose good answer comes later.
    world.api.answer = (call) => (call === "stats" ? json(401, { type: "error" }) : undefined);
    world.api.delay = (call) => (call === "poll" ? 900 : 0);
    await world.until("no container runs", () => world.node.running.size === 0);
    await world.pass(3 * SECOND);
    world.api.answer = () => undefined;
    world.api.delay = () => 0;
    world.server.patch(SECRETS, NAMESPACE, "key", { metadata: { labels: { touched: "yes" } } });
    await world.until("everything is settled", () => world.isSettled, 5 * MINUTE);
    holdsTrue(world);
  });
});

describe("the shutdown of a process", () => {
  test("is quick, even while list requests get no answers", async () => {
    const { world, operator } = served({ sessions: { maxConcurrent: 2, warm: 1 } });
    world.fate = () => ({ startError: false, program: "stock", servesMs: 10 * MINUTE });
    await world.until("a parked Pod", () => world.parked.length > 0);
    world.enqueue();
    await world.until("a running session", () => world.node.running.size > 0);
    world.weather.work = { lost: 1, slow: 0, refused: 0 };
    await world.pass(2 * MINUTE);
    let ended = false;
    void operator.stop().then(() => {
      ended = true;
    });
    await world.pass(3 * SECOND);
    expect(ended).toBe(true);
  });

  test("ends its loops immediately, whatever a reconcile is waiting for", async () => {
    const { world, operator } = served();
    await world.until("a parked Pod", () => world.parked.length > 0);
    world.weather.kube = { lost: 1, slow: 0, refused: 0 };
    world.patchEnvironment({ spec: { sessions: { maxDurationSeconds: 77 } } });
    world.patchEnvironment({ spec: { api: { workspaceId: "wrkspc_other" } } });
    await world.pass(SECOND);
    void operator.stop();
    await world.pass(2 * SECOND);
    const id = world.enqueue();
    await world.pass(MINUTE);
    expect(world.item(id).offers).toEqual([]);
  });

  test("waits for unanswered requests only for a while", async () => {
    const { world, operator } = served();
    await world.until("a parked Pod", () => world.parked.length > 0);
    world.weather.kube = { lost: 1, slow: 0, refused: 0 };
    world.enqueue();
    world.patchEnvironment({ spec: { sessions: { maxDurationSeconds: 77 } } });
    await world.pass(2 * SECOND);
    let ended = false;
    void operator.stop().then(() => {
      ended = true;
    });
    await world.pass(16 * SECOND);
    expect(ended).toBe(true);
  });

  test("leaves no Pod creation under way", async () => {
    const { world, operator } = served({ sessions: { maxConcurrent: 200, warm: 200 } });
    await world.until("more than ten Pods exist", () => world.pods.length > 10);
    void operator.stop();
    await world.pass(100);
    const { length } = world.pods;
    await world.pass(MINUTE);
    expect(world.pods.length).toBe(length);
    expect(length).toBeLessThan(200);
  });
});

describe("Pods that can't be patched", () => {
  test("a session whose Pod can't be touched is still observed and ended", async () => {
    const { world, operator } = served({ sessions: { firstBeatTimeoutSeconds: 30 } });
    await world.until("a parked Pod", () => world.parked.length > 0);
    world.fate = () => ({ startError: false, program: "silent", servesMs: 0 });
    operator.kube.intercept.push(({ verb, plural }) => {
      if (verb === "patch" && plural === "pods") throw refusal(403, "Forbidden", "a policy says no");
    });
    const id = world.enqueue();
    await world.until("the item is stopped", () => world.item(id).state === "stopped", 3 * MINUTE);
    await world.until(
      "no claim and no container is left",
      () => world.claims.length === 0 && world.node.running.size === 0,
      3 * MINUTE,
    );
    holdsTrue(world);
  });
});

describe("clocks that jump", () => {
  test.each([-3_600_000, -700, 700, 2_000, 3_600_000])(
    "an item is served despite a wall clock jump of %d ms",
    async (jumpMs) => {
      for (let delayMs = 0; delayMs < 60; delayMs += 4) {
        const { world } = served({ seed: delayMs + 1 });
        await world.until("a parked Pod", () => world.parked.length > 0);
        await world.pass(3 * SECOND);
        const id = world.enqueue();
        await world.pass(delayMs);
        world.clock.jumpWall(jumpMs);
        await world.until("the item is stopped", () => world.item(id).state === "stopped");
        expect(world.item(id).stoppedBy?.as).toBe("sessions-token");
        holdsTrue(world);
      }
    },
  );
});

describe("many sessions", () => {
  test("a new item is opened immediately while many ends wait for a slow list", async () => {
    const { world } = served({ sessions: { maxConcurrent: 60, warm: 10 } });
    await world.until("parked Pods", () => world.parked.length >= 10);
    world.enqueue();
    await world.until("the template is known to serve", () => world.isSettled);
    await world.until("parked Pods", () => world.parked.length >= 10);
    world.fate = () => ({
      startError: false,
      program: "dies",
      servesMs: 60 * SECOND - (world.clock.monotonic() % MINUTE),
    });
    for (let n = 0; n < 45; n += 1) world.enqueue();
    await world.until("45 containers run", () => world.node.running.size === 45);
    world.fate = () => ({ startError: false, program: "stock", servesMs: 5 * SECOND });
    await world.until("a free Pod", () => world.parked.length > 0);
    world.weather.work = { lost: 0, slow: 0, refused: 0 };
    const list = world.api.requests;
    world.api.delay = (call) => (call === "list" ? 1_400 : 0);
    await world.until("no container runs", () => world.node.running.size === 0);
    await world.pass(2 * SECOND);
    const id = world.enqueue();
    await world.until("the session runs", () => world.item(id).state === "active", 3 * SECOND);
    world.api.delay = () => 0;
    await world.until("everything is settled", () => world.isSettled, 10 * MINUTE);
    expect(list.get("list")).toBeLessThan(400);
    holdsTrue(world);
  });
});

describe("Environments that change while sessions run", () => {
  async function running(options: LoopWorldOptions = {}) {
    const { world, operator } = served(options);
    world.fate = () => ({ startError: false, program: "stock", servesMs: 5 * MINUTE });
    await world.until("a parked Pod", () => world.parked.length > 0);
    const id = world.enqueue();
    await world.until("a running session", () => world.item(id).state === "active");
    return { world, operator, id };
  }

  test("claims of an Environment whose finalizer was removed by hand are cleaned up", async () => {
    const { world } = await running();
    world.server.delete(ENVIRONMENTS, NAMESPACE, NAME);
    world.patchEnvironment({ metadata: { finalizers: [] } });
    expect(world.environment).toBeUndefined();
    await world.until("no Pod and no claim is left", () => world.pods.length + world.claims.length === 0, 5 * MINUTE);
    holdsTrue(world);
  });

  test("an Environment that is recreated under the same name settles the claims of the old one", async () => {
    const { world, operator, id } = await running();
    operator.kill();
    world.server.delete(ENVIRONMENTS, NAMESPACE, NAME);
    world.patchEnvironment({ metadata: { finalizers: [] } });
    world.createEnvironment();
    world.startOperator();
    world.fate = () => ({ startError: false, program: "stock", servesMs: 5 * SECOND });
    const next = world.enqueue();
    await world.until(
      "both items are stopped",
      () => [id, next].every((each) => world.item(each).state === "stopped"),
      10 * MINUTE,
    );
    await world.until("everything is settled", () => world.isSettled);
    holdsTrue(world);
  });

  test("an Environment that is recreated with another environmentId drops the claims of the old one", async () => {
    const { world, operator, id } = await running();
    const key = world.api.world.keyOf(world.environmentId);
    const other = world.api.world.createEnvironment({ key }).id;
    operator.kill();
    world.server.delete(ENVIRONMENTS, NAMESPACE, NAME);
    world.patchEnvironment({ metadata: { finalizers: [] } });
    world.createEnvironment();
    world.patchEnvironment({ spec: { environmentId: other } });
    world.startOperator();
    const next = world.api.world.enqueue(other, {}).id;
    await world.until("the new item is claimed", () => world.item(next).acks.length > 0, 2 * MINUTE);
    await world.until("only the claim of the new item is left", () => world.claims.length <= 1, 10 * MINUTE);
    // The program stops its item itself, or its lease lapses.
    expect(world.item(id).stoppedBy?.as).not.toBe("environment-key");
    holdsTrue(world);
  });

  test("a drain ends in time with the key gone and the Work API unreachable", async () => {
    const { world } = await running();
    world.fate = () => ({ startError: false, program: "deaf", servesMs: 0 });
    world.server.delete(SECRETS, NAMESPACE, "key");
    world.weather.work = { lost: 1, slow: 0, refused: 0 };
    world.weather.worker = { lost: 1, slow: 0, refused: 0 };
    world.server.delete(ENVIRONMENTS, NAMESPACE, NAME);
    await world.until("the Environment is gone", () => world.environment === undefined, 125 * SECOND);
    await world.until("no Pod and no claim is left", () => world.pods.length + world.claims.length === 0, 2 * MINUTE);
  });

  test("a drain whose last step fails is retried", async () => {
    const { world, operator } = await running();
    world.weather.work = { lost: 1, slow: 0, refused: 0 };
    world.weather.worker = { lost: 1, slow: 0, refused: 0 };
    let refused = 0;
    operator.kube.intercept.push(({ verb, plural }) => {
      if (plural !== "secrets" || verb !== "delete" || refused >= 3) return;
      refused += 1;
      throw refusal(500, "InternalError", "etcd is away", true);
    });
    world.server.delete(ENVIRONMENTS, NAMESPACE, NAME);
    await world.until("the Environment is gone", () => world.environment === undefined, 4 * MINUTE);
    expect(refused).toBe(3);
    await world.until("no Pod and no claim is left", () => world.pods.length + world.claims.length === 0, 2 * MINUTE);
  });
});
