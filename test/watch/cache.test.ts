import { beforeEach, describe, expect, test } from "vitest";
import type { Pod } from "../../src/kube/resource.ts";
import { type Cache, createCache } from "../../src/watch/cache.ts";

const BY_NODE = "node";

let cache: Cache<Pod>;

beforeEach(() => {
  cache = createCache<Pod>({ [BY_NODE]: ({ spec }) => (spec.nodeName === undefined ? [] : [spec.nodeName]) });
});

function put(name: string, nodeName: string): void {
  cache.set(name, { apiVersion: "v1", kind: "Pod", metadata: { name }, spec: { containers: [], nodeName } });
}

const at = (nodeName: string) => cache.byIndex(BY_NODE, nodeName);
const names = (pods: readonly Pod[]) => pods.map(({ metadata }) => metadata.name);

describe("objects of an index value", () => {
  test("are the same array until one of them changes", () => {
    put("a", "n1");
    const [first, none] = [at("n1"), at("n2")];
    put("b", "n3");
    expect(at("n1")).toBe(first);
    expect(at("n2")).toBe(none);
    expect(names(first)).toEqual(["a"]);
  });

  test.each<[string, () => void, string[]]>([
    ["an object is added", () => put("b", "n1"), ["a", "b"]],
    ["an object changes to another value", () => put("a", "n2"), []],
    ["an object is deleted", () => void cache.delete("a"), []],
    ["the last object is deleted and added again", () => [cache.delete("a"), put("a", "n1")], ["a"]],
  ])("are a new array when %s", (_what, change, expected) => {
    put("a", "n1");
    const first = at("n1");
    change();
    expect(at("n1")).not.toBe(first);
    expect(names(at("n1"))).toEqual(expected);
    expect(names(first)).toEqual(["a"]);
  });

  test("are a new array when an object has a new version", () => {
    put("a", "n1");
    const [first] = at("n1");
    put("a", "n1");
    expect(at("n1")[0]).not.toBe(first);
    expect(at("n1")[0]).toBe(cache.get("a"));
  });
});
