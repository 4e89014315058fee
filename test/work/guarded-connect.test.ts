import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { Agent, request } from "undici";
import { describe, expect, it } from "vitest";
import { realClock } from "../../src/core/clock.ts";
import { guardedConnector, InnerAddressError, type Resolve } from "../../src/work/guarded-connect.ts";
import { WorkHttp } from "../../src/work/http.ts";
import { NameServer } from "./name-server.ts";
import { failure, Setup } from "./setup.ts";
import { json, raw, StrictServer } from "./strict-server.ts";

const NAME = "work-api.example";

/** Resolves any name to these addresses, and counts the lookups. */
function resolver(...addresses: string[]): Resolve & { asked: number } {
  const resolve: Resolve & { asked: number } = Object.assign(
    ((_hostname, _options, callback) => {
      resolve.asked += 1;
      callback(
        null,
        addresses.map((address) => ({ address, family: address.includes(":") ? 6 : 4 })),
      );
    }) as Resolve,
    { asked: 0 },
  );
  return resolve;
}

/** The error of a call to an origin if no inner address is allowed. */
async function refusal(setup: Setup, baseUrl: string, resolve?: Resolve) {
  const http = new WorkHttp({ clock: realClock, mayBeInner: () => false, ...(resolve ? { resolve } : {}) });
  try {
    return await failure(setup.clientOf({ baseUrl, http }).ack("work_01"));
  } finally {
    await http.close();
  }
}

describe("an inner address that is not allowed", () => {
  it.each(["10.0.0.1", "127.0.0.1", "169.254.169.254", "::1", "fd00:ec2::254", "::ffff:10.0.0.1"])(
    "is refused behind a name that resolves to %s",
    async (address) => {
      await using setup = await Setup.start();
      const { port } = new URL(setup.server.origin);
      const error = await refusal(setup, `http://${NAME}:${port}`, resolver(address));
      expect(error).toMatchObject({ kind: "inner-address", maybeApplied: false });
      expect(error.message).toContain(`${NAME}, which resolves to ${address}, is an inner address`);
      expect(error.message).toMatch(/mend spec\.api\.baseUrl, or start the operator with \S+ in --allowed-api-origins/);
      expect(setup.server.connections).toBe(0);
    },
  );

  it("is refused as a literal in any notation", async () => {
    await using setup = await Setup.start();
    const { port } = new URL(setup.server.origin);
    for (const host of [
      "127.0.0.1",
      "2130706433",
      "0x7f.1",
      "0177.0.0.1",
      "localhost",
      "[::1]",
      "[::ffff:127.0.0.1]",
    ]) {
      const error = await refusal(setup, `http://${host}:${port}`);
      expect(error, host).toMatchObject({ kind: "inner-address", maybeApplied: false });
    }
    expect(setup.server.connections).toBe(0);
  });

  it("is refused behind a name that the system's resolver resolves", async () => {
    await using setup = await Setup.start();
    const { port } = new URL(setup.server.origin);
    const error = await refusal(setup, `http://localhost.localdomain.example:${port}`, (_name, options, callback) =>
      import("node:dns").then(({ lookup }) => lookup("localhost", options, callback)),
    );
    expect(error).toMatchObject({ kind: "inner-address" });
    expect(setup.server.connections).toBe(0);
  });

  it("is refused for a NO_PROXY host despite a configured proxy", async () => {
    await using setup = await Setup.start();
    const proxy = { httpProxy: "http://127.0.0.1:9", noProxy: NAME };
    const http = new WorkHttp({ clock: realClock, mayBeInner: () => false, resolve: resolver("10.0.0.1"), proxy });
    const error = await failure(setup.clientOf({ baseUrl: `http://${NAME}`, http }).poll());
    expect(error).toMatchObject({ kind: "inner-address" });
    await http.close();
  });

  it("lists only a few of many addresses in the error", async () => {
    await using setup = await Setup.start();
    const many = Array.from({ length: 200 }, (_, i) => `10.0.0.${i}`);
    const { message } = await refusal(setup, `http://${NAME}`, resolver(...many));
    expect(message).toContain("10.0.0.0, 10.0.0.1, 10.0.0.2, is an inner address");
  });
});

