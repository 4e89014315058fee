import { describe, expect, test } from "vitest";
import { planVolumes, type VolumeUse, WAITING_KEPT_MS } from "../../src/sleep/volume-plan.ts";
import type { Volume } from "../../src/sleep/workspace-volume.ts";

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
      ...{ inUse: () => false, mayWait: () => false, podOf: () => "there", creationMs: CREATION, retainMs: RETAIN },
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

  test("whose session's item waits are kept for 24 hours more", () => {
    const used = (agoMs: number) => volume({ lastUsedMs: NOW - RETAIN - agoMs });
    const waiting = { mayWait: () => true };
    expect(plan(used(0), waiting)).toEqual({ ...NOTHING, nextAtMs: NOW + WAITING_KEPT_MS });
    expect(plan(used(WAITING_KEPT_MS - 1), waiting)).toEqual({ ...NOTHING, nextAtMs: NOW + 1 });
    expect(plan(used(WAITING_KEPT_MS), waiting)).toEqual({ ...NOTHING, expire: [used(WAITING_KEPT_MS)] });
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
