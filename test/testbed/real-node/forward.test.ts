import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Forwarder } from "../../../testbed/real-node/forward.ts";

let dir: string;
let target: Server;
let forwarder: Forwarder;
const accepted: Socket[] = [];

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "berth-test-"));
  accepted.length = 0;
  target = createServer({ allowHalfOpen: true }, (socket) => accepted.push(socket));
  target.listen(join(dir, "target.sock"));
  await once(target, "listening");
  forwarder = await Forwarder.start({ host: "127.0.0.1", port: 0 }, () => ({ path: join(dir, "target.sock") }));
});
afterEach(async () => {
  for (const socket of accepted) socket.destroy();
  await forwarder.close();
  if (target.listening) await new Promise((resolve) => target.close(resolve));
  await rm(dir, { recursive: true });
});

async function open(): Promise<{ near: Socket; far: Socket }> {
  const arrived = once(target, "connection");
  const near = connect({ host: "127.0.0.1", port: forwarder.port, allowHalfOpen: true });
  await arrived;
  const far = accepted.at(-1);
  if (!far) throw new Error("nothing arrived");
  return { near, far };
}

async function text(socket: Socket): Promise<string> {
  let all = "";
  for await (const chunk of socket) all += String(chunk);
  return all;
}

test("what one end sends arrives unchanged at the other, in both directions", async () => {
  const { near, far } = await open();
  const big = "0123456789".repeat(100_000);
  near.end(big);
  expect(await text(far)).toBe(big);
  far.end("answer");
  expect(await text(near)).toBe("answer");
});

test("an end that has finished sending can still get an answer", async () => {
  const { near, far } = await open();
  near.end("question");
  expect(await text(far)).toBe("question");
  far.write("first ");
  far.end("second");
  expect(await text(near)).toBe("first second");
});

test("when one end breaks off, the other end is closed", async () => {
  const { near, far } = await open();
  far.resume();
  const ended = once(far, "end");
  near.resetAndDestroy();
  await ended;
});

test("a missing target ends the connection, and the next connection finds it again", async () => {
  target.close();
  await once(target, "close");
  const lost = connect({ host: "127.0.0.1", port: forwarder.port });
  lost.on("error", () => {});
  lost.resume();
  await once(lost, "close");
  target.listen(join(dir, "target.sock"));
  await once(target, "listening");
  const { near, far } = await open();
  near.end("again");
  expect(await text(far)).toBe("again");
  far.end();
});

test("closing cuts the open connections", async () => {
  const { near } = await open();
  near.on("error", () => {});
  near.resume();
  const ended = once(near, "end");
  await forwarder.close();
  await ended;
});
