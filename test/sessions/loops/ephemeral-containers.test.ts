import { beforeEach, describe, expect, test } from "vitest";
import { seededRandom } from "../../../simulator/ids.ts";
import { ANNOTATION_DEADLINE } from "../../../src/api/names.ts";
import { type Container, type ContainerState, PODS, type Pod } from "../../../src/kube/resource.ts";
import { STARTED_MARKER, shellFrame } from "../../../src/pods/frame.ts";
import { renderTurn, turnName, turnPatch } from "../../../src/pods/turns.ts";
import { keeperPod } from "../../support/keeper-pods.ts";
import { VirtualClock } from "../../support/virtual-clock.ts";
import { ApiServer } from "./api-server.ts";
import type { ContainerFate, Running } from "./container.ts";
import { FakeKube, forbidEphemeralContainers } from "./kube.ts";
import { FAIR, Link } from "./network.ts";
import { Node } from "./node.ts";
import { WorkApi } from "./work-api.ts";

const SECOND = 1_000;
const REF = { namespace: "agents", name: "pod-1" };
const SUBRESOURCE = { type: "strategic", subresource: "ephemeralcontainers" } as const;

/** An API server and a node with one Pod whose session can sleep. */
class TurnsWorld {
  readonly clock = new VirtualClock();
  readonly server = new ApiServer(this.clock);
  readonly api = new WorkApi(this.clock);
  readonly started: Running[] = [];
  fate: ContainerFate = { startError: false, program: "plain", servesMs: 5 * SECOND };
  fault: ContainerState | undefined;
  readonly node: Node;
  readonly kube: FakeKube;

  constructor() {
    const { clock, server } = this;
    const random = seededRandom(1);
    const link = new Link(clock, random, () => FAIR);
    this.node = new Node({
      ...{ server, clock, random, http: this.api.sender(link, clock), environmentId: "env_1" },
      fate: () => this.fate,
      turnFault: () => this.fault,
      onStart: (running) => this.started.push(running),
    });
    this.kube = new FakeKube({ server, link, clock, random, weather: () => ({ lagMs: 0, breaks: 0 }) });
    server.create(PODS, keeperPod(REF));
  }

  get pod(): Pod {
    return this.server.get(PODS, REF.namespace, REF.name);
  }

  /** The state of a turn in the Pod's status; null: it has none. */
  turn(turn: number): ContainerState | null {
    const statuses = this.pod.status?.ephemeralContainerStatuses;
    return statuses?.find(({ name }) => name === turnName(turn))?.state ?? null;
  }

  get isGone(): boolean {
    return this.server.find(PODS, REF.namespace, REF.name) === undefined;
  }

  /** Advances the clock until a request is answered. */
  async answered<T>(request: Promise<T>): Promise<T> {
    const settled = { is: false };
    const all = request.finally(() => {
      settled.is = true;
    });
    all.catch(() => {});
    await this.clock.advanceUntil(() => settled.is, 30 * SECOND, 10);
    return all;
  }

  patch(patch: unknown): Promise<Pod> {
    return this.answered(this.kube.patch(PODS, REF, patch, SUBRESOURCE));
  }

  async addTurn(turn: number): Promise<void> {
    await this.patch(turnPatch(this.pod, turn));
  }

  until(condition: () => boolean): Promise<void> {
    return this.clock.advanceUntil(condition, 60 * SECOND, 50);
  }

  /** Adds a turn that waits in its shell. */
  async waitingTurn(turn: number): Promise<void> {
    await this.addTurn(turn);
    await this.until(() => this.turn(turn)?.running !== undefined);
  }

  /** Sends a line to a turn, and waits until its program runs. */
  async serve(turn: number, workId: string): Promise<void> {
    const stream = await this.answered(this.kube.attach(REF, { container: turnName(turn) }));
    const secret = Buffer.from(JSON.stringify({ sessions_token: "token" })).toString("base64url");
    stream.send(shellFrame({ ANTHROPIC_WORK_ID: workId, ANTHROPIC_WORK_SECRET: secret }) ?? "");
    expect(await this.answered(stream.waitFor(STARTED_MARKER, AbortSignal.timeout(60 * SECOND)))).toBe(true);
    await this.until(() => this.started.some(({ container }) => container === turnName(turn)));
  }
}

let world: TurnsWorld;
beforeEach(async () => {
  world = new TurnsWorld();
  await world.until(() => world.pod.status?.phase === "Running");
});

