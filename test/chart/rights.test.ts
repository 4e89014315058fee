import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import * as resources from "../../src/kube/resource.ts";
import { ENVIRONMENTS } from "../../src/reconcile/finalizer.ts";
import { DEPLOY_DIR } from "../../testbed/cluster/install.ts";
import { readManifests } from "../../testbed/cluster/manifests.ts";
import { ROOT } from "../project/lint-gate.ts";

/** What the client's methods ask for. */
const VERBS: Readonly<Record<string, string>> = {
  get: "get",
  list: "list",
  listAll: "list",
  create: "create",
  replace: "update",
  patch: "patch",
  delete: "delete",
};

/** Asked for by the API server on others' behalf: owner references that block deletion, where it enforces them. */
const WITHOUT_A_CALL = new Set(["update berth.dev/environments/finalizers"]);

/** Given by a value alone, rbac.workspaces, which deploy/ has off; test/faults/authority has them. */
const BY_VALUE = ["get", "list", "create", "patch", "delete"].map((verb) => `${verb} persistentvolumeclaims`);

/** Run as service accounts of their own, or as a person, with rights of their own. */
const NOT_THE_OPERATOR = /^commands\/(uninstall|check)\.ts$|^doctor\//;

const KNOWN: Readonly<Record<string, resources.Resource>> = { ...(resources as object), ENVIRONMENTS };

/** `patch berth.dev/environments/status` for every request to the API server that the sources hold. */
async function rightsUsed(): Promise<Set<string>> {
  const used = new Set<string>();
  const files = await readdir(join(ROOT, "src"), { recursive: true });
  for (const file of files.filter((name) => name.endsWith(".ts") && !NOT_THE_OPERATOR.test(name))) {
    const text = await readFile(join(ROOT, "src", file), "utf8");
    // A call with all its arguments, up to the end of its statement: the subresource is one of them.
    for (const [, method = "", name = "", rest = ""] of text.matchAll(/\.(\w+)\(\s*([A-Z][A-Z_]+),?(?=([^;]*);)/g)) {
      const resource = KNOWN[name];
      const verb = VERBS[method];
      if (resource && verb) used.add(rightOf(verb, resource, /subresource: "(\w+)"/.exec(rest)?.[1]));
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

test("the operator's rights are those that its sources ask for, and no other", async () => {
  const used = await rightsUsed();
  const given = new Set([...(await rightsGiven()), ...BY_VALUE]);
  expect([...used].filter((right) => !given.has(right)).sort(), "used and not given").toEqual([]);
  const unused = [...given].filter((right) => !used.has(right) && !WITHOUT_A_CALL.has(right));
  expect(unused.sort(), "given and not used").toEqual([]);
});
