import { afterEach, beforeEach, expect, test } from "vitest";
import { KubeClient } from "../../src/kube/client.ts";
import { NODES } from "../../src/kube/resource.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { FakeApiServer, send } from "./api-server.ts";

const SECOND_MS = 1_000;
const MINUTE_MS = 60_000;
/** The header has whole seconds, and the clocks may have drifted since. */
const TOLERANCE_MS = 1_100;

let server: FakeApiServer;
let clock: VirtualClock;
let client: KubeClient;
/** The Date header of the server; null if it sends none. */
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

test("is our own wall clock before the first answer", () => {
  expect(client.now()).toBe(clock.now());
});

test.each([-20, -1, 1, 20])(
  "follows the API server's clock when our own wall clock is %d minutes off",
  async (minutes) => {
    const offMs = minutes * MINUTE_MS;
    await ask(clock.now() - offMs);
    for (const passedMs of [0, 90 * SECOND_MS]) {
      await clock.advance(passedMs);
      expect(Math.abs(client.now() - (clock.now() - offMs))).toBeLessThanOrEqual(TOLERANCE_MS);
    }
  },
);

test("is our own wall clock, to the millisecond, if the header's whole seconds allow it", async () => {
  await clock.advance(400);
  await ask(clock.now());
  await clock.advance(5 * SECOND_MS + 123);
  expect(client.now()).toBe(clock.now());
});

test("keeps the server's time when our own wall clock is set", async () => {
  await ask(clock.now());
  const before = clock.now();
  clock.jumpWall(-10 * MINUTE_MS);
  expect(Math.abs(client.now() - before)).toBeLessThanOrEqual(TOLERANCE_MS);
});

test("follows the next answer when the server's clock is set", async () => {
  await ask(clock.now());
  await ask(clock.now() + 10 * MINUTE_MS);
  expect(Math.abs(client.now() - (clock.now() + 10 * MINUTE_MS))).toBeLessThanOrEqual(TOLERANCE_MS);
});

test.each([302, 404, 502])("ignores the Date header of an answer %d, which may come from a proxy", async (refused) => {
  await ask(clock.now());
  status = refused;
  await expect(ask(clock.now() + 60 * MINUTE_MS)).rejects.toThrow();
  expect(Math.abs(client.now() - clock.now())).toBeLessThanOrEqual(TOLERANCE_MS);
});

test.each([null, "", "yesterday"])("ignores a Date header %j", async (said) => {
  date = said;
  await client.list(NODES);
  expect(client.now()).toBe(clock.now());
});
