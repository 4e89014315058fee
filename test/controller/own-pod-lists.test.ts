import { expect, test } from "vitest";
import { ownPodLists } from "../../src/controller/controller.ts";
import type { Pod } from "../../src/kube/resource.ts";
import { type Cache, createCache } from "../../src/watch/cache.ts";

const INDEX = "environment";
const KEY = "agents/research";
const UID = "ours";

const put = (cache: Cache<Pod>, name: string, uid = UID) =>
  cache.set(name, {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, ownerReferences: [{ apiVersion: "v1", kind: "Environment", name: "e", uid, controller: true }] },
    spec: { containers: [] },
  });

function setUp() {
  const [first, second] = [createCache<Pod>({ [INDEX]: () => [KEY] }), createCache<Pod>({ [INDEX]: () => [KEY] })];
  const list = ownPodLists([first, second], { index: INDEX, key: KEY, uid: UID });
  return { first, second, list, names: () => list().map(({ metadata }) => metadata.name) };
}

test("lists the Pods of all caches, except those of another Environment of the same name", () => {
  const { first, second, names } = setUp();
  expect(names()).toEqual([]);
  put(first, "a");
  put(first, "theirs", "another");
  put(second, "b");
  expect(names()).toEqual(["a", "b"]);
});

test("returns the same list until a Pod is added, changed or deleted in any cache", () => {
  const { first, second, list, names } = setUp();
  put(first, "a");
  put(second, "b");
  const before = list();
  expect(list()).toBe(before);
  put(second, "c");
  expect(names()).toEqual(["a", "b", "c"]);
  put(first, "a", "another");
  expect(names()).toEqual(["b", "c"]);
  second.delete("b");
  expect(names()).toEqual(["c"]);
  expect(before.map(({ metadata }) => metadata.name)).toEqual(["a", "b"]);
});
