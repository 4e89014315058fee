import { beforeEach, describe, expect, test } from "vitest";
import { Board, type BoardEvent } from "../../demo/board.ts";
import { SessionPods } from "../../demo/session-pods.ts";
import { faultOf, isServed, sinceQueued, stepOf, type Track } from "../../demo/track.ts";
import { WorkerPods } from "../../demo/worker-pods.ts";
import { bashScript } from "../../simulator/script.ts";
import { type Simulator, startSimulator } from "../../simulator/simulator.ts";
import type { Deployment, Pod, PodStatus } from "../../src/kube/objects.ts";
import { containerStatus, PREPARED, SESSION, waitingFor } from "../pods/pods.ts";
import { turnsPod } from "../pods/turn-pods.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

let clock: VirtualClock;
let simulator: Simulator;
let environmentId: string;
/** The id of the environment with always-on workers. */
let batchId: string;
let board: Board;
let pods: SessionPods;
let workers: WorkerPods;
let told: BoardEvent[];

beforeEach(async () => {
  clock = new VirtualClock();
  simulator = await startSimulator({ clock });
  environmentId = simulator.createEnvironment().id;
  batchId = simulator.createEnvironment().id;
  board = new Board(
    () => simulator.clock.now(),
    [
      { name: "research", mode: "sessions", environmentId },
      { name: "batch", mode: "workers", environmentId: batchId },
    ],
  );
  pods = new SessionPods(board);
  workers = new WorkerPods("batch", board);
  told = [];
  board.subscribe((event) => told.push(event));
  simulator.on("item", (record, event) => board.item(record, event));
  simulator.on("session", (sessionId, event) => board.session(sessionId, event));
  return () => simulator.close();
});

