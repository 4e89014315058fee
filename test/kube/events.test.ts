import type { ServerResponse } from "node:http";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { KubeClient } from "../../src/kube/client.ts";
import { LeadershipLostError } from "../../src/kube/errors.ts";
import { EventRecorder, type EventSubject } from "../../src/kube/events.ts";
import type { KubeEvent } from "../../src/kube/resource.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { createMetrics } from "../../src/observe/metrics.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { FakeApiServer, sendStatus } from "./api-server.ts";
import { settled, until } from "./until.ts";

let server: FakeApiServer;
let clock: VirtualClock;
let client: KubeClient;
let recorder: EventRecorder;
let metrics: ReturnType<typeof createMetrics>;

beforeEach(async () => {
  server = await FakeApiServer.start();
  clock = new VirtualClock();
  client = new KubeClient({ access: server.access });
  metrics = createMetrics();
  recorder = new EventRecorder({ client, clock, logger: silentLogger, metrics, instance: "berth-0" });
});

afterEach(async () => {
  await client.close();
  await server[Symbol.asyncDispose]();
});

const subject = (name = "a"): EventSubject => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name, namespace: "agents", uid: `uid-${name}` },
});

/** The events on the server, oldest first. */
async function stored(): Promise<KubeEvent[]> {
  return (
    await client.list<KubeEvent>(
      { group: "", version: "v1", plural: "events", kind: "Event", namespaced: true },
      { namespace: "agents" },
    )
  ).items;
}

async function counts(): Promise<Record<string, number>> {
  const { values } = await metrics.eventsWritten.get();
  return Object.fromEntries(values.map(({ labels, value }) => [labels.result, value]));
}

const flush = () => settled(clock, recorder.flush(60_000));

test("an event has the fields that kubectl describe uses", async () => {
  recorder.event(subject(), "Warning", "SessionFailed", "exit code 1");
  await flush();
  const [event] = await stored();
  expect(event).toMatchObject({
    involvedObject: { apiVersion: "v1", kind: "Pod", name: "a", namespace: "agents", uid: "uid-a" },
    type: "Warning",
    reason: "SessionFailed",
    message: "exit code 1",
    count: 1,
    firstTimestamp: "2030-01-01T00:00:00Z",
    lastTimestamp: "2030-01-01T00:00:00Z",
    source: { component: "berth" },
    reportingComponent: "berth",
    reportingInstance: "berth-0",
  });
  expect(event?.metadata.name).toMatch(/^a\.[0-9a-f]{14,}$/);
});

test("events about cluster-scoped objects go to the default namespace", async () => {
  recorder.event({ kind: "Node", metadata: { name: "n" } }, "Normal", "R", "m");
  await flush();
  expect(server.requests[0]?.path).toBe("/api/v1/namespaces/default/events");
});

describe("aggregation", () => {
  test("a repeated event raises the count and the last time of the previous one", async () => {
    recorder.event(subject(), "Normal", "R", "m");
    await flush();
    await clock.advance(60_000);
    recorder.event(subject(), "Normal", "R", "m");
    await flush();
    const events = await stored();
    expect(events.map(({ count, firstTimestamp, lastTimestamp }) => [count, firstTimestamp, lastTimestamp])).toEqual([
      [2, "2030-01-01T00:00:00Z", "2030-01-01T00:01:00Z"],
    ]);
    expect(await counts()).toEqual({ created: 1, patched: 1 });
  });

  test("repeats before the first write lead to one write", async () => {
    for (let i = 0; i < 7; i += 1) recorder.event(subject(), "Normal", "R", "m");
    await flush();
    expect((await stored()).map(({ count }) => count)).toEqual([7]);
    expect(await counts()).toEqual({ created: 1 });
  });

  test("several repeats at once raise the count by their number", async () => {
    recorder.event(subject(), "Normal", "R", "m");
    await flush();
    for (let i = 0; i < 4; i += 1) recorder.event(subject(), "Normal", "R", "m");
    await flush();
    expect((await stored()).map(({ count }) => count)).toEqual([5]);
    expect(await counts()).toEqual({ created: 1, patched: 1 });
  });

  test.each([
    ["another object", () => recorder.event(subject("b"), "Normal", "R", "m")],
    ["another reason", () => recorder.event(subject(), "Normal", "S", "m")],
    ["another message", () => recorder.event(subject(), "Normal", "R", "n")],
    ["another type", () => recorder.event(subject(), "Warning", "R", "m")],
    [
      "another object of the same name",
      () => recorder.event({ ...subject(), metadata: { ...subject().metadata, uid: "new" } }, "Normal", "R", "m"),
    ],
  ])("%s makes another event", async (_name, record) => {
    recorder.event(subject(), "Normal", "R", "m");
    record();
    await flush();
    expect((await stored()).map(({ count }) => count)).toEqual([1, 1]);
  });

  test("an event that expired on the server, or is long past, is created again", async () => {
    recorder.event(subject(), "Normal", "R", "m");
    await flush();
    server.remove(`/api/v1/namespaces/agents/events/${(await stored())[0]?.metadata.name}`);
    recorder.event(subject(), "Normal", "R", "m");
    await flush();
    expect((await stored()).map(({ count }) => count)).toEqual([1]);
    await clock.advance(3_600_000);
    recorder.event(subject(), "Normal", "R", "m");
    await flush();
    expect((await stored()).map(({ count }) => count)).toEqual([1, 1]);
  });
});

