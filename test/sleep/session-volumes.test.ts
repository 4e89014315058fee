import { describe, expect, test } from "vitest";
import { KubeApiError } from "../../src/kube/errors.ts";
import type { PersistentVolumeClaim, Pod } from "../../src/kube/resource.ts";
import { SessionVolumes } from "../../src/sleep/session-volumes.ts";
import { renderVolume } from "../../src/sleep/workspace-volume.ts";
import { pod } from "../pods/pods.ts";
import { FakeKube, notFound, refusal } from "../reconcile/fake-kube.ts";
import { fakeContext } from "../sessions/fake-context.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const OWNER = { namespace: "agents", name: "research", uid: "env-uid" };
const TEMPLATE = {
  accessModes: ["ReadWriteOnce" as const],
  resources: { requests: { storage: "1Gi" } },
  storageClassName: undefined,
};
const ENVIRONMENT = { spec: { sessions: { workspace: { type: "PerSession", claimTemplate: TEMPLATE } } } };
const UNANSWERED = new KubeApiError("no answer", { status: 0, maybeApplied: true });

type Annotations = Record<string, string | null>;

/** Volumes on a server that has these, by name and with their session; null: none yet. */
function volumesOf(of: Record<string, string | null>, environment: object = ENVIRONMENT) {
  const clock = new VirtualClock();
  const stored = new Map<string, PersistentVolumeClaim>();
  let version = 0;
  const store = (claim: PersistentVolumeClaim) => {
    version += 1;
    const metadata = { uid: `${claim.metadata.name}-uid`, ...claim.metadata, resourceVersion: String(version) };
    stored.set(claim.metadata.name ?? "", { ...claim, metadata });
    return stored.get(claim.metadata.name ?? "");
  };
  const write = (name: string, annotations: Annotations) => {
    const claim = stored.get(name);
    if (!claim) throw new Error(`no volume ${name}`);
    const all = Object.entries({ ...claim.metadata.annotations, ...annotations });
    const kept = Object.fromEntries(all.filter((entry): entry is [string, string] => entry[1] !== null));
    return store({ ...claim, metadata: { ...claim.metadata, annotations: kept } });
  };
  const assign = (name: string, sessionId: string) =>
    write(name, { "berth.dev/session-id": sessionId, "berth.dev/unassigned": null });
  for (const [name, sessionId] of Object.entries(of)) {
    store(renderVolume(OWNER, name, TEMPLATE));
    if (sessionId !== null) assign(name, sessionId);
  }
  const server = { loses: (_patch: object): boolean => false, readsAfter: Promise.resolve() };
  const kube = new FakeKube(({ verb, ref: { name }, body }) => {
    const claim = stored.get(name);
    if (verb === "listAll") return { items: [...stored.values()] };
    if (verb === "create") return store(body as PersistentVolumeClaim);
    if (!claim) return notFound("persistentvolumeclaims", name);
    if (verb !== "patch") return server.readsAfter.then(() => claim);
    const { resourceVersion, annotations } = (body as { metadata: PersistentVolumeClaim["metadata"] }).metadata;
    if (server.loses(annotations ?? {})) return UNANSWERED;
    if (resourceVersion !== undefined && resourceVersion !== claim.metadata.resourceVersion)
      return refusal(409, "Conflict", "the object has been modified");
    return write(name, annotations as Annotations);
  }, clock);
  const holds = { succeeded: () => {}, failed: () => {} };
  const context = fakeContext({ clock, kube: kube.client, environment: () => environment, holds });
  const volumes = new SessionVolumes(context, () => {});
  const ready = async () => {
    await volumes.list();
    await volumes.settle();
    return volumes;
  };
  const sessionOf = (name: string) => stored.get(name)?.metadata.annotations?.["berth.dev/session-id"];
  return { volumes, ready, kube, server, stored, assign, write, sessionOf };
}

/** A Pod that mounts the volume of this name. */
const podWith = (volume: string | null, sessionId?: string): Pod =>
  pod(
    {},
    {
      metadata: {
        creationTimestamp: new Date(new VirtualClock().now()).toISOString(),
        annotations: {
          ...(volume === null ? {} : { "berth.dev/workspace": volume }),
          ...(sessionId === undefined ? {} : { "berth.dev/session-id": sessionId }),
        },
      },
    },
  );

