import { describe, expect, test } from "vitest";
import { FINALIZER } from "../../src/api/names.ts";
import { NO_POINTS } from "../../src/core/points.ts";
import type { KubeObject } from "../../src/kube/resource.ts";
import { EnvironmentFinalizer } from "../../src/reconcile/finalizer.ts";
import { noAnswer } from "../sessions/fake-context.ts";
import { type Answer, FakeKube } from "./fake-kube.ts";

const THEIRS = "example.org/theirs";

function holdOn(answer: Answer) {
  const kube = new FakeKube(answer);
  const hold = new EnvironmentFinalizer({
    ...{ kube: kube.client, points: NO_POINTS, namespace: "agents", name: "research", uid: "env-uid" },
  });
  const patches = () => kube.calls.filter(({ verb }) => verb === "patch").map(({ body }) => body);
  return { kube, hold, patches };
}

const environment = (metadata: KubeObject["metadata"] = {}) => ({
  metadata: { name: "research", uid: "env-uid", resourceVersion: "5", ...metadata },
});

describe("the finalizer of an Environment", () => {
  test.each([
    ["no others", undefined, null],
    ["others", [THEIRS], [THEIRS]],
  ])("is added to %s, only on this Environment and only if the list is unchanged", async (_, finalizers, found) => {
    const { hold, patches } = holdOn(() => environment(finalizers && { finalizers }));
    expect(await hold.hold()).toBe(true);
    expect(patches()).toEqual([
      [
        { op: "test", path: "/metadata/uid", value: "env-uid" },
        { op: "test", path: "/metadata/finalizers", value: found },
        { op: "add", path: "/metadata/finalizers", value: [...(finalizers ?? []), FINALIZER] },
      ],
    ]);
  });

  test.each([
    ["is another one of the name", { uid: "another" }],
    ["is being deleted", { deletionTimestamp: "2030-01-01T00:00:00Z" }],
  ])("is not added if the Environment %s", async (_, metadata) => {
    const { hold, patches } = holdOn(() => environment(metadata));
    expect(await hold.hold()).toBe(false);
    expect(patches()).toEqual([]);
  });

  test("may be set after an unanswered write, so the next hold reads again", async () => {
    const { kube, hold } = holdOn(({ verb }) => (verb === "get" ? environment() : noAnswer()));
    await expect(hold.hold()).rejects.toThrow("no answer");
    expect(hold.mayBeHeld).toBe(true);
    kube.answer(() => environment({ finalizers: [FINALIZER] }));
    const before = kube.calls.length;
    expect(await hold.hold()).toBe(true);
    expect(kube.calls.length).toBe(before + 1);
  });

  test("is removed only from the Environment version that was read, and leaves other finalizers", async () => {
    const { hold, patches } = holdOn(() => environment({ finalizers: [THEIRS, FINALIZER] }));
    await hold.release(() => true);
    expect(patches()).toEqual([{ metadata: { resourceVersion: "5", finalizers: [THEIRS] } }]);
  });

  test("stays if the Environment is in use again by then", async () => {
    const { kube, hold } = holdOn(() => environment({ finalizers: [FINALIZER] }));
    await hold.release(() => false);
    expect(kube.calls).toEqual([]);
    expect(hold.mayBeHeld).toBe(true);
  });
});
