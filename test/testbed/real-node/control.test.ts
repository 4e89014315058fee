import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import type { Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { connectNodeControl } from "../../../testbed/real-node/control-client.ts";
import { CONTROL_CALLS, type NodeControl } from "../../../testbed/real-node/control-protocol.ts";
import { serveControl } from "../../../testbed/real-node/control-server.ts";

let dir: string;
let server: Server;
let client: NodeControl;
const calls: unknown[][] = [];

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "berth-test-"));
  calls.length = 0;
  const record = Object.fromEntries(
    CONTROL_CALLS.map((name) => [
      name,
      async (...args: unknown[]) => {
        calls.push([name, ...args]);
      },
    ]),
  ) as unknown as NodeControl;
  const control: NodeControl = {
    ...record,
    run: async (command) => ({ code: 3, stdout: command, stderr: "" }),
    loadImages: async (archive) => {
      throw new Error(`no file ${archive}`);
    },
  };
  server = await serveControl(control, join(dir, "control.sock"));
  client = connectNodeControl(join(dir, "control.sock"));
});
afterEach(async () => {
  server.close();
  server.closeAllConnections();
  await rm(dir, { recursive: true });
});

test("arguments and answers are passed unchanged", async () => {
  await client.stopKubelet("SIGKILL");
  await client.startKubelet();
  await client.spawn({ name: "x", command: "true", args: ["a b"], env: { A: "1" } });
  expect(calls).toEqual([
    ["stopKubelet", "SIGKILL"],
    ["startKubelet"],
    ["spawn", { name: "x", command: "true", args: ["a b"], env: { A: "1" } }],
  ]);
  expect(await client.run("ls", [])).toEqual({ code: 3, stdout: "ls", stderr: "" });
  expect(await client.ended("x")).toBeUndefined();
});

test("an error on the node rejects the call with its message", async () => {
  await expect(client.loadImages("/none")).rejects.toThrow("the node's loadImages: no file /none");
});

test("a call to a node that is gone rejects", async () => {
  server.close();
  server.closeAllConnections();
  await once(server, "close");
  await expect(client.state()).rejects.toThrow(/ENOENT|ECONNREFUSED/);
});
