import { setImmediate as macrotask } from "node:timers/promises";
import { afterEach, beforeEach, expect, test } from "vitest";
import { realClock } from "../../src/core/clock.ts";
import type { Resolve } from "../../src/work/guarded-connect.ts";
import { WorkHttp } from "../../src/work/http.ts";

/** Lookups in flight, by name. */
let underWay: Map<string, () => void>;
let http: WorkHttp;

beforeEach(() => {
  underWay = new Map();
  const resolve: Resolve = (hostname, _options, callback) => {
    underWay.set(hostname, () => {
      underWay.delete(hostname);
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

test("400 unresolvable names of one namespace delay neither the names of other namespaces nor the default one", async () => {
  for (let name = 0; name < 400; name += 1) await send("many", `x${name}.tarpit.example`);
  await send("other", "gateway.example");
  expect([...underWay.keys()]).toContain("gateway.example");
  await send("other", "api.anthropic.com");
  expect([...underWay.keys()]).toContain("api.anthropic.com");
});

test("a name that waits behind another namespace's names is looked up in the turn of the next namespace that needs it", async () => {
  for (let name = 0; name < 50; name += 1) await send("many", `x${name}.tarpit.example`);
  await send("many", "gateway.example");
  expect([...underWay.keys()]).not.toContain("gateway.example");
  await send("other", "gateway.example");
  expect([...underWay.keys()]).toContain("gateway.example");
});
