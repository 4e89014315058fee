import { describe, expect, test } from "vitest";
import type { PersistentVolumeClaim } from "../../src/kube/resource.ts";
import { planVolumes, readVolume, renderVolume, type Volume, volumeName } from "../../src/pods/workspace-volume.ts";

const OWNER = { namespace: "agents", name: "research", uid: "uid-1" };
const TEMPLATE = {
  accessModes: ["ReadWriteOnce" as const],
  resources: { requests: { storage: "1Gi" } },
  storageClassName: undefined,
};

describe("the name of a session's volume", () => {
  test("is stable, and differs between sessions and Environments", () => {
    const name = volumeName(OWNER, "session_1");
    expect(volumeName({ ...OWNER }, "session_1")).toBe(name);
    const others = [volumeName(OWNER, "session_2"), volumeName({ ...OWNER, uid: "uid-2" }, "session_1")];
    expect(new Set([name, ...others]).size).toBe(3);
  });

  test.each(["research", "a".repeat(46), "with.dots.in-it", `${"a".repeat(45)}-b`])(
    "is valid for an Environment named %s",
    (name) => {
      expect(volumeName({ ...OWNER, name }, "x ".repeat(500))).toMatch(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/);
    },
  );
});

describe("reading a volume", () => {
  const stored = (change: (claim: PersistentVolumeClaim) => void = () => {}) => {
    const claim = renderVolume(OWNER, "session_1", TEMPLATE);
    Object.assign(claim.metadata, { uid: "v", resourceVersion: "1" });
    change(claim);
    return readVolume(claim, OWNER);
  };

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

  test.each<[string, (claim: PersistentVolumeClaim) => void]>([
    ["it has no owner", ({ metadata }) => delete metadata.ownerReferences],
    [
      "another Environment owns it",
      ({ metadata }) => Object.assign(metadata.ownerReferences?.[0] ?? {}, { uid: "uid-2" }),
    ],
    [
      "it names another session than its own",
      ({ metadata }) => Object.assign(metadata.annotations ?? {}, { "berth.dev/session-id": "s" }),
    ],
    ["it names no session", ({ metadata }) => delete metadata.annotations],
  ])("returns null where %s", (_, change) => {
    expect(stored(change)).toBeNull();
  });
});

describe("volumes", () => {
  const NOW = 1_000_000;
  const RETAIN = 60_000;
  const volume = (more: Partial<Volume> = {}): Volume => ({
    name: "v",
    uid: "u",
    resourceVersion: "1",
    sessionId: "a",
    lastUsedMs: null,
    going: false,
    ...more,
  });
  const plan = (of: Volume, inUse = false) => planVolumes([of], () => inUse, NOW, RETAIN);

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
    expect(plan(volume(of), inUse)).toEqual({ take: [], leave: [], expire: [], nextAtMs: null, ...expected });
  });
});
