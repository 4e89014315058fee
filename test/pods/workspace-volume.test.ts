import { describe, expect, test } from "vitest";
import type { PersistentVolumeClaim } from "../../src/kube/resource.ts";
import {
  assignPatch,
  planVolumes,
  readVolume,
  renderVolume,
  type Volume,
  type VolumeUse,
} from "../../src/pods/workspace-volume.ts";

const OWNER = { namespace: "agents", name: "research", uid: "uid-1" };
const TEMPLATE = {
  accessModes: ["ReadWriteOnce" as const],
  resources: { requests: { storage: "1Gi" } },
  storageClassName: undefined,
};

describe("reading a volume", () => {
  type Change = (claim: PersistentVolumeClaim) => void;
  const stored = (change: Change = () => {}, isAssigned = true) => {
    const claim = renderVolume(OWNER, "berth-research-1", TEMPLATE);
    Object.assign(claim.metadata, { uid: "v", resourceVersion: "1", creationTimestamp: "2026-01-01T00:00:00Z" });
    const volume = readVolume(claim, OWNER);
    if (isAssigned && volume) {
      const { labels, annotations } = assignPatch(volume, "session_1").metadata;
      Object.assign(claim.metadata.labels ?? {}, labels);
      Object.assign(claim.metadata.annotations ?? {}, annotations);
      // A merge patch removes what it sets to null.
      delete claim.metadata.annotations?.["berth.dev/unassigned"];
    }
    change(claim);
    return readVolume(claim, OWNER);
  };

  test("returns that a new one has no session, the name of its Pod, and when it was created", () => {
    const createdMs = Date.parse("2026-01-01T00:00:00Z");
    expect(stored(undefined, false)).toMatchObject({ name: "berth-research-1", sessionId: null, createdMs });
  });

  test("returns its session, and that it is in use", () => {
    expect(stored()).toMatchObject({ sessionId: "session_1", uid: "v", lastUsedMs: null, going: false });
  });

  test("returns since when it is unused", () => {
    const at = "2026-01-01T00:00:00.000Z";
    const mark = ({ metadata }: PersistentVolumeClaim) => {
      metadata.annotations = { ...metadata.annotations, "berth.dev/last-used": at };
    };
    expect(stored(mark)?.lastUsedMs).toBe(Date.parse(at));
  });

  test.each<[string, Change]>([
    ["it has no owner", ({ metadata }) => delete metadata.ownerReferences],
    [
      "another Environment owns it",
      ({ metadata }) => Object.assign(metadata.ownerReferences?.[0] ?? {}, { uid: "uid-2" }),
    ],
    ["its session's name was removed", ({ metadata }) => delete metadata.annotations],
  ])("returns null where %s", (_, change) => {
    expect(stored(change)).toBeNull();
  });
});

describe("volumes", () => {
  const NOW = 1_000_000;
  const RETAIN = 60_000;
  const CREATION = 1_000;
  const volume = (more: Partial<Volume> = {}): Volume => ({
    name: "v",
    uid: "u",
    resourceVersion: "1",
    sessionId: "a",
    createdMs: NOW,
    lastUsedMs: null,
    going: false,
    ...more,
  });
  const NOTHING = { take: [], leave: [], expire: [], discard: [], nextAtMs: null };
  const plan = (of: Volume, use: Partial<VolumeUse> = {}) =>
    planVolumes([of], NOW, {
      ...{ inUse: () => false, podOf: () => "there", creationMs: CREATION, retainMs: RETAIN },
      ...use,
    });

  test.each<[string, Partial<Volume>, boolean, Partial<ReturnType<typeof planVolumes>>]>([
    ["in use do not change", {}, true, {}],
    ["in use lose their mark instead of expiring", { lastUsedMs: 0 }, true, { take: [volume({ lastUsedMs: 0 })] }],
    ["without a Pod are marked", {}, false, { leave: [volume()] }],
    [
      "with a mark in the future are marked again",
      { lastUsedMs: NOW * 2 },
      false,
      { leave: [volume({ lastUsedMs: NOW * 2 })] },
    ],
    ["stay until their retention ends", { lastUsedMs: NOW - RETAIN + 1 }, false, { nextAtMs: NOW + 1 }],
    [
      "expire after their retention",
      { lastUsedMs: NOW - RETAIN },
      false,
      { expire: [volume({ lastUsedMs: NOW - RETAIN })] },
    ],
    ["being deleted are left alone", { going: true, lastUsedMs: 0 }, false, {}],
  ])("%s", (_, of, inUse, expected) => {
    expect(plan(volume(of), { inUse: () => inUse })).toEqual({ ...NOTHING, ...expected });
  });

  const unassigned = (createdMs = NOW) => volume({ sessionId: null, createdMs });
  const OLD = NOW - CREATION;

  test.each<[string, Volume, VolumeUse["podOf"], Partial<ReturnType<typeof planVolumes>>]>([
    ["stays with its Pod", unassigned(0), () => "there", {}],
    ["is deleted at once after its Pod", unassigned(), () => "gone", { discard: [unassigned()] }],
    [
      "stays while the creation of its Pod may be in flight",
      unassigned(OLD + 1),
      () => "never-seen",
      { nextAtMs: NOW + 1 },
    ],
    ["is deleted if no Pod was created", unassigned(OLD), () => "never-seen", { discard: [unassigned(OLD)] }],
    ["is left alone if it is being deleted", { ...unassigned(), going: true }, () => "gone", {}],
  ])("one without a session %s", (_, of, podOf, expected) => {
    expect(plan(of, { podOf })).toEqual({ ...NOTHING, ...expected });
  });
});
