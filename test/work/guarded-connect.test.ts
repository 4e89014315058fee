import type { LookupAddress } from "node:dns";
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { setImmediate as macrotask } from "node:timers/promises";
import { Agent, request } from "undici";
import { afterEach, beforeEach, describe, expect, it, test } from "vitest";
import { realClock } from "../../src/core/clock.ts";
import {
  guardedConnector,
  InnerAddressError,
  Lookups,
  MAX_DOUBTFUL,
  MAX_KNOWN,
  MAX_WAITING,
  type Resolve,
  TENANT_SHARE,
} from "../../src/work/guarded-connect.ts";
import { WorkHttp } from "../../src/work/http.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
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
      expect(error.message).toContain(`${NAME}, which resolves to ${address}, is an internal address`);
      expect(error.message).toMatch(
        /correct spec\.api\.baseUrl, or add it to the chart's allowedApiOrigins \(--allowed-api-origins\)/,
      );
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
    expect(message).toContain("10.0.0.0, 10.0.0.1, 10.0.0.2, is an internal address");
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

// A test has no public address. One loopback address represents a public one.
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

describe("Lookups", () => {
  const LISTED = "api.anthropic.com";
  const PUBLIC: LookupAddress = { address: "203.0.113.1", family: 4 };

  /** The number of one tenant's doubtful names that are looked up at a time. */
  const EACH = MAX_DOUBTFUL * TENANT_SHARE;

  let clock: VirtualClock;
  /** Lookups in flight, by name. */
  let inFlight: Map<string, (error?: Error) => void>;
  let most: number;
  let answers: string[];
  let lookups: Lookups;

  beforeEach(() => {
    clock = new VirtualClock();
    inFlight = new Map();
    most = 0;
    answers = [];
    const resolve: Resolve = (name, _options, callback) => {
      expect(inFlight.has(name)).toBe(false);
      inFlight.set(name, (error) => {
        inFlight.delete(name);
        callback(error ?? null, error ? [] : [PUBLIC]);
      });
      most = Math.max(most, inFlight.size);
    };
    lookups = new Lookups(clock, resolve, (name) => name === LISTED);
  });

  /** Requests the name for this tenant. */
  function ask(name: string, tenant?: string): void {
    lookups.request(name, tenant);
    lookups.resolve(name, { all: true }, (error, found) =>
      answers.push(`${name} ${error ? error.message : found.map(({ address }) => address)}`),
    );
  }

  function answer(name: string, error?: Error): void {
    const settle = inFlight.get(name);
    if (!settle) throw new Error(`${name} is not looked up`);
    settle(error);
  }

  const tarpits = (count: number) => Array.from({ length: count }, (_, index) => `x${index}.tarpit.example`);

  describe("names whose server does not answer", () => {
    test("use a few lookups, and none of those for names that were answered before", () => {
      ask("api.example");
      answer("api.example");
      for (const name of tarpits(100)) ask(name);
      expect(inFlight.size).toBe(EACH);
      ask("api.example");
      answer("api.example");
      expect(answers).toEqual(["api.example 203.0.113.1", "api.example 203.0.113.1"]);
    });

    test("each get their turn, and so does a new name", async () => {
      const names = tarpits(20);
      for (const name of names) ask(name);
      ask("new.example");
      for (const name of names) {
        if (!inFlight.has(name)) continue;
        await clock.advance(2_000);
        answer(name, new Error("EAI_AGAIN"));
      }
      answer("new.example");
      expect(answers).toEqual([...names.map((name) => `${name} EAI_AGAIN`), "new.example 203.0.113.1"]);
      expect(most).toBe(EACH);
    });

    test("become doubtful again after a slow answer", async () => {
      const names = tarpits(EACH + 4);
      for (const name of names) {
        ask(name);
        answer(name);
      }
      for (const name of names) ask(name);
      expect(inFlight.size).toBe(names.length);
      await clock.advance(5_000);
      for (const name of names) answer(name, new Error("EAI_AGAIN"));
      for (const name of names) ask(name);
      expect(inFlight.size).toBe(EACH);
    });

    test("use a bounded number of lookups when their server stops answering", () => {
      const names = (tenant: string) => tarpits(100).map((name) => `${tenant}.${name}`);
      for (const tenant of ["a", "b", "c"]) {
        for (const name of names(tenant)) {
          ask(name, tenant);
          answer(name);
        }
      }
      for (const tenant of ["a", "b", "c"]) for (const name of names(tenant)) ask(name, tenant);
      expect(inFlight.size).toBe(MAX_KNOWN);
      ask("new.example", "d");
      expect([...inFlight.keys()]).toContain("new.example");
    });
  });

  describe("tenants", () => {
    const slow = async (name: string) => {
      await clock.advance(5_000);
      answer(name, new Error("EAI_AGAIN"));
    };
    const begun = () => [...inFlight.keys()];

    test("take turns: a name of one waits for at most one name of each other", async () => {
      for (const tenant of ["a", "b"]) for (const name of tarpits(50)) ask(`${tenant}.${name}`, tenant);
      expect(begun()).toHaveLength(MAX_DOUBTFUL);
      for (const name of ["first", "second"]) ask(`${name}.example`, "c");
      expect(begun()).not.toContain("first.example");
      await slow("a.x0.tarpit.example");
      await slow("b.x0.tarpit.example");
      await slow("a.x1.tarpit.example");
      expect(begun()).toContain("first.example");
      expect(most).toBe(MAX_DOUBTFUL);
    });

    test("always find a free lookup when another tenant has many names", () => {
      for (const name of tarpits(400)) ask(name, "many");
      expect(begun()).toHaveLength(EACH);
      ask("first.example", "other");
      expect(begun()).toContain("first.example");
    });

    test("share one lookup of the same name, in the turn that comes first", async () => {
      for (const name of tarpits(50)) ask(name, "many");
      ask("shared.example", "many");
      expect(begun()).not.toContain("shared.example");
      ask("shared.example", "other");
      expect(begun()).toContain("shared.example");
      answer("shared.example");
      expect(answers).toEqual(["shared.example 203.0.113.1", "shared.example 203.0.113.1"]);
      for (const name of tarpits(50)) await slow(name);
      expect(begun()).toEqual([]);
    });

    test("keep no turn for a request that has ended", async () => {
      const end = lookups.request("shared.example", "gone");
      end();
      for (const name of tarpits(50)) ask(name, "many");
      lookups.request("shared.example", "many");
      lookups.resolve("shared.example", { all: true }, () => {});
      expect(begun()).not.toContain("shared.example");
    });

    test("have a bounded number of waiting names each", () => {
      for (const name of tarpits(EACH + MAX_WAITING)) ask(name, "many");
      expect(answers).toEqual([]);
      ask("one-more.example", "many");
      expect(answers).toEqual([expect.stringMatching(/^one-more\.example .*too many names of its namespace wait$/)]);
      for (const name of ["a", "b", "c", "d", "e"]) ask(`${name}.example`, "other");
      expect(answers).toHaveLength(1);
    });
  });

  test("a listed name never waits, and concurrent requests share its lookup", () => {
    for (const tenant of ["a", "b", "c"]) for (const name of tarpits(50)) ask(`${tenant}.${name}`, tenant);
    expect(inFlight.size).toBe(MAX_DOUBTFUL);
    ask(LISTED, "a");
    ask(LISTED, "d");
    answer(LISTED);
    expect(answers).toEqual([`${LISTED} 203.0.113.1`, `${LISTED} 203.0.113.1`]);
  });

  test("concurrent requests for a name share one lookup, and a later one starts another", () => {
    for (let times = 0; times < 3; times += 1) ask("api.example");
    answer("api.example");
    expect(answers).toHaveLength(3);
    expect(inFlight.size).toBe(0);
    ask("api.example");
    expect(inFlight.size).toBe(1);
  });

  test("a fast failure does not make a name doubtful", () => {
    for (const name of tarpits(EACH)) ask(name);
    const missing = () => answer("missing.example", new Error("ENOTFOUND"));
    ask("missing.example");
    answer("x0.tarpit.example");
    missing();
    ask("missing.example");
    missing();
    expect(answers.slice(1)).toEqual(["missing.example ENOTFOUND", "missing.example ENOTFOUND"]);
  });
});

