import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { afterAll, describe, expect, test } from "vitest";
import { findCondition } from "../../../src/api/conditions.ts";
import type { Environment } from "../../../src/api/environment.ts";
import { isInvalid } from "../../../src/kube/errors.ts";
import type { KubeObject } from "../../../src/kube/resource.ts";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import { type AllowedOrigins, originAllowed } from "../../../src/settings/allowed-origins.ts";
import { templateOf } from "../../policy/template-cases.ts";
import { INNER, PUBLIC } from "../../support/addresses.ts";
import { useCluster } from "../../support/cluster.ts";
import { startOperatorProcess } from "../../support/operator-process.ts";
import { startWorld, type World } from "../../support/world.ts";
import { installAdmissionPolicy } from "./admission-policy.ts";
import { environmentWith, type Json, refusalOf, untilEnforced } from "./environments.ts";

const cluster = useCluster();

const SPELLED = [...INNER, ...PUBLIC].filter((address) => /^[0-9a-fA-F.:]+$/.test(address) && address.length > 6);
const NAMES = [
  ...["https://api.anthropic.com", "https://api.anthropic.com:443", "https://API.Anthropic.com", "https://a.b:8443"],
  ...[
    "http://api.anthropic.com",
    "http://10.0.0.1",
    "http://127.0.0.1:8080",
    "https://localhost",
    "https://kubernetes",
  ],
  ...[
    "https://kubernetes.default.svc",
    "https://metadata.google.internal",
    "https://printer.local",
    "https://a.home.arpa",
  ],
  ...["https://localhost.", "https://a.local.", "https://api.anthropic.com.", "https://internal.example.com"],
];
const ORIGINS = [...NAMES, ...SPELLED.map((address) => `https://${address.includes(":") ? `[${address}]` : address}`)];

/** The admission policy does not parse addresses, so only the operator refuses these. */
const IS_READ_BY_THE_OPERATOR = /^https:\/\/\[(::ffff:|64:ff9b::|.*\.)/i;

let refused = 0;
afterAll(() => console.log(`addresses of the Work API refused at admission: ${refused}`));

/** An Environment whose Work API has this base URL. */
function environmentAt(world: World, baseUrl: string, name = "somewhere"): KubeObject {
  const environment = environmentWith(world, name, "sessions", templateOf({})) as KubeObject & { readonly spec: Json };
  return { ...environment, spec: { ...environment.spec, api: { baseUrl, keySecretRef: { name: "key" } } } };
}

/** The origins on which the admission policy and the operator disagree. */
async function differences(world: World, allowed: AllowedOrigins): Promise<string[]> {
  const wrong: string[] = [];
  for (const origin of ORIGINS) {
    const words = await refusalOf(world, environmentAt(world, origin));
    // The schema refuses what is not an origin.
    if (words !== null && !words.includes("ValidatingAdmissionPolicy")) continue;
    const isRefused = words?.includes("may not send keys") === true && words.includes("allowedApiOrigins");
    if (isRefused) refused += 1;
    const expected = !originAllowed(allowed, origin);
    if (isRefused !== expected && !(expected && IS_READ_BY_THE_OPERATOR.test(origin)))
      wrong.push(`${origin}: ${words}`);
  }
  return wrong;
}

describe("the Work API address of an Environment", () => {
  test("is refused at admission where the operator refuses it: plain http and private addresses", async () => {
    await using world = await startWorld(cluster);
    await using _policy = await installAdmissionPolicy(cluster.api, world.namespace, []);
    await untilEnforced(world, environmentAt(world, "http://api.anthropic.com"));
    expect(await differences(world, "any-https")).toEqual([]);
    expect(refused).toBeGreaterThan(40);
  });

  test("must be in the chart's list if there is one, in any spelling", async () => {
    await using world = await startWorld(cluster);
    const allowed = ["https://API.anthropic.com", "http://127.0.0.1:8080", "https://a.b:8443"];
    await using _policy = await installAdmissionPolicy(cluster.api, world.namespace, allowed);
    await untilEnforced(world, environmentAt(world, "https://example.com"));
    const read = ["https://api.anthropic.com", "http://127.0.0.1:8080", "https://a.b:8443"];
    expect(await differences(world, read)).toEqual([]);
  });

  test("may be older than the policy and stay, but can change only to an allowed address", async () => {
    await using world = await startWorld(cluster);
    await world.createEnvironment();
    await using _policy = await installAdmissionPolicy(cluster.api, world.namespace, []);
    await untilEnforced(world, environmentAt(world, "http://api.anthropic.com"));
    await world.patchSpec({ paused: true });
    await expect(world.patchSpec({ api: { baseUrl: "http://127.0.0.1:1" } })).rejects.toThrow(/may not send keys/);
    await world.patchSpec({ api: { baseUrl: "https://api.anthropic.com" } });
  });
});

describe("an operator without a list of origins", () => {
  test("sends no request to a private address in any spelling, and reports it", async () => {
    await using world = await startWorld(cluster);
    let connections = 0;
    await using listening = await listen(() => {
      connections += 1;
    });
    const { port } = listening;
    const hosts = [
      "127.0.0.1",
      "[::1]",
      "2130706433",
      "0x7f000001",
      "127.1",
      "localhost",
      "localhost.",
      "[::ffff:7f00:1]",
    ];
    const named = hosts.flatMap((host) => [`https://${host}:${port}`, `http://${host}:${port}`]);
    const others = ["https://169.254.169.254", "https://kubernetes.default.svc", "https://metadata.google.internal"];
    const names: string[] = [];
    for (const [at, baseUrl] of [...named, ...others].entries()) {
      const name = `inner-${at}`;
      const environment = environmentAt(world, baseUrl, name);
      const made = await world.kube.create(ENVIRONMENTS, environment as never).catch(refusedBySchema);
      if (made) names.push(name);
    }
    expect(names.length).toBeGreaterThan(others.length + hosts.length);
    const flags = world.flags();
    const listed = flags.indexOf("--allowed-api-origins");
    expect(listed).toBeGreaterThanOrEqual(0);
    await using _operator = await startOperatorProcess([...flags.toSpliced(listed, 2), "--leader-elect=false"]);
    const reasons = await world.until("each is judged", async () => {
      const { items } = await world.kube.listAll(ENVIRONMENTS, { namespace: world.namespace });
      const all = items.map(
        (item) => findCondition((item as Environment).status?.conditions, "QueueReachable")?.reason,
      );
      return all.every((reason) => reason !== undefined && reason !== "QueueUnchecked") && all;
    });
    expect([...new Set(reasons)]).toEqual(["OriginNotAllowed"]);
    expect(reasons).toHaveLength(names.length);
    expect(connections).toBe(0);
  });
});

/** A server on this machine that closes each connection without a reply. */
async function listen(onConnection: () => void) {
  const server = createServer((socket) => {
    onConnection();
    socket.destroy();
  });
  server.listen({ port: 0, host: "::", ipv6Only: false });
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    [Symbol.asyncDispose]: async () => {
      server.close();
      await once(server, "close");
    },
  };
}

function refusedBySchema(error: unknown): null {
  if (isInvalid(error)) return null;
  throw error;
}
