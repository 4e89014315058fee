import fc from "fast-check";
import { expect, test } from "vitest";
import { forbiddenIn } from "../../../src/policy/pod-policy.ts";
import { POLICY_KEYS, POLICY_RULES } from "../../../src/policy/policy-rules.ts";
import { templateOf } from "../../policy/template-cases.ts";
import { useCluster } from "../../support/cluster.ts";
import { startWorld } from "../../support/world.ts";
import { readFaultSettings } from "../support/settings.ts";
import { installAdmissionPolicy } from "./admission-policy.ts";
import { environmentWith, type Json, refusalOf, untilEnforced } from "./environments.ts";

const cluster = useCluster();
const { seed, long } = readFaultSettings();

const RUNS = long ? 5_000 : 300;
/** Requests in flight at a time. */
const AT_ONCE = 8;

/** Every path that a rule reads, as a list of names; `[]` is an element of a list. */
const PATHS = POLICY_KEYS.flatMap((key) => POLICY_RULES[key].looks.map(({ at }) => at)).flatMap(pathsOf);

function pathsOf(path: string): string[][] {
  const [root = "", ...rest] = path.split(".");
  const roots = {
    "@pod": ["spec"],
    "@container": ["spec.containers[]", "spec.initContainers[]", "spec.ephemeralContainers[]"],
  } as const;
  const begins = Object.hasOwn(roots, root) ? roots[root as keyof typeof roots] : [root];
  return begins.flatMap((begin) => spread([...begin.split("."), ...rest].join(".")));
}

/** Expands `a.(b|c)[]` to `a b []` and `a c []`. */
function spread(path: string): string[][] {
  const parts = path.replaceAll("[]", ".[]").split(".");
  return parts.reduce<string[][]>(
    (all, part) =>
      all.flatMap((begun) =>
        part
          .replaceAll(/[()]/g, "")
          .split("|")
          .map((name) => [...begun, name]),
      ),
    [[]],
  );
}

/** Values that a user might write there: valid ones, forbidden ones, and malformed ones. */
const VALUES: readonly unknown[] = [
  ...[true, false, null, 0, 1, 80, 1.5, "", "true", [], {}, [null], [[]], {}, [{}], "x"],
  ...["Unconfined", "unconfined", "Unmasked", "Default", "default", "default-scheduler", "builder", "other"],
  ...[
    "NET_ADMIN",
    "cap_net_admin",
    "CAP_SYS_ADMIN",
    "ALL",
    "CAP_",
    "ß",
    "/",
    "/data",
    "/data/x",
    "/data/../x",
    "/database",
  ],
  ...["kernel.msgmax", "net.ipv4.tcp_syncookies", "container_t", "spc_t", "127.0.0.1", "node-role.kubernetes.io/x"],
  { key: "node-role.kubernetes.io/control-plane", operator: "Exists" },
  { key: "sandboxes", operator: "Exists" },
  { key: null },
  { name: "v", nfs: { server: "s", path: "/" } },
  { name: "v", emptyDir: {}, csi: null },
  { "container.apparmor.security.beta.kubernetes.io/worker": "unconfined" },
];

const change = fc.record({
  path: fc.constantFrom(...PATHS),
  /** The number of names to cut from the end of the path. */
  short: fc.oneof({ weight: 5, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat(2) }),
  value: fc.constantFrom(...VALUES),
});

const template = fc.array(change, { minLength: 1, maxLength: 5 }).map((changes) => {
  const made = templateOf({});
  for (const { path, short, value } of changes) put(made, path.slice(0, Math.max(2, path.length - short)), value);
  return named(made);
});

function put(target: Json, [name = "", ...rest]: readonly string[], value: unknown): void {
  if (rest.length === 0) {
    target[name] = structuredClone(value);
    return;
  }
  if (rest[0] !== "[]") {
    if (!isMap(target[name])) target[name] = {};
    put(target[name] as Json, rest, value);
    return;
  }
  if (!Array.isArray(target[name])) target[name] = [];
  const list = target[name] as unknown[];
  if (rest.length === 1) {
    list.push(structuredClone(value));
    return;
  }
  if (!isMap(list[0])) list[0] = {};
  put(list[0] as Json, rest.slice(1), value);
}

/** The schema requires named containers and volumes; without names, the request would never reach the rules. */
function named(made: Json): Json {
  const spec = isMap(made["spec"]) ? made["spec"] : {};
  for (const list of ["containers", "initContainers", "volumes"]) {
    if (!Array.isArray(spec[list])) continue;
    spec[list] = spec[list].map((item, index) => ({ ...(isMap(item) ? item : {}), name: `${list[0]}${index}` }));
  }
  return { ...made, spec: { ...spec, containers: spec["containers"] ?? [{ name: "worker", image: "worker:1" }] } };
}

function isMap(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

const ALLOWED = {
  privileged: true,
  capabilities: ["NET_ADMIN"],
  hostNamespaces: ["hostPID"],
  hostPaths: ["/data"],
  serviceAccounts: ["builder"],
  tolerations: ["node-role.kubernetes.io/control-plane"],
  volumeKinds: ["nfs"],
} as const;

test.each([
  ["nothing", {}],
  ["something", ALLOWED],
])(
  `the operator and the admission policy agree on random templates where %s is allowed (seed ${seed})`,
  async (_, values) => {
    await using world = await startWorld(cluster);
    await using policy = await installAdmissionPolicy(cluster.api, world.namespace, [world.simulator.url], values);
    const refused = templateOf({ pod: { hostIPC: true } });
    await untilEnforced(world, environmentWith(world, "probe", "sessions", refused));
    let compared = 0;
    let forbidden = 0;
    const wrong: string[] = [];
    const compare = async (made: Json) => {
      const words = await refusalOf(world, environmentWith(world, "random", "sessions", made));
      // The schema's own rules run first, and have their own tests.
      if (words !== null && !words.includes("ValidatingAdmissionPolicy")) return;
      const why = forbiddenIn(policy.podPolicy, made, "spec.sessions.template");
      compared += 1;
      if (why.length > 0) forbidden += 1;
      const isDenied = words?.includes("spec.sessions.template: not allowed") ?? false;
      // A policy also refuses when its expression fails to evaluate, but its message does not help the user.
      if (isDenied !== why.length > 0 || (words !== null && !isDenied)) {
        wrong.push(`${JSON.stringify(made)}\n  admission: ${words}\n  operator: ${why.join(" ")}`);
      }
    };
    const all = fc.sample(template, { seed, numRuns: RUNS });
    for (let from = 0; from < all.length; from += AT_ONCE)
      await Promise.all(all.slice(from, from + AT_ONCE).map(compare));
    expect(wrong).toEqual([]);
    console.log(`random templates compared: ${compared}, of which the policy forbids ${forbidden} (seed ${seed})`);
    expect(compared).toBeGreaterThan(RUNS / 3);
    expect(forbidden).toBeGreaterThan(compared / 10);
    expect(forbidden).toBeLessThan(compared);
  },
);
