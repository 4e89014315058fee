import { once } from "node:events";
import { request as httpsRequest } from "node:https";
import { Agent } from "undici";
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { ClientCa } from "../../../testbed/cluster/client-ca.ts";
import { KUBELET_CLIENT } from "../../../testbed/cluster/users.ts";
import { ScriptedStreams } from "../../../testbed/node/container-streams.ts";
import { type AttachFault, KubeletServer, type ServedContainer } from "../../../testbed/node/kubelet-server.ts";
import { temporaryDir } from "../cluster/temporary.ts";
import { Attached } from "./attached.ts";
import { boundPod } from "./pod-bench.ts";

const UPGRADE = {
  connection: "Upgrade",
  upgrade: "websocket",
  "sec-websocket-version": "13",
  "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
  "sec-websocket-protocol": "v4.channel.k8s.io",
};
const BOTH = "?input=1&output=1";

let ca: ClientCa;
let server: KubeletServer;
let input: string;
let inputClosed: boolean;
let end: () => void;
let streams: ScriptedStreams;
let running: ServedContainer;
let faults: (AttachFault | undefined)[];
let attempts: string[];

beforeEach(async () => {
  ca = await ClientCa.create(await temporaryDir());
  input = "";
  inputClosed = false;
  faults = [];
  attempts = [];
  streams = new ScriptedStreams({
    read: (bytes) => {
      input += bytes.toString();
    },
    closed: () => {
      inputClosed = true;
    },
  });
  const ended = Promise.withResolvers<void>();
  end = ended.resolve;
  running = { isRunning: true, ended: ended.promise, streams };
  const containers: Record<string, ServedContainer> = {
    open: running,
    once: running,
    closed: running,
    turn: running,
    ended: { ...running, isRunning: false },
  };
  const pod = boundPod({
    containers: [
      { name: "open", stdin: true },
      { name: "once", stdin: true, stdinOnce: true },
      { name: "closed" },
      { name: "ended" },
      { name: "waiting" },
    ],
    spec: { ephemeralContainers: [{ name: "turn", stdin: true }] },
  });
  server = new KubeletServer({
    find: ({ namespace, name }) =>
      namespace === "tb" && name === "work-1" ? { pod, container: (of) => containers[of] } : undefined,
    faults: ({ metadata }, container, attempt) => {
      attempts.push(`${metadata.name}/${container} ${attempt}`);
      return faults.shift();
    },
  });
  await server.listen(ca.certificate);
});
afterEach(() => server.close());

const identity = (user: string) => {
  const { certificate: cert, key } = ca.issue(user);
  return { cert, key, rejectUnauthorized: false };
};

async function attach(container: string, query = BOTH): Promise<Attached> {
  const agent = new Agent({ connect: identity(KUBELET_CLIENT) });
  onTestFinished(() => agent.destroy());
  return await Attached.open(`wss://127.0.0.1:${server.port}/attach/tb/work-1/${container}${query}`, agent);
}

/** Sends a plain request, and returns the status and the text of the answer. */
async function answer(path: string, headers: Record<string, string> = {}, user = KUBELET_CLIENT): Promise<string> {
  const options = { host: "127.0.0.1", port: server.port, path, headers, agent: false, ...identity(user) };
  const [response] = await once(httpsRequest(options).end(), "response");
  const text = await response.toArray();
  return `${response.statusCode} ${Buffer.concat(text)}`;
}

describe("an attached client", () => {
  test("writes to standard input, and gets the output from now on", async () => {
    streams.print("before");
    const client = await attach("open");
    client.send("a line\n");
    await expect.poll(() => input).toBe("a line\n");
    streams.printError("an error");
    streams.print("an answer");
    await client.printed("an answer\n");
    expect(client.output).toBe("an answer\n");
  });

  test("may be attached to an ephemeral container, whose log can be read", async () => {
    const client = await attach("turn");
    client.send("a line\n");
    await expect.poll(() => input).toBe("a line\n");
    streams.print("an answer");
    expect(await answer("/containerLogs/tb/work-1/turn")).toBe("200 an answer\n");
  });

  test("may be one of several, and leaves the input open", async () => {
    const [first, second] = [await attach("open"), await attach("open")];
    first.send("one ");
    await expect.poll(() => input).toBe("one ");
    first.close();
    expect(await first.closed).toBe(1_000);
    second.send("two");
    await expect.poll(() => input).toBe("one two");
    streams.print("done");
    await second.printed("done\n");
    expect(inputClosed).toBe(false);
  });

  test("closes the input with stdinOnce", async () => {
    (await attach("once")).close();
    await expect.poll(() => inputClosed).toBe(true);
  });

  test("can't write to a container without stdin", async () => {
    const client = await attach("closed");
    client.send("ignored");
    streams.print("heard");
    await client.printed("heard");
    expect(input).toBe("");
  });

  test("gets no output that it didn't ask for", async () => {
    const client = await attach("open", "?input=1");
    client.send("x");
    await expect.poll(() => input).toBe("x");
    streams.print("unwanted");
    end();
    await client.closed;
    expect(client.output).toBe("");
  });

  test("is told when the container ends", async () => {
    const client = await attach("open");
    end();
    expect(await client.closed).toBe(1_000);
    expect(JSON.parse(client.status)).toEqual({ metadata: {}, status: "Success" });
  });
});