describe("bounds", () => {
  test("one object gets a burst of 25, then one every five minutes, without delaying others", async () => {
    for (let i = 0; i < 40; i += 1) recorder.event(subject(), "Normal", "R", `m${i}`);
    recorder.event(subject("b"), "Normal", "R", "m");
    await flush();
    expect(await counts()).toEqual({ created: 26, suppressed: 15 });
    await clock.advance(300_000);
    recorder.event(subject(), "Normal", "R", "later");
    recorder.event(subject(), "Normal", "R", "too many");
    await flush();
    expect(await counts()).toEqual({ created: 27, suppressed: 16 });
  });

  test("a flood of one reason does not suppress other reasons of the object", async () => {
    for (let i = 0; i < 40; i += 1) recorder.event(subject(), "Normal", "SessionStarted", `m${i}`);
    recorder.event(subject(), "Warning", "KeyRejected", "look here");
    await flush();
    expect((await stored()).filter(({ reason }) => reason === "KeyRejected")).toHaveLength(1);
  });

  test("pending events are bounded: further ones are dropped and counted", async () => {
    server.scripts.push(() => true);
    for (let i = 0; i < 1_200; i += 1) recorder.event(subject(`p${i}`), "Normal", "R", "m");
    await clock.settle();
    expect((await counts()).dropped).toBe(200);
  });

  test("a message is cut to the server's limit and contains no credential", async () => {
    recorder.event(subject(), "Normal", "R", `${"x".repeat(500)} sk-ant-abcdefgh12345 ${"y".repeat(2_000)}`);
    await flush();
    const { message = "" } = (await stored())[0] ?? {};
    expect(message).toHaveLength(1_024);
    expect(message).not.toContain("abcdefgh");
  });

  test("a flush ends after its timeout when the server does not answer", async () => {
    server.scripts.push(() => true);
    recorder.event(subject(), "Normal", "R", "m");
    await server.until(() => server.requests.length === 1);
    await settled(clock, recorder.flush(2_000), 500);
  });
});

describe("a faulty server", () => {
  const failing = (times: number, status = 500) => {
    let left = times;
    server.scripts.push((_seen, response) => {
      if (left <= 0) return false;
      left -= 1;
      sendStatus(response, status, "Broken", "broken");
      return true;
    });
  };

  test("a server fault is retried with pauses", async () => {
    failing(3);
    const from = clock.monotonic();
    recorder.event(subject(), "Normal", "R", "m");
    await flush();
    expect(await counts()).toEqual({ created: 1 });
    expect(clock.monotonic() - from).toBeGreaterThanOrEqual(250 + 500 + 1_000);
  });

  test("an event is given up after four tries, and the next ones are written", async () => {
    failing(4);
    recorder.event(subject(), "Normal", "R", "lost");
    recorder.event(subject(), "Normal", "R", "kept");
    await flush();
    expect((await stored()).map(({ message }) => message)).toEqual(["kept"]);
    expect(await counts()).toEqual({ failed: 1, created: 1 });
  });

  test("a refusal is not retried", async () => {
    failing(1, 403);
    recorder.event(subject(), "Normal", "R", "m");
    await flush();
    expect([await counts(), server.requests.length]).toEqual([{ failed: 1 }, 1]);
  });

  test("a write whose answer was lost creates one event and counts nothing twice", async () => {
    let lose = true;
    server.scripts.push((seen, _response, socket) => {
      if (lose && seen.method !== "GET") {
        lose = false;
        // The store below still executes the request.
        socket.resetAndDestroy();
      }
      return false;
    });
    recorder.event(subject(), "Normal", "R", "m");
    await flush();
    lose = true;
    recorder.event(subject(), "Normal", "R", "m");
    await flush();
    expect((await stored()).map(({ count }) => count)).toEqual([2]);
  });
});

