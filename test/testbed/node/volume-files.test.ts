import { mkdtemp, readdir, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import type { ConfigMap, Secret } from "../../../src/kube/objects.ts";
import { fileReferences, volumeFiles } from "../../../testbed/node/volume-files.ts";
import { fileMounts, writeVolume } from "../../../testbed/node/volume-writer.ts";
import { boundPod, PodBench } from "./pod-bench.ts";

const base64 = (text: string) => Buffer.from(text).toString("base64");
const SECRET: Secret = { metadata: { name: "s" }, data: { a: base64("one"), b: base64("two") } };
const SETTINGS: ConfigMap = { metadata: { name: "c" }, data: { "app.json": "{}" } };

const podWith = (volume: Record<string, unknown>) => boundPod({ spec: { volumes: [{ name: "v", ...volume }] } });

/** Returns the files of the only volume, as `path: content mode`, or undefined if it can't be mounted. */
function filesOf(volume: Record<string, unknown>, present = true) {
  const volumes = volumeFiles(podWith(volume), {
    secret: (name) => (present && name === "s" ? SECRET : undefined),
    configMap: (name) => (present && name === "c" ? SETTINGS : undefined),
  });
  const files = volumes && [...(volumes.get("v") ?? [])];
  return files?.map(([path, { content, mode }]) => `${path}: ${content} ${mode.toString(8)}`);
}

describe("the files of a volume", () => {
  test.each<[string, Record<string, unknown>, string[] | undefined]>([
    ["every key of a Secret", { secret: { secretName: "s" } }, ["a: one 644", "b: two 644"]],
    ["every key of a ConfigMap", { configMap: { name: "c", defaultMode: 0o400 } }, ["app.json: {} 400"]],
    [
      "some keys, with other paths and their own mode",
      { secret: { secretName: "s", defaultMode: 0o400, items: [{ key: "b", path: "x/y", mode: 0o440 }] } },
      ["x/y: two 440"],
    ],
    ["a missing optional key", { secret: { secretName: "s", optional: true, items: [{ key: "z", path: "z" }] } }, []],
    ["a missing key", { secret: { secretName: "s", items: [{ key: "z", path: "z" }] } }, undefined],
    [
      "several sources in one volume",
      { projected: { defaultMode: 0o440, sources: [{ secret: { name: "s" } }, { configMap: { name: "c" } }] } },
      ["a: one 440", "b: two 440", "app.json: {} 440"],
    ],
    [
      "fields of the Pod",
      { downwardAPI: { items: [{ path: "name", fieldRef: { fieldPath: "metadata.name" } }], defaultMode: 0o400 } },
      ["name: work-1 400"],
    ],
    [
      "an annotation that the Pod doesn't have",
      { downwardAPI: { items: [{ path: "a", fieldRef: { fieldPath: "metadata.annotations['a.b/c']" } }] } },
      ["a:  644"],
    ],
    ["a volume of another kind", { emptyDir: {} }, []],
  ])("%s", (_, volume, expected) => expect(filesOf(volume)).toEqual(expected));

  test("of a missing Secret: none if it's optional, otherwise the Pod isn't mounted", () => {
    expect(filesOf({ secret: { secretName: "s", optional: true } }, false)).toEqual([]);
    expect(filesOf({ secret: { secretName: "s" } }, false)).toBeUndefined();
  });

  test("come only from the objects that they name", () => {
    const projected = { sources: [{ secret: { name: "s" } }, { secret: { name: "s" } }, { configMap: { name: "c" } }] };
    expect(fileReferences(podWith({ projected }))).toEqual({ secrets: ["s"], configMaps: ["c"] });
    expect(fileReferences(podWith({ emptyDir: {} }))).toEqual({ secrets: [], configMaps: [] });
  });
});

describe("a Pod with an optional Secret", () => {
  const volume = { name: "v", secret: { secretName: "work-1", optional: true, items: [{ key: "key", path: "key" }] } };

  test("starts without the file, and gets it shortly after it was touched", async () => {
    const bench = new PodBench(boundPod({ spec: { volumes: [volume] } }));
    await bench.untilState("c", "running");
    expect([...(bench.files.get("v") ?? [])]).toEqual([]);
    bench.setSecret("work-1", { key: "x", other: "y" });
    await bench.clock.advance(1_000);
    expect(bench.files.get("v")?.size).toBe(0);
    bench.annotate({ touched: "1" });
    await bench.clock.advance(300);
    expect([...(bench.files.get("v")?.keys() ?? [])]).toEqual(["key"]);
  });

  test("gets the file within two minutes without a touch", async () => {
    const bench = new PodBench(boundPod({ spec: { volumes: [volume] } }));
    await bench.untilState("c", "running");
    bench.setSecret("work-1", { key: "x" });
    await bench.clock.advance(50_000);
    expect(bench.files.get("v")?.size).toBe(0);
    await bench.clock.advance(70_000);
    expect(bench.files.get("v")?.size).toBe(1);
  });

  test("loses the file when the Secret is deleted", async () => {
    const bench = new PodBench(boundPod({ spec: { volumes: [volume] } }));
    bench.setSecret("work-1", { key: "x" });
    await bench.untilState("c", "running");
    expect(bench.files.get("v")?.size).toBe(1);
    bench.secrets.delete("work-1");
    await bench.clock.advance(120_000);
    expect(bench.files.get("v")?.size).toBe(0);
  });
});

test("a change of a Pod's fields is written after the change before it", async () => {
  const items = [{ path: "a", fieldRef: { fieldPath: "metadata.annotations['a']" } }];
  const bench = new PodBench(boundPod({ spec: { volumes: [{ name: "v", downwardAPI: { items } }] } }));
  await bench.untilState("c", "running");
  const written: string[] = [];
  const { promise, resolve } = Promise.withResolvers<void>();
  bench.writeFiles = async (_pod, volumes) => {
    written.push(String(volumes.get("v")?.get("a")?.content));
    await promise;
  };
  for (const a of ["1", "2"]) {
    bench.annotate({ a });
    await bench.clock.advance(300);
  }
  expect(written).toEqual(["1"]);
  resolve();
  await bench.clock.settle();
  expect(written).toEqual(["1", "2"]);
});

test("a Pod with a required Secret doesn't start before the Secret exists", async () => {
  const bench = new PodBench(boundPod({ spec: { volumes: [{ name: "v", secret: { secretName: "s" } }] } }));
  await bench.clock.advance(30_000);
  expect(bench.stateOf("c")).toBe("ContainerCreating");
  bench.setSecret("s", { a: "b" });
  await bench.untilState("c", "running");
  expect([...(bench.files.get("v")?.keys() ?? [])]).toEqual(["a"]);
});

describe("files written to a folder", () => {
  async function folder(): Promise<string> {
    const dir = await mkdtemp(join(tmpdir(), "volume-test-"));
    onTestFinished(() => rm(dir, { recursive: true, force: true }));
    return dir;
  }
  const file = (text: string, mode = 0o440) => ({ content: Buffer.from(text), mode });

  test("have their content and their mode, even after a change, and removed files are gone", async () => {
    const dir = await folder();
    await writeVolume(
      dir,
      new Map([
        ["a", file("1")],
        ["b/c", file("2", 0o400)],
      ]),
    );
    await writeVolume(
      dir,
      new Map([
        ["a", file("11")],
        ["b/c", file("2", 0o400)],
        ["d", file("3")],
      ]),
    );
    expect(await readFile(join(dir, "a"), "utf8")).toBe("11");
    expect(((await stat(join(dir, "a"))).mode & 0o777).toString(8)).toBe("440");
    expect(((await stat(join(dir, "b/c"))).mode & 0o777).toString(8)).toBe("400");
    await writeVolume(dir, new Map([["b/c", file("2")]]));
    expect(await readdir(dir)).toEqual(["b"]);
  });

  test("are in every mount of the whole volume, but not in a mount of a part", () => {
    const pod = boundPod({
      initContainers: [{ name: "i", volumeMounts: [{ name: "v", mountPath: "/x" }] }],
      containers: [
        {
          volumeMounts: [
            { name: "v", mountPath: "/x" },
            { name: "v", mountPath: "/y" },
            { name: "v", mountPath: "/z", subPath: "a" },
          ],
        },
      ],
    });
    expect(fileMounts(pod).map(({ mountPath }) => mountPath)).toEqual(["/x", "/y"]);
  });
});
