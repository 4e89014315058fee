import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { type Allowed, ATTACH, NODES, OWN, SERVED, TURNS, textsOf, WORKSPACES } from "../faults/authority/allowed.ts";
import { ROOT } from "./lint-gate.ts";

/** Rights such as `get pods` in the tables below a line of the page, up to the next of these lines. */
async function documented(line: string): Promise<Set<string>> {
  const page = await readFile(join(ROOT, "docs/security/permissions.md"), "utf8");
  const [, below = ""] = page.split(`\n${line}\n`);
  const [, table = ""] = /^\n(\|[\s\S]*?)\n\n/.exec(below) ?? [];
  const rows = [...table.matchAll(/^\| `([^`]+)` \| ([a-z ]+) \| \S/gm)];
  return new Set(rows.flatMap(([, resource, verbs = ""]) => verbs.split(" ").map((verb) => `${verb} ${resource}`)));
}

describe("docs/security/permissions.md", () => {
  test.each<[string, readonly Allowed[]]>([
    ["Where Environments are served:", SERVED],
    ["There too, unless `rbac.attach` is false:", ATTACH],
    ["There too, unless `rbac.attach` or `rbac.ephemeralContainers` is false:", TURNS],
    ["There too, with `features.volumes`:", WORKSPACES],
    ["In the release's own namespace:", OWN],
    ["Cluster-wide, unless `features.nodes` is false:", NODES],
  ])("has the rights that are probed for, and no other: %s", async (line, rights) => {
    expect(await documented(line)).toEqual(textsOf(rights));
  });
});

describe("docs/security.md", () => {
  test("names existing tests", async () => {
    const page = await readFile(join(ROOT, "docs/security.md"), "utf8");
    const named = [...page.matchAll(/`(?:npm run test:faults -- )?(test\/[^`]+)`/g)].map(([, path = ""]) => path);
    expect(named.length).toBeGreaterThan(5);
    for (const path of named) expect((await readFile(join(ROOT, path), "utf8")).length).toBeGreaterThan(0);
  });
});
