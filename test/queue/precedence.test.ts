import { describe, expect, test } from "vitest";
import type { KubeObject } from "../../src/kube/resource.ts";
import { precedenceOf } from "../../src/queue/precedence.ts";

interface Parts {
  readonly second?: number;
  readonly key?: "KeyAccepted" | "KeyRejected" | "KeyUnchecked" | "KeySecretUnreadable" | "KeySecretMissing";
  readonly queue?: "EnvironmentNotFound";
  readonly ready?: "InvalidSpec";
  readonly isRead?: boolean;
  readonly isDeleting?: boolean;
  readonly paused?: boolean;
}

/** An Environment with the name and uid `name`; by default with an accepted key. */
function environment(name: string, parts: Parts = {}): KubeObject {
  const { second = 0, key = "KeyAccepted", isRead = key === "KeyAccepted", paused = false } = parts;
  const at = (seconds: number) => new Date(seconds * 1_000).toISOString();
  return {
    metadata: {
      name,
      namespace: "agents",
      uid: name,
      creationTimestamp: at(second),
      ...(parts.isDeleting ? { deletionTimestamp: at(100) } : {}),
    },
    spec: { paused },
    status: {
      conditions: [
        { type: "Authenticated", reason: key },
        { type: "QueueReachable", reason: parts.queue ?? "Reachable" },
        { type: "Ready", reason: parts.ready ?? "Ready" },
      ],
      ...(isRead ? { queue: { depth: 0, pending: 0 } } : {}),
    },
  } as unknown as KubeObject;
}

const of = (uid: string, ...queue: KubeObject[]) =>
  precedenceOf(uid, { environments: queue, unlisted: [] }, () => false);
/** The Environments that are served; at most one. */
const served = (...queue: KubeObject[]) =>
  queue.filter(({ metadata: { uid = "" } }) => of(uid, ...queue).isServed).map(({ metadata }) => metadata.name);

test("an Environment alone in its queue is served, also before its key was checked", () => {
  const may = { isServed: true, mayClaim: true, verdict: null };
  expect(of("a", environment("a", { key: "KeyUnchecked" }))).toEqual(may);
  expect(of("a")).toEqual(may);
});

describe("of several Environments", () => {
  test("the oldest is served, or the one with the smaller uid", () => {
    expect(served(environment("a", { second: 2 }), environment("b", { second: 1 }))).toEqual(["b"]);
    expect(served(environment("b"), environment("a"))).toEqual(["a"]);
  });

  test.each<[string, Parts]>([
    ["whose key is rejected", { key: "KeyRejected" }],
    ["whose key was accepted before and is rejected", { key: "KeyRejected", isRead: true }],
    ["whose key was never checked", { key: "KeyUnchecked" }],
    ["whose key answers without the queue's statistics, as for a made-up claim", { isRead: false }],
    ["whose new key is of another workspace", { key: "KeyUnchecked", isRead: true, queue: "EnvironmentNotFound" }],
    ["whose Secret is gone", { key: "KeySecretMissing", isRead: true }],
    ["that is invalid", { ready: "InvalidSpec" }],
    ["that is being deleted", { isDeleting: true }],
  ])("an older one %s is not", (_title, parts) => {
    expect(served(environment("a", parts), environment("b", { second: 1 }))).toEqual(["b"]);
  });

  test.each<[string, Parts]>([
    ["its key is checked again, after a restart or with a new key", { key: "KeyUnchecked", isRead: true }],
    ["its Secret can't be read", { key: "KeySecretUnreadable", isRead: true }],
    ["the platform doesn't find the environment", { queue: "EnvironmentNotFound" }],
  ])("an older one stays served while %s", (_title, parts) => {
    expect(served(environment("a", parts), environment("b", { second: 1 }))).toEqual(["a"]);
  });

  test("none is served before one key is accepted", () => {
    const queue = ["a", "b"].map((name) => environment(name, { key: "KeyUnchecked" }));
    expect(served(...queue)).toEqual([]);
    expect(of("a", ...queue)).toMatchObject({ mayClaim: false, verdict: { reason: "Pending" } });
  });

  test("the others learn which one is served, and whether it is paused", () => {
    const fix = "delete one of the two, or create this one again with its own environmentId";
    const message = (paused: boolean) =>
      of("b", environment("a", { paused }), environment("b", { second: 1 })).verdict?.message;
    expect(message(false)).toBe(`spec.environmentId: already served by Environment agents/a, which is older; ${fix}`);
    expect(message(true)).toBe(
      `spec.environmentId: already served by Environment agents/a, which is older and paused, so nothing new is served; ${fix}`,
    );
  });
});

describe("while a namespace can't be listed", () => {
  const waited = (before: string, ...unlisted: string[]) =>
    precedenceOf("a", { environments: [environment("a")], unlisted }, () => false, before);

  test.each(["EnvironmentIdShared", "AwaitingSessions"])("%s stays, and its message names the namespace", (before) => {
    const message = expect.stringContaining("cannot list the Environments of agents-2 now; let Berth");
    expect(waited(before, "agents-2")).toEqual({
      isServed: false,
      mayClaim: false,
      verdict: { reason: before, message },
    });
    expect(waited(before)).toMatchObject({ mayClaim: true });
  });

  test("an Environment that waited for no other one is served", () => {
    expect(waited("Ready", "agents-2")).toMatchObject({ mayClaim: true });
  });
});

describe("the served Environment", () => {
  /** What `b` may do while `a`, with these parts, has claims. */
  const beside = (parts: Parts) =>
    precedenceOf(
      "b",
      { environments: [environment("a", parts), environment("b", { second: 1 })], unlisted: [] },
      ({ metadata }) => metadata.uid === "a",
    );

  test.each<[string, Parts]>([
    ["an older one that is deleted", { isDeleting: true }],
    ["an older one whose key was rejected since", { key: "KeyRejected", isRead: true }],
    ["a younger one", { second: 2 }],
  ])("claims nothing while %s has claims", (_title, parts) => {
    expect(beside(parts)).toMatchObject({
      isServed: true,
      mayClaim: false,
      verdict: { reason: "AwaitingSessions", message: expect.stringContaining("agents/a") },
    });
  });

  test("doesn't wait for claims of one whose key was never accepted, because they are made up", () => {
    expect(beside({ key: "KeyRejected" })).toEqual({ isServed: true, mayClaim: true, verdict: null });
  });
});
