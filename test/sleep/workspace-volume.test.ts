import { describe, expect, test } from "vitest";
import type { PersistentVolumeClaim } from "../../src/kube/resource.ts";
import { assignPatch, readVolume, renderVolume } from "../../src/sleep/workspace-volume.ts";

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
