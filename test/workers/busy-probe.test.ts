import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, test } from "vitest";
import { realClock } from "../../src/core/clock.ts";
import { answerOf, createBusyProber } from "../../src/workers/busy-probe.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const PATH = "/busy";
const never = new AbortController().signal;

async function ask(listener: RequestListener, clock = realClock, signal = never) {
  const server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  try {
    return await createBusyProber(clock)({ ip: "127.0.0.1", port, path: PATH }, signal);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

test.each([
  [200, "busy"],
  [204, "idle"],
  [201, "unknown"],
  [301, "unknown"],
  [401, "unknown"],
  [404, "unknown"],
  [500, "unknown"],
  [undefined, "unknown"],
] as const)("%s is %s", (status, answer) => {
  expect(answerOf(status)).toBe(answer);
});

test("requests the path from the spec, once, and reads only the status", async () => {
  const paths: (string | undefined)[] = [];
  const answer = await ask((request, response) => {
    paths.push(request.url);
    response.writeHead(200).end('{"busy": false}');
  });
  expect({ answer, paths }).toEqual({ answer: "busy", paths: [PATH] });
});

test("follows no redirect", async () => {
  let asked = 0;
  const answer = await ask((_request, response) => {
    asked += 1;
    response.writeHead(302, { location: "/idle" }).end();
  });
  expect({ answer, asked }).toEqual({ answer: "unknown", asked: 1 });
});

test("does not wait for an endless body", async () => {
  expect(await ask((_request, response) => void response.writeHead(204).flushHeaders())).toBe("idle");
  expect(await ask((_request, response) => void response.writeHead(200).write("."))).toBe("busy");
});

test("answers unknown if nothing listens", async () => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  expect(await createBusyProber(realClock)({ ip: "127.0.0.1", port, path: PATH }, never)).toBe("unknown");
});

test("answers unknown if the worker does not answer within a second", async () => {
  const clock = new VirtualClock();
  const asked = Promise.withResolvers<void>();
  const answer = ask(() => asked.resolve(), clock);
  await asked.promise;
  await clock.advance(1_000);
  expect(await answer).toBe("unknown");
  expect(clock.pendingTimers).toBe(0);
});

test("ends at an abort", async () => {
  const ending = new AbortController();
  const answer = ask(() => ending.abort(), realClock, ending.signal);
  expect(await answer).toBe("unknown");
});

test("answers unknown if the connection breaks", async () => {
  expect(await ask((request) => void request.socket.destroy())).toBe("unknown");
});