describe("an origin that may be inner", () => {
  it("is connected to, but no other on the same host", async () => {
    await using server = await StrictServer.start();
    await using other = await StrictServer.start();
    await using setup = await Setup.start();
    const http = new WorkHttp({ clock: realClock, mayBeInner: (origin) => origin === server.origin });
    server.fallback = json(200, {
      type: "work_queue_stats",
      depth: 1,
      pending: 0,
      oldest_queued_at: null,
      workers_polling: 0,
    });
    await setup.clientOf({ baseUrl: server.origin, http }).stats();
    expect(server.seen).toHaveLength(1);
    expect(await failure(setup.clientOf({ baseUrl: other.origin, http }).stats())).toMatchObject({
      kind: "inner-address",
    });
    expect(other.connections).toBe(0);
    await http.close();
  });

  it("can't redirect to an inner address that is not allowed", async () => {
    await using server = await StrictServer.start();
    await using inside = await StrictServer.start();
    await using setup = await Setup.start();
    const http = new WorkHttp({ clock: realClock, mayBeInner: (origin) => origin === server.origin });
    for (const status of [301, 302, 303, 307, 308]) {
      server.next(raw(status, "", { location: `${inside.origin}/latest/meta-data/` }));
      const error = await failure(setup.clientOf({ baseUrl: server.origin, http }).poll());
      expect(error).toMatchObject({ kind: "protocol", status });
    }
    expect(inside.connections).toBe(0);
    await http.close();
  });
});

// A test has no public address. One loopback address stands for a public one.
const STANDS_FOR_PUBLIC = "127.0.0.2";
const STANDS_FOR_INNER = "127.0.0.3";

/** Servers on the same port of both addresses, which answer with their kind. Each connection serves one request. */
async function bothServers(): Promise<{ port: number; close: () => void }> {
  const [first, second] = [serverSaying("public"), serverSaying("inner")];
  first.listen(0, STANDS_FOR_PUBLIC);
  await once(first, "listening");
  const { port } = first.address() as AddressInfo;
  second.listen(port, STANDS_FOR_INNER);
  await once(second, "listening");
  const close = () => [first, second].map((server) => server.close());
  return { port, close };
}

function serverSaying(words: string): Server {
  return createServer((_request, response) => response.setHeader("connection", "close").end(words));
}

describe("a name server that changes its answer", () => {
  it("is queried once per connection, which uses the checked address", async () => {
    await using names = await NameServer.start(STANDS_FOR_PUBLIC);
    const servers = await bothServers();
    const connect = guardedConnector({
      timeoutMs: 10_000,
      mayBeInner: () => false,
      resolve: names.resolve,
      isInner: (address) => address !== STANDS_FOR_PUBLIC,
    });
    const agent = new Agent({ connect });
    const get = () => request(`http://${NAME}:${servers.port}/`, { dispatcher: agent }).then(({ body }) => body.text());
    expect(await get()).toBe("public");
    names.address = STANDS_FOR_INNER;
    await expect(get()).rejects.toThrow(InnerAddressError);
    names.address = STANDS_FOR_PUBLIC;
    expect(await get()).toBe("public");
    expect(names.asked).toBe(3);
    await agent.close();
    servers.close();
  });

  it("has its inner addresses ignored", async () => {
    const servers = await bothServers();
    const resolve = resolver(STANDS_FOR_INNER, STANDS_FOR_PUBLIC, STANDS_FOR_INNER);
    const isInner = (address: string) => address !== STANDS_FOR_PUBLIC;
    const agent = new Agent({
      connect: guardedConnector({ timeoutMs: 10_000, mayBeInner: () => false, resolve, isInner }),
    });
    const { body } = await request(`http://${NAME}:${servers.port}/`, { dispatcher: agent });
    expect(await body.text()).toBe("public");
    await agent.close();
    servers.close();
  });
});
