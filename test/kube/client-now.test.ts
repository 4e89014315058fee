import { afterEach, beforeEach, expect, test } from "vitest";
import { KubeClient } from "../../src/kube/client.ts";
import { NODES } from "../../src/kube/resource.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { FakeApiServer, send } from "./api-server.ts";

const SECOND_MS = 1_000;
const MINUTE_MS = 60_000;
/** Whole seconds of the header, and what two clocks may have drifted apart since. */
const TOLERANCE_MS = 1_100;

let server: FakeApiServer;
let clock: VirtualClock;
let client: KubeClient;
/** What the server's Date headers say; null: it sends none. */
let date: string | null;
let status: number;

beforeEach(async () => {
  server = await FakeApiServer.start();
  clock = new VirtualClock();
  client = new KubeClient({ access: server.access, clock });
  status = 200;
  server.scripts.push((_seen, response) => {
    response.sendDate = false;
    if (date !== null) response.setHeader("date", date);
    send(response, status, { metadata: {}, items: [] });
    return true;
  });
});

afterEach(async () => {
  await client.close();
  await server[Symbol.asyncDispose]();
});

async function ask(serverMs: number): Promise<void> {
  date = new Date(serverMs).toUTCString();
  await client.list(NODES);
}

test("before the first answer it is our own wall clock", () => {
  expect(client.now()).toBe(clock.now());
});

test.each([-20, -1, 1, 20])(
  "our own wall clock %d minutes off: it is the API server's, and goes on",
  async (minutes) => {
    const offMs = minutes * MINUTE_MS;
    await ask(clock.now() - offMs);
    for (const passedMs of [0, 90 * SECOND_MS]) {
      await clock.advance(passedMs);
      expect(Math.abs(client.now() - (clock.now() - offMs))).toBeLessThanOrEqual(TOLERANCE_MS);
    }
  },
);

test("our own wall clock, where the header's whole seconds leave it possible, to the millisecond", async () => {
  await clock.advance(400);
  await ask(clock.now());
  await clock.advance(5 * SECOND_MS + 123);
  expect(client.now()).toBe(clock.now());
});

test("our own wall clock is set: what the server said stands", async () => {
  await ask(clock.now());
  const before = clock.now();
  clock.jumpWall(-10 * MINUTE_MS);
  expect(Math.abs(client.now() - before)).toBeLessThanOrEqual(TOLERANCE_MS);
});

test("the server's clock is set: the next answer counts", async () => {
  await ask(clock.now());
  await ask(clock.now() + 10 * MINUTE_MS);
  expect(Math.abs(client.now() - (clock.now() + 10 * MINUTE_MS))).toBeLessThanOrEqual(TOLERANCE_MS);
});

test.each([302, 404, 502])(
  "the Date header of an answer %d, which may be that of a proxy, says nothing",
  async (refused) => {
    await ask(clock.now());
    status = refused;
    await expect(ask(clock.now() + 60 * MINUTE_MS)).rejects.toThrow();
    expect(Math.abs(client.now() - clock.now())).toBeLessThanOrEqual(TOLERANCE_MS);
  },
);

test.each([null, "", "yesterday"])("a Date header %j says nothing", async (said) => {
  date = said;
  await client.list(NODES);
  expect(client.now()).toBe(clock.now());
});