describe("a request is refused", () => {
  test.each([
    ["for an unknown Pod", `/attach/tb/other/open${BOTH}`, {}, '404 pod "other" does not exist'],
    ["for an unknown container", `/attach/tb/work-1/x${BOTH}`, {}, '404 container "x" not found in pod "work-1"'],
    ["for a waiting container", `/attach/tb/work-1/waiting${BOTH}`, {}, "500 container waiting not found"],
    ["for an ended container", `/attach/tb/work-1/ended${BOTH}`, {}, "500 container is in CONTAINER_EXITED state"],
    ["without a stream", "/attach/tb/work-1/open", {}, "400 you must specify at least 1 of stdin, stdout, stderr"],
    ["with another subprotocol", `/attach/tb/work-1/open${BOTH}`, { "sec-websocket-protocol": "v5" }, "403 "],
    ["for another upgrade", `/attach/tb/work-1/open${BOTH}`, { upgrade: "SPDY/3.1" }, "400 unable to upgrade"],
    ["for another path", `/exec/tb/work-1/open${BOTH}`, {}, "404 404 page not found"],
    [
      "that only accepts JSON",
      `/attach/tb/work-1/open${BOTH}`,
      { accept: "application/json" },
      "406 406: Not Acceptable",
    ],
  ])("%s", async (_what, path, headers, expected) => {
    expect(await answer(path, { ...UPGRADE, ...headers })).toContain(expected);
  });

  test("for the log of a container that wasn't started", async () => {
    expect(await answer("/containerLogs/tb/work-1/waiting")).toMatch(/^400 .* is waiting to start/);
  });

  test("from any client but the API server", async () => {
    const paths = [`/attach/tb/work-1/open${BOTH}`, "/containerLogs/tb/work-1/open"];
    expect(await Promise.all(paths.map((path) => answer(path, {}, "another-user")))).toEqual([
      "403 Forbidden",
      "403 Forbidden",
    ]);
    const options = { host: "127.0.0.1", port: server.port, path: paths[1], rejectUnauthorized: false };
    await expect(once(httpsRequest(options).end(), "response")).rejects.toThrow(/certificate required/);
  });
});

describe("a fault", () => {
  test("is chosen for each attempt", async () => {
    faults = [undefined, { kind: "refused" }, { kind: "refused", status: 500, message: "no" }];
    await attach("open");
    expect(await answer(`/attach/tb/work-1/open${BOTH}`, UPGRADE)).toBe("405 Debug endpoints are disabled.");
    expect(await answer(`/attach/tb/work-1/once${BOTH}`, UPGRADE)).toBe("500 no");
    expect(attempts).toEqual(["work-1/open 1", "work-1/open 2", "work-1/once 1"]);
  });

  test("can lose the input or the output of one client", async () => {
    faults = [{ kind: "input-lost" }, { kind: "output-lost" }];
    const [mute, deaf] = [await attach("open"), await attach("open")];
    mute.send("lost ");
    deaf.send("read");
    await expect.poll(() => input).toBe("read");
    streams.print("an answer");
    await mute.printed("an answer\n");
    end();
    await deaf.closed;
    expect(deaf.output).toBe("");
    expect(input).toBe("read");
  });

  test("can cut the connection within a line", async () => {
    faults = [{ kind: "cut", afterBytes: 6 }];
    const client = await attach("open");
    client.send("half ");
    client.send("a line\n");
    expect(await client.closed).not.toBe(1_000);
    expect(input).toBe("half a");
  });

  test("can cut the connection silently, at once or within a line", async () => {
    faults = [
      { kind: "cut", afterBytes: 0, silent: true },
      { kind: "cut", afterBytes: 3, silent: true },
    ];
    const [dead, dying, alive] = [await attach("open"), await attach("open"), await attach("open")];
    dead.send("lost");
    dying.send("halfway");
    await expect.poll(() => input).toBe("hal");
    dying.send("lost");
    streams.print("unheard");
    await alive.printed("unheard\n");
    expect([dead.output, dying.output, input]).toEqual(["", "", "hal"]);
    server.recover();
    await Promise.all([dead.closed, dying.closed]);
  });
});

test("a log can be cut to its last lines, and then to its first bytes", async () => {
  for (const line of ["one", "two", "three"]) streams.print(line);
  const log = (query: string) => answer(`/containerLogs/tb/work-1/open${query}`);
  expect(await log("")).toBe("200 one\ntwo\nthree\n");
  expect(await log("?tailLines=2")).toBe("200 two\nthree\n");
  expect(await log("?limitBytes=2")).toBe("200 on");
  expect(await log("?tailLines=2&limitBytes=5")).toBe("200 two\nt");
  expect(await log("?tailLines=0")).toBe("200 ");
});

test("a node that can't be reached sends nothing, and breaks its connections when it is back", async () => {
  const client = await attach("open");
  server.fallSilent();
  streams.print("unheard");
  server.recover();
  expect(await client.closed).not.toBe(1_000);
  expect(client.output).toBe("");
  expect(await answer("/containerLogs/tb/work-1/open?limitBytes=1")).toBe("200 u");
});