describe("a namespace whose Events the server answers with 500", () => {
  const of = (namespace: string, name: string): EventSubject => ({
    kind: "Pod",
    metadata: { name, namespace, uid: `${namespace}-${name}` },
  });
  const refuse = (...namespaces: string[]) => {
    server.scripts.push((seen, response) => {
      if (!namespaces.some((namespace) => seen.path.includes(`/namespaces/${namespace}/`))) return false;
      sendStatus(response, 500, "Broken", "broken");
      return true;
    });
  };

  test("does not delay the Events of other namespaces", async () => {
    refuse("broken");
    for (let i = 0; i < 75; i += 1) recorder.event(of("broken", `p${i}`), "Normal", "R", "m");
    recorder.event(of("agents", "a"), "Normal", "R", "m");
    await server.until(() => server.requests.some(({ path }) => path.includes("/namespaces/agents/")));
    expect(clock.monotonic()).toBe(1_000);
  });

  test("has one request at a time, in the order of its Events", async () => {
    refuse("broken");
    for (let i = 0; i < 3; i += 1) recorder.event(of("broken", `p${i}`), "Normal", "R", "m");
    await settled(clock, recorder.flush(60_000));
    const names = server.requests.map(({ body }) => (body as KubeEvent).involvedObject?.name);
    expect(names).toEqual(["p0", "p1", "p2"].flatMap((name) => Array(4).fill(name)));
    expect(await counts()).toEqual({ failed: 3 });
  });

  test("does not displace the pending Events of others", async () => {
    refuse("broken");
    for (let i = 0; i < 1_200; i += 1) recorder.event(of("broken", `p${i}`), "Normal", "R", "m");
    for (let i = 0; i < 30; i += 1) recorder.event(of("agents", `p${i}`), "Normal", "R", "m");
    expect((await counts()).dropped).toBe(230);
    await until(clock, () => server.requests.filter(({ path }) => path.includes("/agents/")).length >= 30);
    expect(await stored()).toHaveLength(30);
  });
});

test("a namespace with more than its share of pending Events loses one for each Event of another, down to that share", async () => {
  for (const namespace of ["a", "b"]) {
    for (let i = 0; i < 2_000; i += 1) {
      recorder.event({ kind: "Pod", metadata: { name: `p${i}`, namespace } }, "Normal", "R", "m");
    }
  }
  await flush();
  const written = server.requests.map(({ path }) => path.split("/")[4]);
  expect(written.filter((namespace) => namespace === "a")).toHaveLength(500);
  expect(written.filter((namespace) => namespace === "b")).toHaveLength(500);
});

test("Events of many namespaces are written with a bounded number of concurrent requests", async () => {
  const held: ServerResponse[] = [];
  server.scripts.push((_seen, response) => held.push(response) > 0);
  for (let i = 0; i < 100; i += 1) {
    recorder.event({ kind: "Pod", metadata: { name: "a", namespace: `n${i}` } }, "Normal", "R", "m");
  }
  await server.until(() => held.length === 16);
  await clock.settle();
  expect(held).toHaveLength(16);
  server.scripts.length = 0;
  for (const response of held) sendStatus(response, 500, "Broken", "broken");
  await flush();
  expect(await counts()).toEqual({ created: 100 });
});

test("event returns at once and never throws, whatever the server does", async () => {
  await server[Symbol.asyncDispose]();
  recorder.event(subject(), "Normal", "R", "m");
  recorder.event({ metadata: {} }, "Normal", "", "");
  await until(clock, () => clock.monotonic() > 60_000, 500);
  await recorder.flush(0);
  expect(await counts()).toEqual({ failed: 2 });
  server = await FakeApiServer.start();
});

test("an event that is still pending when its fence closes is dropped, and others are written", async () => {
  let lost = false;
  const fenced = recorder.fenced(() => {
    if (lost) throw new LeadershipLostError("not the leader");
  });
  fenced.event(subject("a"), "Normal", "Before", "it may speak");
  await flush();
  lost = true;
  fenced.event(subject("a"), "Normal", "After", "it may not");
  fenced.event(subject("a"), "Normal", "Before", "it may speak");
  recorder.event(subject("b"), "Normal", "Other", "another recorder may");
  await flush();
  expect((await stored()).map(({ reason, count }) => [reason, count])).toEqual([
    ["Before", 1],
    ["Other", 1],
  ]);
  expect(await counts()).toMatchObject({ created: 2, dropped: 2 });
});