describe("lookups of WorkHttp", () => {
  /** Lookups in flight, by name. */
  let inFlight: Map<string, () => void>;
  let http: WorkHttp;

  beforeEach(() => {
    inFlight = new Map();
    const resolve: Resolve = (hostname, _options, callback) => {
      inFlight.set(hostname, () => {
        inFlight.delete(hostname);
        callback(Object.assign(new Error(`getaddrinfo EAI_AGAIN ${hostname}`), { code: "EAI_AGAIN" }), []);
      });
    };
    http = new WorkHttp({
      clock: realClock,
      mayBeInner: () => false,
      isListed: (hostname) => hostname === "api.anthropic.com",
      resolve,
      proxy: {},
    });
  });

  afterEach(() => http.destroy());

  async function send(tenant: string, hostname: string): Promise<void> {
    http
      .send({
        method: "GET",
        origin: `https://${hostname}`,
        path: "/",
        headers: {},
        lane: "bulk",
        timeoutMs: 60_000,
        maxBytes: 1,
        tenant,
      })
      .catch(() => {});
    await macrotask();
  }

  test("unresolvable names of one namespace do not delay other names", async () => {
    for (let name = 0; name < 400; name += 1) await send("many", `x${name}.tarpit.example`);
    await send("other", "gateway.example");
    expect([...inFlight.keys()]).toContain("gateway.example");
    await send("other", "api.anthropic.com");
    expect([...inFlight.keys()]).toContain("api.anthropic.com");
  });

  test("a name needed by two namespaces is looked up in the earlier turn", async () => {
    for (let name = 0; name < 50; name += 1) await send("many", `x${name}.tarpit.example`);
    await send("many", "gateway.example");
    expect([...inFlight.keys()]).not.toContain("gateway.example");
    await send("other", "gateway.example");
    expect([...inFlight.keys()]).toContain("gateway.example");
  });
});