describe("a turn", () => {
  test("waits in its shell, beside a keeper that runs", async () => {
    await world.waitingTurn(1);
    expect(world.pod.status?.containerStatuses?.[0]?.state).toHaveProperty("running");
    expect(world.pod.status?.phase).toBe("Running");
  });

  test("that was added before the Pod was ready starts with it", async () => {
    const early = new TurnsWorld();
    await early.addTurn(1);
    expect(early.turn(1)).toBeNull();
    await early.until(() => early.turn(1)?.running !== undefined);
  });

  test("serves one item, and its Pod lives on", async () => {
    await world.waitingTurn(1);
    await world.serve(1, "work_1");
    await world.until(() => world.turn(1)?.terminated !== undefined);
    expect(world.turn(1)?.terminated).toMatchObject({ exitCode: 0, reason: "Completed" });
    await world.waitingTurn(2);
    await world.serve(2, "work_2");
    expect(world.pod.status?.phase).toBe("Running");
    expect(world.started.map(({ container, workId }) => [container, workId])).toEqual([
      ["berth-turn-1", "work_1"],
      ["berth-turn-2", "work_2"],
    ]);
  });

  test("is killed, and its Pod lives on", async () => {
    await world.waitingTurn(1);
    await world.serve(1, "work_1");
    world.node.kill(REF.name);
    await world.until(() => world.turn(1)?.terminated?.exitCode === 137);
    expect(world.pod.status?.phase).toBe("Running");
  });

  test("that can't start keeps its state", async () => {
    world.fault = { terminated: { exitCode: 128, reason: "StartError" } };
    await world.addTurn(1);
    await world.until(() => world.turn(1)?.terminated?.exitCode === 128);
    world.fault = undefined;
    await world.waitingTurn(2);
    expect(world.turn(1)).toHaveProperty("terminated.reason", "StartError");
  });

  test("has its own streams and its own log", async () => {
    await world.waitingTurn(1);
    const log = (container: string) => world.answered(world.kube.log(REF, { container, limitBytes: 100 }));
    expect(await log(turnName(1))).toBe("");
    await world.serve(1, "work_1");
    expect(await log(turnName(1))).toBe(`${STARTED_MARKER}\n`);
    await world.addTurn(2);
    await expect(log(turnName(2))).rejects.toMatchObject({
      status: 400,
      message: expect.stringMatching(/is waiting to start/),
    });
    await expect(log(turnName(3))).rejects.toMatchObject({
      status: 400,
      message: expect.stringMatching(/is not valid for pod/),
    });
    const attached = world.answered(world.kube.attach(REF, { container: turnName(3) }));
    await expect(attached).rejects.toMatchObject({ status: 400 });
  });

  test("is listed by name, not by number", async () => {
    await world.waitingTurn(2);
    await world.waitingTurn(10);
    expect(world.pod.status?.ephemeralContainerStatuses?.map(({ name }) => name)).toEqual([turnName(10), turnName(2)]);
  });

  test("that the kubelet runs again isn't shown in the status", async () => {
    await world.waitingTurn(1);
    world.node.kill(REF.name);
    await world.until(() => world.turn(1)?.terminated !== undefined);
    world.node.rerun(REF.name, turnName(1));
    await world.clock.advance(60 * SECOND);
    expect(world.turn(1)).toHaveProperty("terminated");
    await world.serve(1, "work_1");
  });
});

describe("the end of the Pod", () => {
  test("a deadline that passes ends the keeper with 4, its turns, and the Pod", async () => {
    await world.waitingTurn(1);
    await world.serve(1, "work_1");
    const deadline = String(Math.floor(world.clock.now() / SECOND) + 2);
    world.server.patch(PODS, REF.namespace, REF.name, {
      metadata: { annotations: { [ANNOTATION_DEADLINE]: deadline } },
    });
    // The keeper looks at it every five minutes.
    await world.clock.advanceUntil(() => world.pod.status?.phase === "Failed", 310 * SECOND, SECOND);
    expect(world.pod.status?.containerStatuses?.[0]?.state).toHaveProperty("terminated.exitCode", 4);
    expect(world.turn(1)).toHaveProperty("terminated");
    expect(world.node.running.size).toBe(0);
  });

  test("a deletion ends the keeper and a waiting turn at once", async () => {
    await world.waitingTurn(1);
    world.server.delete(PODS, REF.namespace, REF.name);
    await world.clock.advanceUntil(() => world.isGone, 3 * SECOND, 50);
  });

  test("a deletion gives a running turn the Pod's grace period", async () => {
    world.fate = { startError: false, program: "silent", servesMs: 0 };
    await world.waitingTurn(1);
    await world.serve(1, "work_1");
    world.server.delete(PODS, REF.namespace, REF.name);
    await world.clock.advance(9 * SECOND);
    expect(world.node.running.size).toBe(1);
    await world.until(() => world.isGone);
    expect(world.node.running.size).toBe(0);
  });

  test("no turn starts in a Pod that ends", async () => {
    world.fate = { startError: false, program: "silent", servesMs: 0 };
    await world.waitingTurn(1);
    await world.serve(1, "work_1");
    world.server.delete(PODS, REF.namespace, REF.name);
    await world.addTurn(2);
    await world.clock.advance(5 * SECOND);
    expect(world.turn(2)).toBeNull();
  });
});

