import { link, mkdir, symlink, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { MissingToolError } from "../../../testbed/cluster/missing.ts";
import { isLeftOut } from "../../../testbed/images/debian.ts";
import { entriesKey, treeKey } from "../../../testbed/images/keys.ts";
import { difference } from "../../../testbed/images/layers.ts";
import { LayerStore } from "../../../testbed/images/store.ts";
import { directory, file, loaded, treeEntries } from "../../../testbed/images/tree.ts";
import { temporaryDir } from "../cluster/temporary.ts";

/** Creates a small tree in this order, with these times and this umask. */
async function makeTree(names: readonly string[], time: Date, mode: number): Promise<string> {
  const root = await temporaryDir();
  await mkdir(join(root, "lib"), { mode: mode | 0o111 });
  for (const name of names) {
    const path = join(root, name);
    await writeFile(path, `contents of ${name}`, { mode: name.endsWith(".sh") ? mode | 0o111 : mode });
    await utimes(path, time, time);
  }
  await symlink("lib/a", join(root, "link"));
  return root;
}

describe("a layer", () => {
  test("has the same digest for the same files, regardless of folder, time, order, and umask", async () => {
    const first = await makeTree(["run.sh", "lib/a", "lib/b"], new Date(2020, 1, 1), 0o644);
    const second = await makeTree(["lib/b", "lib/a", "run.sh"], new Date(2026, 5, 5), 0o600);
    const digests = [];
    for (const root of [first, second]) {
      const store = new LayerStore(await temporaryDir());
      const make = async () => await treeEntries(root, { at: "app" });
      digests.push((await store.layer({ name: "small", key: "key", make })).digest);
    }
    expect(digests[0]).toBe(digests[1]);
    expect(digests[0]).toMatch(/^sha256:[0-9a-f]{64}$/);
    expect(await treeKey(first)).not.toBe(await treeKey(await makeTree(["lib/a"], new Date(), 0o644)));
  });

  test.each([
    ["content", { "a.txt": "two" }],
    ["name", { "b.txt": "one" }],
  ])("changes with a different %s", async (_, files: Record<string, string>) => {
    const entries = (all: Record<string, string>) => Object.entries(all).map(([path, text]) => file(path, text));
    const store = new LayerStore(await temporaryDir());
    const layer = async (key: string, all: Record<string, string>) =>
      (await store.layer({ name: "x", key, make: async () => entries(all) })).digest;
    expect(await layer("1", files)).not.toBe(await layer("2", { "a.txt": "one" }));
    expect(entriesKey(entries(files))).not.toBe(entriesKey(entries({ "a.txt": "one" })));
  });

  test("is built once per key, and again if its file was truncated", async () => {
    const store = new LayerStore(await temporaryDir());
    let made = 0;
    const recipe = {
      name: "counted",
      key: "key",
      make: async () => {
        made += 1;
        return [file("a", "x")];
      },
    };
    const layer = await store.layer(recipe);
    expect(await store.layer(recipe)).toEqual(layer);
    expect(made).toBe(1);
    await writeFile(layer.file, "short");
    expect(await store.find(recipe)).toBeUndefined();
    expect(await store.layer(recipe)).toEqual(layer);
    expect(made).toBe(2);
  });

  test("leaves nothing behind if it can't be built", async () => {
    const store = new LayerStore(await temporaryDir());
    const make = async () => {
      throw new Error("no mirror");
    };
    await expect(store.layer({ name: "x", key: "key", make })).rejects.toThrow("no mirror");
    expect(await treeEntries(store.root)).toEqual([]);
    expect(await store.find({ name: "x", key: "key" })).toBeUndefined();
  });

  test("isn't started on a full disk: the message says how much is missing, and where", async () => {
    const store = new LayerStore(await temporaryDir());
    await expect(store.checkSpace(2 ** 60)).rejects.toThrow(MissingToolError);
    await expect(store.checkSpace(2 ** 60)).rejects.toThrow(/needs 1073741824\.0 GB, .* set XDG_CACHE_HOME/);
    await expect(store.checkSpace(0)).resolves.toBeUndefined();
  });

  test("that is half built is removed by the next build, and nothing else is", async () => {
    const store = new LayerStore(await temporaryDir());
    const layer = await store.layer({ name: "x", key: "key", make: async () => [file("a", "")] });
    await mkdir(join(store.root, ".building-killed"));
    await store.removeLeftovers();
    expect((await treeEntries(store.root)).filter(({ path }) => path.startsWith("."))).toEqual([]);
    expect(await store.find({ name: "x", key: "key" })).toEqual(layer);
  });

  test("that is in no kept archive is removed a day after its last use, and not before", async () => {
    const store = new LayerStore(await temporaryDir());
    const layers = [];
    for (const key of ["kept", "old", "young"]) {
      layers.push(await store.layer({ name: key, key, make: async () => [file(key, "")] }));
    }
    const [kept, old, young] = layers;
    const longAgo = new Date(Date.now() - 25 * 3600_000);
    for (const layer of [kept, old]) await utimes(`${layer?.file}.json`, longAgo, longAgo);
    await store.keepLayers(new Set([kept?.file ?? ""]));
    expect(await store.find({ name: "kept", key: "kept" })).toEqual(kept);
    expect(await store.find({ name: "old", key: "old" })).toBeUndefined();
    expect(await store.find({ name: "young", key: "young" })).toEqual(young);
  });
});

describe("the members of a tree", () => {
  test("keep hard links, owners, and permissions of this machine, or are files of root for a checkout", async () => {
    const root = await temporaryDir();
    await writeFile(join(root, "b"), "x", { mode: 0o640 });
    await link(join(root, "b"), join(root, "c"));
    const kept = await treeEntries(root, { owner: "kept" });
    expect(kept).toMatchObject([
      { type: "file", path: "b", mode: 0o640, uid: process.getuid?.() },
      { type: "hardlink", path: "c", target: "b" },
    ]);
    expect(await treeEntries(root)).toMatchObject([
      { type: "file", path: "b", mode: 0o644, uid: 0 },
      { type: "file", path: "c", mode: 0o644, uid: 0 },
    ]);
  });

  test("don't change with the files once they're loaded", async () => {
    const root = await temporaryDir();
    await writeFile(join(root, "a"), "before");
    const entries = await loaded(await treeEntries(root));
    const key = entriesKey(entries);
    await writeFile(join(root, "a"), "after!");
    expect(entriesKey(entries)).toBe(key);
    expect(entriesKey(await loaded(await treeEntries(root)))).not.toBe(key);
  });
});

describe("the difference of two trees", () => {
  test("contains what is new or changed, and removes what is gone", async () => {
    const lower = [
      directory("etc"),
      file("etc/same", "1"),
      file("etc/changed", "1"),
      file("etc/gone", ""),
      directory("old"),
      file("old/in", ""),
    ];
    const upper = [directory("etc"), file("etc/same", "1"), file("etc/changed", "2"), file("etc/new", "")];
    expect((await difference(upper, lower)).map(({ path }) => path)).toEqual([
      "etc/changed",
      "etc/new",
      "etc/.wh.gone",
      ".wh.old",
    ]);
  });

  test("includes permissions, owners, and types", async () => {
    const lower = [file("mode", ""), directory("owner"), file("type", "")];
    const upper = [file("mode", "", 0o755), directory("owner", 0o755, 10), directory("type")];
    expect(await difference(upper, lower)).toEqual(upper);
    expect(await difference(lower, lower)).toEqual([]);
  });
});

describe("in a new root file system", () => {
  test.each([
    "etc/apt",
    "etc/hostname",
    "etc/machine-id",
    "etc/resolv.conf",
    "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "etc/passwd-",
    "var/lib/apt/lists",
    "var/lib/dpkg/status-old",
    "var/log/dpkg.log",
    "var/cache/ldconfig",
    "dev/null",
    "usr/share/doc/bash",
  ])("%s is left out", (path) => expect(isLeftOut(path)).toBe(true));

  test.each([
    "etc/passwd",
    "etc/ssl/certs/ca-certificates.crt",
    "var/lib/dpkg/status",
    "var/log",
    "var/cache",
    "dev",
    "tmp",
    "usr/share/ca-certificates",
    "usr/lib/apt",
  ])("%s stays", (path) => expect(isLeftOut(path)).toBe(false));
});