describe("which sessions a Pod may serve", () => {
  test("those without a volume, if its volume has no session", async () => {
    const volumes = await volumesOf({ a: null, b: "one" }).ready();
    expect(volumes.mayServe(podWith("a"), "one")).toBe(false);
    expect(volumes.mayServe(podWith("a"), "two")).toBe(true);
  });

  test("only the session of its volume, although the Pod doesn't name it", async () => {
    const volumes = await volumesOf({ a: "one" }).ready();
    expect(["one", "two"].map((session) => volumes.mayServe(podWith("a"), session))).toEqual([true, false]);
  });

  test("only the session that it was made for, before the volumes are listed", () => {
    const { volumes } = volumesOf({ a: "one" });
    expect(["one", "two"].map((session) => volumes.mayServe(podWith("a", "one"), session))).toEqual([true, false]);
  });

  test("none while it is not known which sessions have a volume", async () => {
    const { volumes } = volumesOf({ a: null });
    expect(volumes.bindingOf(podWith("a"))).toEqual({ is: "unknown" });
    await volumes.list();
    // A request of an earlier process may still assign it.
    expect(volumes.mayServe(podWith("a"), "one")).toBe(false);
    await volumes.settle();
    expect(volumes.mayServe(podWith("a"), "one")).toBe(true);
  });

  test("none if it was made for a session, and its volume is being deleted, or gone", async () => {
    const { ready, stored } = volumesOf({ a: "one" });
    const claim = stored.get("a");
    if (claim) claim.metadata.deletionTimestamp = "2026-01-01T00:00:00Z";
    const volumes = await ready();
    const pods = [podWith("a", "one"), podWith("b", "two")];
    expect(pods.map((each) => volumes.bindingOf(each).is)).toEqual(["lost", "lost"]);
    expect(pods.map((each, index) => volumes.mayServe(each, ["one", "two"][index] ?? ""))).toEqual([false, false]);
  });

  test("none if its volume is being deleted, or gone", async () => {
    const { ready, stored } = volumesOf({ a: null, b: null });
    const claim = stored.get("a");
    if (claim) claim.metadata.deletionTimestamp = "2026-01-01T00:00:00Z";
    const volumes = await ready();
    stored.delete("b");
    expect(await volumes.assign(podWith("b"), "one")).toBe("taken");
    expect(["a", "b"].map((name) => volumes.bindingOf(podWith(name)).is)).toEqual(["lost", "lost"]);
  });

  test("without volumes, only Pods that mount none", async () => {
    const { volumes } = volumesOf({}, { spec: { sessions: { workspace: { type: "Ephemeral" } } } });
    expect([podWith(null), podWith("a")].map((each) => volumes.mayServe(each, "one"))).toEqual([true, false]);
  });
});

describe("the assignment of a volume", () => {
  test("gives it to the session with one request, and to no other", async () => {
    const { ready, kube, sessionOf } = volumesOf({ a: null });
    const volumes = await ready();
    const before = kube.calls.length;
    expect(await volumes.assign(podWith("a"), "one")).toBe("assigned");
    expect(kube.calls.length - before).toBe(1);
    expect(sessionOf("a")).toBe("one");
    expect([volumes.has("one"), volumes.mayServe(podWith("a"), "two")]).toEqual([true, false]);
    expect(await volumes.assign(podWith("a"), "two")).toBe("taken");
  });

  test("is not undone by an earlier read that is answered later", async () => {
    const { ready, server } = volumesOf({ a: null });
    const volumes = await ready();
    const { promise, resolve } = Promise.withResolvers<void>();
    server.readsAfter = promise;
    const reading = volumes.read("a");
    expect(await volumes.assign(podWith("a"), "one")).toBe("assigned");
    resolve();
    expect((await reading)?.sessionId).toBe("one");
    expect(volumes.has("one")).toBe(true);
  });

  test("sends nothing for a Pod in which its session sleeps, or without a volume", async () => {
    const { ready, kube } = volumesOf({ a: "one" });
    const volumes = await ready();
    const before = kube.calls.length;
    const sleeping = podWith("a", "one");
    sleeping.metadata.labels = { "berth.dev/phase": "sleeping" };
    expect(await volumes.assign(sleeping, "one")).toBe("assigned");
    expect(await volumes.assign(podWith(null), "one")).toBe("assigned");
    expect(kube.calls.length).toBe(before);
  });

  test("writes to the session's own volume, so that an earlier mark as unused is refused", async () => {
    const { ready, kube, stored } = volumesOf({ a: "one" });
    const volumes = await ready();
    const [volume] = volumes.all();
    const before = kube.calls.length;
    expect(await volumes.assign(podWith("a", "one"), "one")).toBe("assigned");
    expect(kube.calls.length - before).toBe(1);
    expect(volume && (await volumes.mark(volume, "2026-01-01T00:00:00Z"))).toBeNull();
    expect(stored.get("a")?.metadata.annotations?.["berth.dev/last-used"]).toBeUndefined();
  });

  test("removes the mark as unused of the session's own volume", async () => {
    const { ready, write, stored } = volumesOf({ a: "one" });
    const volumes = await ready();
    write("a", { "berth.dev/last-used": "2026-01-01T00:00:00Z" });
    expect(await volumes.assign(podWith("a"), "one")).toBe("assigned");
    expect(stored.get("a")?.metadata.annotations?.["berth.dev/last-used"]).toBeUndefined();
  });

  test("reads the volume of a Pod that was made for the session, before the volumes are listed", async () => {
    const { volumes, kube } = volumesOf({ a: "one" });
    expect(await volumes.assign(podWith("a", "one"), "one")).toBe("assigned");
    expect(kube.calls.map(({ verb }) => verb)).toEqual(["get", "patch"]);
  });

  test("fails in a Pod of the session whose volume was deleted, since the session gets another", async () => {
    const { ready, stored } = volumesOf({ a: "one" });
    const volumes = await ready();
    stored.delete("a");
    expect(await volumes.assign(podWith("a", "one"), "one")).toBe("taken");
    expect([volumes.has("one"), volumes.bindingOf(podWith("a", "one")).is]).toEqual([false, "lost"]);
  });

  test("is tried again if another client wrote to the volume, such as the volume binder", async () => {
    const { ready, write, sessionOf } = volumesOf({ a: null });
    const volumes = await ready();
    write("a", { "pv.kubernetes.io/bind-completed": "yes" });
    expect(await volumes.assign(podWith("a"), "one")).toBe("assigned");
    expect(sessionOf("a")).toBe("one");
  });

  test("leaves a volume that another session got meanwhile", async () => {
    const { ready, assign, sessionOf } = volumesOf({ a: null });
    const volumes = await ready();
    assign("a", "two");
    expect(await volumes.assign(podWith("a"), "one")).toBe("taken");
    expect(sessionOf("a")).toBe("two");
    expect(volumes.mayServe(podWith("a"), "two")).toBe(true);
  });

  test("without an answer keeps the session and the volume from others, until the volume was written", async () => {
    const { ready, server } = volumesOf({ a: null, b: null });
    const volumes = await ready();
    server.loses = () => true;
    expect(await volumes.assign(podWith("a"), "one")).toBe("failed");
    const mayServe = () =>
      ["one", "two"].map((session) => ["a", "b"].map((name) => volumes.mayServe(podWith(name), session)));
    expect(mayServe()).toEqual([
      [false, false],
      [false, true],
    ]);
    await expect(volumes.settle()).rejects.toThrow("no answer");
    expect(volumes.mayServe(podWith("b"), "one")).toBe(false);
    server.loses = () => false;
    await volumes.settle();
    expect(mayServe()).toEqual([
      [true, true],
      [true, true],
    ]);
  });

  test("without an answer counts if it took effect", async () => {
    const { ready, server, assign } = volumesOf({ a: null, b: null });
    const volumes = await ready();
    server.loses = () => true;
    expect(await volumes.assign(podWith("a"), "one")).toBe("failed");
    server.loses = () => false;
    assign("a", "one");
    await volumes.settle();
    expect(["a", "b"].map((name) => volumes.mayServe(podWith(name), "one"))).toEqual([true, false]);
  });
});

