import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import * as resources from "../../src/kube/resource.ts";
import { ENVIRONMENTS } from "../../src/reconcile/finalizer.ts";
import { DEPLOY_DIR } from "../../testbed/cluster/install.ts";
import { readManifests } from "../../testbed/cluster/manifests.ts";
import { ROOT } from "../project/lint-gate.ts";

/** The verb of each method of the client. */
const VERBS: Readonly<Record<string, string>> = {
  get: "get",
  list: "list",
  listAll: "list",
  create: "create",
  replace: "update",
  patch: "patch",
  delete: "delete",
};

/**
 * The API server checks `finalizers` for owner references that block deletion, if it enforces them. The others are
 * streams, which no method of the client requests by resource.
 */
const WITHOUT_A_CALL = new Set([
  "update berth.dev/environments/finalizers",
  "get pods/attach",
  "create pods/attach",
  "get pods/log",
  "patch pods/ephemeralcontainers",
]);

/** Granted only with the value features.volumes, which deploy/ does not set; test/faults/authority tests them. */
const BY_VALUE = ["get", "list", "create", "patch", "delete"].map((verb) => `${verb} persistentvolumeclaims`);

/** These run as their own service accounts, or as a person, with other rights. */
const NOT_THE_OPERATOR = /^commands\/uninstall\.ts$|^doctor\//;

const KNOWN: Readonly<Record<string, resources.Resource>> = { ...(resources as object), ENVIRONMENTS };

/** One right, such as `patch berth.dev/environments/status`, for every request to the API server in the sources. */
async function rightsUsed(): Promise<Set<string>> {
  const used = new Set<string>();
  const files = await readdir(join(ROOT, "src"), { recursive: true });
  for (const file of files.filter((name) => name.endsWith(".ts") && !NOT_THE_OPERATOR.test(name))) {
    const text = await readFile(join(ROOT, "src", file), "utf8");
    // A call with all its arguments, up to the end of its statement, since they contain the subresource.
    for (const [, method = "", name = "", rest = ""] of text.matchAll(/\.(\w+)\(\s*([A-Z][A-Z_]+),?(?=([^;]*);)/g)) {
      const resource = KNOWN[name];
      const verb = VERBS[method];
      if (resource && verb) used.add(rightOf(verb, resource, /subresource: "(\w+)"/.exec(rest)?.[1]));
    }
    // keepOwned sends all requests for what its caller keeps.
    if (text.includes("await keepOwned(")) {
      for (const [, name = ""] of text.matchAll(/kube, resource: ([A-Z][A-Z_]+)/g)) {
        const resource = KNOWN[name];
        if (resource) for (const verb of ["get", "create", "patch", "delete"]) used.add(rightOf(verb, resource));
      }
    }
    for (const [, name = ""] of text.matchAll(/new Informer\b[^;]*?resource: ([A-Z][A-Z_]+)/g)) {
      const resource = KNOWN[name];
      if (!resource) throw new Error(`${file}: what an Informer of ${name} watches is not known`);
      for (const verb of ["list", "watch"]) used.add(rightOf(verb, resource));
    }
  }
  return used;
}

function rightOf(verb: string, { group, plural }: resources.Resource, subresource?: string): string {
  return `${verb} ${group === "" ? "" : `${group}/`}${plural}${subresource ? `/${subresource}` : ""}`;
}

async function rightsGiven(): Promise<Set<string>> {
  const given = new Set<string>();
  for (const { kind, metadata, rules } of await readManifests(DEPLOY_DIR)) {
    if (!/^(Cluster)?Role$/.test(kind ?? "") || !metadata?.name?.startsWith("berth-operator")) continue;
    for (const { apiGroups, resources: names, verbs } of rules as Record<string, string[]>[]) {
      for (const group of apiGroups ?? []) {
        for (const name of names ?? []) {
          for (const verb of verbs ?? []) given.add(`${verb} ${group === "" ? "" : `${group}/`}${name}`);
        }
      }
    }
  }
  return given;
}

test("the operator's rights are exactly those that its sources use", async () => {
  const used = await rightsUsed();
  const given = new Set([...(await rightsGiven()), ...BY_VALUE]);
  expect([...used].filter((right) => !given.has(right)).sort(), "used and not given").toEqual([]);
  const unused = [...given].filter((right) => !used.has(right) && !WITHOUT_A_CALL.has(right));
  expect(unused.sort(), "given and not used").toEqual([]);
});