describe("the patch of ephemeral containers", () => {
  const container = (more: Partial<Container>): unknown => ({
    spec: { ephemeralContainers: [{ ...renderTurn(world.pod, 1), ...more }] },
  });

  test("adds turns before those that exist, and changes nothing else", async () => {
    await world.addTurn(1);
    const { generation = 0 } = world.pod.metadata;
    await world.patch({ ...turnPatch(world.pod, 2), status: { phase: "Failed" } });
    expect(world.pod.spec.ephemeralContainers?.map(({ name }) => name)).toEqual([turnName(2), turnName(1)]);
    expect(world.pod.metadata.generation).toBe(generation + 1);
    expect(world.pod.status?.phase).toBe("Running");
  });

  test("that adds the same turn again changes nothing", async () => {
    await world.addTurn(1);
    const { resourceVersion } = world.pod.metadata;
    await world.addTurn(1);
    expect(world.pod.metadata.resourceVersion).toBe(resourceVersion);
  });

  test.each([
    ["uid", 422],
    ["resourceVersion", 409],
  ])("is refused if its %s differs: %i", async (field, status) => {
    const { metadata, spec } = turnPatch(world.pod, 1);
    const patched = world.patch({ metadata: { ...metadata, [field]: "1" }, spec });
    await expect(patched).rejects.toMatchObject({ status });
  });

  test.each<[string, Partial<Container>, RegExp]>([
    ["resources", { resources: { limits: { cpu: "1" } } }, /\[0\]\.resources: Forbidden/],
    ["ports", { ports: [{ containerPort: 80 }] }, /\.ports: Forbidden/],
    ["an empty list of ports", { ports: [] }, /\.ports: Forbidden/],
    ["a probe", { livenessProbe: { exec: {} } }, /\.livenessProbe: Forbidden/],
    ["a lifecycle hook", { lifecycle: { preStop: {} } }, /\.lifecycle: Forbidden/],
    ["a subPath", { volumeMounts: [{ name: "workspace", mountPath: "/w", subPath: "a" }] }, /\.subPath: Forbidden/],
    ["a missing volume", { volumeMounts: [{ name: "other", mountPath: "/w" }] }, /\[0\]\.name: Not found: "other"/],
    ["a regular container's name", { name: "worker" }, /\.name: Duplicate value: "worker"/],
    ["no image", { image: "" }, /\.image: Required value/],
  ])("is refused with 422 for %s", async (_what, more, message) => {
    await expect(world.patch(container(more))).rejects.toMatchObject({
      status: 422,
      message: expect.stringMatching(message),
    });
  });

  test("accepts an empty object in a field that may not be set", async () => {
    await world.patch(container({ resources: {} }));
    expect(world.pod.spec.ephemeralContainers).toHaveLength(1);
  });

  test("is refused with 422 if it changes or removes a turn", async () => {
    await world.addTurn(1);
    await expect(world.patch(container({ image: "worker:2" }))).rejects.toMatchObject({ status: 422 });
    const removed = world.answered(
      world.kube.patch(PODS, REF, { spec: { ephemeralContainers: [] } }, { type: "merge" }),
    );
    await expect(removed).rejects.toMatchObject({ status: 422 });
  });

  test("is refused with 403 where ephemeral containers are forbidden", async () => {
    world.kube.intercept = [forbidEphemeralContainers];
    await expect(world.addTurn(1)).rejects.toMatchObject({ status: 403, reason: "Forbidden" });
  });

  test("a Pod can't be created with ephemeral containers", () => {
    const { spec } = keeperPod(REF);
    const pod = { metadata: { ...REF, name: "pod-2" }, spec: { ...spec, ephemeralContainers: [{ name: "a" }] } };
    expect(() => world.server.create(PODS, pod)).toThrow(/cannot be set on create/);
  });
});