describe("the volumes of sessions", () => {
  test("are kept if a list that was requested before a write is answered after it", async () => {
    const { ready, kube, stored } = volumesOf({});
    const volumes = await ready();
    const listed = [...stored.values()];
    const answers = Promise.withResolvers<void>();
    const create = volumes.create("a");
    kube.answer(({ verb }) => (verb === "listAll" ? answers.promise.then(() => ({ items: listed })) : {}));
    const list = volumes.list();
    await create;
    answers.resolve();
    await list;
    expect(volumes.all().map(({ name }) => name)).toEqual(["a"]);
  });

  test("of which a session has two (by an earlier version): the one used last is its volume", async () => {
    const { ready, write } = volumesOf({ a: "one", b: "one", c: "one" });
    write("a", { "berth.dev/last-used": "2026-01-02T00:00:00Z" });
    write("b", { "berth.dev/last-used": "2026-01-03T00:00:00Z" });
    write("c", { "berth.dev/last-used": "2026-01-01T00:00:00Z" });
    const volumes = await ready();
    expect(volumes.nameOf("one")).toBe("b");
    expect(await volumes.take("one")).toEqual({ sessionId: "one", claim: "b" });
  });

  test("are marked as in use before a Pod is made for them", async () => {
    const { ready, write, stored } = volumesOf({ a: "one" });
    const volumes = await ready();
    write("a", { "berth.dev/last-used": "2026-01-01T00:00:00Z" });
    expect(await volumes.take("one")).toEqual({ sessionId: "one", claim: "a" });
    expect(stored.get("a")?.metadata.annotations?.["berth.dev/last-used"]).toBeUndefined();
  });

  test("are given up if they are gone, so that the session gets another", async () => {
    const { ready, stored } = volumesOf({ a: "one", b: null });
    const volumes = await ready();
    stored.delete("a");
    expect(await volumes.take("one")).toBeNull();
    expect(volumes.mayServe(podWith("b"), "one")).toBe(true);
  });

  test("being deleted keep their session waiting", async () => {
    const { ready, stored } = volumesOf({ a: "one", b: null });
    const claim = stored.get("a");
    if (claim) claim.metadata.deletionTimestamp = "2026-01-01T00:00:00Z";
    const volumes = await ready();
    await expect(volumes.take("one")).rejects.toThrow("is being deleted");
    expect(volumes.mayServe(podWith("b"), "one")).toBe(false);
  });

  test("serve the next Pod if theirs was not created", async () => {
    const { ready, kube } = volumesOf({});
    const volumes = await ready();
    await volumes.create("a");
    volumes.spare("a");
    volumes.spare("unknown");
    expect([volumes.takeSpare(), volumes.takeSpare()]).toEqual(["a", null]);
    const before = kube.calls.length;
    expect(await volumes.create("a")).toEqual({ sessionId: null, claim: "a" });
    expect(kube.calls.length).toBe(before);
  });
});