/** Makes one call of the Work API, as the operator or a worker does. */
async function call(
  method: string,
  path: string,
  token: string,
  body?: unknown,
  workerId = "berth",
): Promise<Record<string, unknown>> {
  const response = await fetch(`${simulator.url}/v1/${path}`, {
    method,
    headers: {
      authorization: `Bearer ${token}`,
      "anthropic-version": "2023-06-01",
      "anthropic-beta": "managed-agents-2026-04-01",
      "content-type": "application/json",
      "anthropic-worker-id": workerId,
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  expect(response.status, `${path}: ${text}`).toBeLessThan(300);
  return text === "" ? {} : JSON.parse(text);
}

interface Claimed {
  readonly workId: string;
  readonly token: string;
  readonly track: Track;
}

/** Queues a session and claims it for the operator. Returns its work item's id and the worker's token. */
const claim = (...commands: string[]) => claimIn(environmentId, "berth", ...commands);

/** Queues a session and claims it for the worker `by`. */
async function claimIn(id: string, by: string, ...commands: string[]): Promise<Claimed> {
  const script = bashScript(...commands);
  board.expect(id, { script });
  simulator.enqueue(id, { script });
  await clock.advance(20);
  return await claimNext(id, by);
}

/** Claims the next work item of the queue for the worker `by`. */
async function claimNext(id: string, by: string): Promise<Claimed> {
  const key = simulator.environmentKey(id);
  const item = (await call("GET", `environments/${id}/work/poll`, key, undefined, by)) as {
    id: string;
    secret: string;
  };
  await call("POST", `environments/${id}/work/${item.id}/ack`, key, undefined, by);
  const { sessions_token: token } = JSON.parse(Buffer.from(item.secret, "base64url").toString()) as {
    sessions_token: string;
  };
  const track = board.tracks.at(-1);
  if (!track) throw new Error("no track");
  return { workId: item.id, token, track };
}

const beat = (workId: string, token: string, id = environmentId) =>
  call("POST", `environments/${id}/work/${workId}/heartbeat?expected_last_heartbeat=NO_HEARTBEAT`, token);

/** Answers the newest tool call of a work item, as its worker does. */
const answer = ({ tools, sessionId }: Track, token: string, text: string) =>
  call("POST", `sessions/${sessionId}/events`, token, {
    events: [{ type: "user.tool_result", tool_use_id: tools.at(-1)?.id, content: [{ type: "text", text }] }],
  });

const stop = (workId: string, token: string, id = environmentId) =>
  call("POST", `environments/${id}/work/${workId}/stop`, token, { force: true });

const running: PodStatus = { containerStatuses: [{ name: "worker", state: { running: {} } }] as never };

/** A Pod; without a status it waits for its key. */
function pod(name: string, phase: string, workId?: string, status?: PodStatus): Pod {
  const annotations = workId === undefined ? {} : { "berth.dev/work-id": workId };
  const waitsForKey = {
    conditions: PREPARED,
    containerStatuses: [containerStatus(SESSION, waitingFor(missing(name)))],
  };
  return {
    metadata: { name, labels: { "berth.dev/phase": phase }, annotations },
    spec: { nodeName: "node-1", containers: [{ name: SESSION }] },
    status: status ?? waitsForKey,
  } as never;
}

const missing = (name: string) => `secret "${name}" not found`;

/** A Pod whose shell waits, or whose program was given this work item. */
function shellPod(name: string, workId?: string): Pod {
  const made = pod(name, workId === undefined ? "warm" : "running", workId, running);
  const assigned = workId === undefined ? {} : { "berth.dev/assigned-at": "2026-01-01T00:00:00Z" };
  made.metadata.annotations = { ...made.metadata.annotations, "berth.dev/parking": "Shell", ...assigned };
  return made;
}

/** The Pod of a session that can sleep: one turn runs, or the next one waits. */
const turnPod = (name: string, phase: "running" | "sleeping", workId: string, turn = 1): Pod =>
  turnsPod({
    ...{ name, phase, ended: phase === "sleeping" ? turn : turn - 1 },
    turns: { [phase === "sleeping" ? turn + 1 : turn]: { running: { startedAt: "2026-01-01T00:00:00Z" } } },
    annotations: { "berth.dev/work-id": workId, "berth.dev/assigned-at": "2026-01-01T00:00:00Z" },
  });

const lines = () => told.map((event) => (event.type === "step" ? `${event.track.number} ${event.step}` : event.type));

describe("a session on the board", () => {
  test("goes from queued to stopped, with the time of each step, and is served", async () => {
    const { workId, token, track } = await claim("echo one");
    expect(track).toMatchObject({ number: 1, workId, plannedTools: 1 });
    await clock.advance(100);
    pods.pod({ type: "updated", object: pod("berth-demo-abc", "running", workId) });
    await clock.advance(100);
    pods.started(pod("berth-demo-abc", "running", workId, running));
    await beat(workId, token);
    await answer(track, token, "one\n");
    await clock.advance(1_000);
    await stop(workId, token);
    pods.pod({ type: "deleted", object: pod("berth-demo-abc", "ended", workId) });

    expect(lines()).toEqual([
      "1 queued",
      "1 claimed",
      "1 opened",
      "1 started",
      "1 heartbeat",
      "tool",
      "1 stopped",
      "pod-gone",
    ]);
    const steps = ["claimed", "opened", "started", "heartbeat", "stopped"] as const;
    expect(steps.map((step) => sinceQueued(track, step))).toEqual([20, 120, 220, 220, 1_220]);
    expect(track).toMatchObject({ pod: "berth-demo-abc", podGone: true, endedByWorker: true });
    expect(track.tools).toMatchObject([{ what: "$ echo one", result: "one", failed: false }]);
    expect(isServed(track)).toBe(true);
    expect(board.live).toEqual([]);
  });

  test("starts when its Pod is assigned, if the Pod's shell ran before", async () => {
    pods.pod({ type: "added", object: shellPod("p") });
    const { workId, track } = await claim();
    expect(track.at.started).toBeUndefined();
    pods.pod({ type: "updated", object: shellPod("p", workId) });
    expect(track.at).toMatchObject({ opened: simulator.clock.now(), started: simulator.clock.now() });
  });

  test("keeps the first time of a repeated step", async () => {
    const { workId, track } = await claim();
    pods.pod({ type: "updated", object: pod("p", "running", workId, running) });
    const { opened } = track.at;
    await clock.advance(500);
    pods.pod({ type: "updated", object: pod("p", "running", workId, running) });
    pods.started(pod("p", "running", workId, running));
    expect(track.at).toMatchObject({ opened, started: opened });
  });

  test("may be opened before its acknowledgement is seen", async () => {
    simulator.enqueue(environmentId);
    const [track] = board.tracks as [Track];
    pods.pod({ type: "updated", object: pod("p", "running", track.workId) });
    expect(stepOf(track)).toBe("opened");
    expect(track.at.claimed).toBeUndefined();
  });

  test("is not served if it ends without a heartbeat, by another client, or with unanswered calls", async () => {
    const first = await claim();
    await stop(first.workId, first.token);
    expect(faultOf(first.track)).toBe("ended without a first heartbeat");

    const second = await claim();
    await beat(second.workId, second.token);
    simulator.stopItem(second.workId, { force: true });
    expect(faultOf(second.track)).toBe("ended by a client other than its worker");

    const third = await claim("echo one", "echo two");
    await beat(third.workId, third.token);
    await stop(third.workId, third.token);
    expect(faultOf(third.track)).toBe("ended with 2 of 2 tool calls unanswered");
    expect(board.tracks.filter(isServed)).toEqual([]);
  });

  test("stays in trouble once it goes back to the queue", async () => {
    const { workId, token, track } = await claim();
    await beat(workId, token);
    await clock.advance(10 * 60_000);
    expect(track.trouble).toBe("was queued again");
    expect(lines()).toContain("trouble");
    expect(isServed(track)).toBe(false);
  });

  test("gets its calls even if they arrive before its item", () => {
    const early = { id: "call", type: "agent.tool_use", processed_at: "", name: "bash", input: { command: "ls" } };
    board.session("unknown", early);
    expect(board.tracks).toEqual([]);
    const { sessionId = "" } = simulator.enqueue(environmentId);
    expect(board.tracks[0]?.sessionId).toBe(sessionId);
    const record = { ...simulator.item(board.tracks[0]?.workId ?? ""), id: "other", sessionId: "unknown" };
    board.item(record, "created");
    expect(board.tracks[1]?.tools).toMatchObject([{ what: "$ ls" }]);
  });
});

describe("a session that comes back", () => {
  const MESSAGE = { script: bashScript("cat note"), finds: "kept" };

  /** Lets a session write a note, end, and sleep in the Pod `p`. */
  async function untilAsleep(): Promise<Track> {
    const { workId, token, track } = await claim("echo kept > note");
    await beat(workId, token);
    pods.pod({ type: "updated", object: turnPod("p", "running", workId) });
    await answer(track, token, "");
    await stop(workId, token);
    pods.pod({ type: "updated", object: turnPod("p", "sleeping", workId) });
    return track;
  }

  /** Sends the session its next message, and claims its work item. */
  async function comeBack(first: Track): Promise<{ track: Track; token: string }> {
    board.expect(environmentId, MESSAGE);
    simulator.sendMessage(first.sessionId, MESSAGE.script);
    const { token } = await claimNext(environmentId, "berth");
    const track = board.tracks.at(-1);
    if (!track || track === first) throw new Error("no track");
    await beat(track.workId, token);
    return { track, token };
  }

  test("sleeps in its Pod, is woken there, keeps its number, and is served if it finds its file", async () => {
    const first = await untilAsleep();
    expect(first.asleep).toBe(true);
    expect(lines().at(-1)).toBe("asleep");
    expect(pods.counts).toMatchObject({ sleeping: 1, warm: 0, running: 0 });

    const { track, token } = await comeBack(first);
    pods.pod({ type: "updated", object: turnPod("p", "running", track.workId, 2) });
    expect(first.asleep).toBe(false);
    expect(pods.counts).toMatchObject({ sleeping: 0, running: 1 });
    expect(track).toMatchObject({ number: 1, pod: "p", earlier: first });
    expect(track.at).toMatchObject({ opened: simulator.clock.now(), started: simulator.clock.now() });
    await answer(track, token, "kept\n");
    await stop(track.workId, token);
    expect(isServed(track)).toBe(true);

    pods.pod({ type: "deleted", object: turnPod("p", "sleeping", track.workId, 2) });
    expect([first, track].map(({ podGone }) => podGone)).toEqual([true, true]);
    await claim();
    expect(board.tracks.map(({ number }) => number)).toEqual([1, 1, 2]);
  });

  test("is not served if its file is not in its Pod", async () => {
    const { track, token } = await comeBack(await untilAsleep());
    pods.pod({ type: "updated", object: turnPod("p", "running", track.workId, 2) });
    await answer(track, token, "cat: note: No such file or directory\n");
    await stop(track.workId, token);
    expect(faultOf(track)).toBe("did not find its file in its Pod, but found: cat: note: No such file or directory");
  });

  test("is not served in another Pod while its own one is there", async () => {
    const first = await untilAsleep();
    const { track } = await comeBack(first);
    for (const status of [{}, running])
      pods.pod({ type: "updated", object: pod("q", "running", track.workId, status) });
    expect(faultOf(track)).toBe("opened in Pod q, but the session slept in Pod p");
    expect(lines().filter((line) => line === "trouble")).toHaveLength(1);
  });

  test("is served in another Pod, without its file, once its own one is being deleted", async () => {
    const first = await untilAsleep();
    const { track, token } = await comeBack(first);
    const going = turnPod("p", "sleeping", first.workId);
    going.metadata.deletionTimestamp = "2026-01-01T00:00:00Z";
    pods.pod({ type: "updated", object: going });
    expect(first.asleep).toBe(false);
    expect(pods.counts).toMatchObject({ sleeping: 0, ended: 1 });
    pods.pod({ type: "updated", object: pod("q", "running", track.workId, running) });
    await answer(track, token, "cat: note: No such file or directory\n");
    await stop(track.workId, token);
    expect(isServed(track)).toBe(true);
  });
});

describe("the counts of Pods", () => {
  test("separate warm, running and ended Pods, and forget deleted ones", () => {
    const all = [
      pod("new", "warm", undefined, {}),
      pod("warm", "warm"),
      shellPod("shell"),
      pod("starting", "running", "w1"),
      pod("running", "running", "w2", running),
      shellPod("told", "w4"),
      pod("ended", "ended", "w3", running),
      pod("failed", "warm", undefined, { phase: "Failed" }),
    ];
    for (const object of all) pods.pod({ type: "added", object });
    expect(pods.counts).toEqual({ preparing: 1, warm: 2, running: 3, sleeping: 0, ended: 2 });
    pods.pod({ type: "deleted", object: pod("warm", "warm") });
    pods.pod({ type: "deleted", object: shellPod("shell") });
    expect(pods.counts.warm).toBe(0);
  });

  test("do not count a parked Pod that is being deleted as warm", () => {
    const going = pod("going", "warm");
    going.metadata.deletionTimestamp = "2026-01-01T00:00:00Z";
    pods.pod({ type: "updated", object: going });
    expect(pods.counts).toMatchObject({ warm: 0, preparing: 1 });
  });
});

/** A worker Pod. */
const worker = (name: string, ready: boolean): Pod =>
  ({
    metadata: { name, labels: { "berth.dev/environment": "batch" } },
    spec: {},
    status: { conditions: [{ type: "Ready", status: ready ? "True" : "False" }] },
  }) as never;

const deployment = (name: string, replicas: number): Deployment =>
  ({ metadata: { name, labels: { "berth.dev/environment": "batch" } }, spec: { replicas } }) as never;

describe("always-on workers", () => {
  test("claim sessions under their own names, and skip the steps of a session's own Pod", async () => {
    workers.pod({ type: "added", object: worker("berth-batch-1", true) });
    const { workId, token, track } = await claimIn(batchId, "berth-batch-1");
    expect(track).toMatchObject({ environment: "batch", number: 1, pod: "berth-batch-1" });
    expect(workers.counts.busy).toBe(1);
    await beat(workId, token, batchId);
    await stop(workId, token, batchId);
    expect(lines()).toEqual(["1 queued", "1 claimed", "1 heartbeat", "1 stopped"]);
    expect(isServed(track)).toBe(true);
    expect(workers.counts.busy).toBe(0);
    expect(workers.strangers()).toEqual([]);
  });

  test("are identified by their Pods even if the SDK generates the poller's name", async () => {
    workers.pod({ type: "added", object: worker("berth-batch-1-x2k4d", true) });
    const { track } = await claimIn(batchId, "berth-batch-1-x2k4d-3b241101-e2bb-4255-8caf-4136c566a962");
    expect(track.pod).toBe("berth-batch-1-x2k4d");
    expect(workers.strangers()).toEqual([]);
  });

  test("are numbered and kept separately from sessions of other Environments", async () => {
    await claim();
    await claimIn(batchId, "berth-batch-1");
    expect(board.tracksOf("research").map(({ number }) => number)).toEqual([1]);
    expect(board.tracksOf("batch").map(({ number }) => number)).toEqual([1]);
    expect(board.live).toHaveLength(2);
  });

  test("are counted as desired, existing, ready and busy over all Deployments", () => {
    workers.deployment({ type: "added", object: deployment("old", 1) });
    workers.deployment({ type: "added", object: deployment("new", 2) });
    workers.pod({ type: "added", object: worker("a", true) });
    workers.pod({ type: "added", object: worker("b", false) });
    const going = worker("c", true);
    going.metadata.deletionTimestamp = "2026-01-01T00:00:00Z";
    workers.pod({ type: "added", object: going });
    expect(workers.counts).toEqual({ desired: 3, replicas: 3, ready: 1, busy: 0 });
    workers.deployment({ type: "deleted", object: deployment("old", 1) });
    workers.pod({ type: "deleted", object: going });
    expect(workers.counts).toMatchObject({ desired: 2, replicas: 2 });
    expect(workers.most).toBe(3);
    expect(workers.isEmpty).toBe(false);
    workers.deployment({ type: "updated", object: deployment("new", 0) });
    workers.pod({ type: "deleted", object: worker("a", true) });
    expect(workers.isEmpty).toBe(false);
    workers.pod({ type: "deleted", object: worker("b", true) });
    expect(workers.isEmpty).toBe(true);
  });

  test("report a changed desired number, and nothing else", () => {
    workers.deployment({ type: "added", object: deployment("d", 0) });
    workers.deployment({ type: "updated", object: deployment("d", 3) });
    workers.deployment({ type: "updated", object: deployment("d", 3) });
    workers.deployment({ type: "updated", object: deployment("d", 1) });
    expect(told).toMatchObject([
      { type: "notice", environment: "batch", text: "scaled from 0 to 3 workers" },
      { type: "notice", environment: "batch", text: "scaled from 3 to 1 worker" },
    ]);
  });

  test("are distinguished from any other client that claims their session", async () => {
    await claimIn(batchId, "berth");
    expect(workers.strangers()).toEqual(["batch 1 was claimed by berth, not by one of its workers"]);
  });
});

test("an announcement is reported as a notice but not kept", () => {
  board.announce("it\nserves", "research");
  expect(told).toMatchObject([{ type: "notice", text: "it serves", environment: "research" }]);
  expect(board.notices).toEqual([]);
});

test("notices are kept in order, up to a limit", () => {
  for (let n = 1; n <= 30; n += 1) board.notice(`notice\n${n}`);
  expect(board.notices).toHaveLength(20);
  expect(board.notices.at(-1)).toBe("notice 30");
});
