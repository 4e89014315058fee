import { expect, test } from "vitest";
import type { Claim } from "../../src/protocol/claim.ts";
import { ClaimPriority, leavesWayUntil } from "../../src/protocol/claim-priority.ts";
import { ClaimTable, newClaim } from "../../src/protocol/claim-table.ts";
import type { Step } from "../../src/protocol/step.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { withFields } from "./claims.ts";

const MOST = 5_000;

function setUp() {
  const clock = new VirtualClock();
  const claims = new ClaimTable();
  return { clock, claims, first: new ClaimPriority({ clock, claims }) };
}

function claimOf(name: string, use: "session" | "removal" = "session"): Claim {
  const journal: Claim["record"]["journal"] = {
    ...{ use, lease: "Worker", environmentUid: "e", podUid: name, workId: `work-${name}`, sessionId: name },
    ...{ queuedAt: "", polledFromMs: 0, polledUntilMs: 0, acknowledgedAt: null, opened: false },
  };
  return newClaim({ name, journal, secretVersion: "1", secretUid: "u", lateAckUntilMs: 0, templateHash: "" });
}

function open(claim: Claim, nowMs: number): void {
  withFields(claim, { openingSent: true });
  openedBefore(claim, nowMs);
}

/** Simulates recovery: the opening gets the time of the restart, and no touch is known. */
function openedBefore(claim: Claim, nowMs = 0): void {
  withFields(claim, { journal: { ...claim.record.journal, opened: true }, openedMs: nowMs });
}

test("holds nothing back while no claim is under way", () => {
  const { first } = setUp();
  expect(first.isRush).toBe(false);
  expect(first.holdMs(MOST)).toBe(0);
});

test("holds other work back until the Pod of the last claim is touched", () => {
  const { clock, claims, first } = setUp();
  const claim = claimOf("a");
  claims.add(claim);
  expect(first.holdMs(MOST)).toBe(MOST);
  open(claim, clock.monotonic());
  expect(first.holdMs(MOST)).toBe(MOST);
  withFields(claim, { touches: 1 });
  expect(first.holdMs(MOST)).toBe(0);
});

test("holds other work back for at most the limit, even if claims follow one another without a gap", async () => {
  const { clock, claims, first } = setUp();
  claims.add(claimOf("a"));
  expect(first.holdMs(MOST)).toBe(MOST);
  await clock.advance(3_000);
  claims.add(claimOf("b"));
  expect(first.holdMs(MOST)).toBe(2_000);
  await clock.advance(2_000);
  expect(first.holdMs(MOST)).toBe(0);
  expect(first.holdMs(MOST)).toBe(MOST);
});

test("restarts the limit for work in a later burst, even if earlier work was never done", async () => {
  const { clock, claims, first } = setUp();
  const claim = claimOf("a");
  claims.add(claim);
  expect(first.holdMs(MOST)).toBe(MOST);
  first.nothingWaits();
  await clock.advance(60_000);
  expect(first.holdMs(MOST)).toBe(MOST);
});

test.each<[string, (claim: Claim) => void]>([
  ["a claim that an earlier process opened", (claim) => openedBefore(claim)],
  ["a claim whose Pod is gone", (claim) => withFields(claim, { end: {} as Claim["observed"]["end"] })],
])("%s holds nothing back", (_what, change) => {
  const { claims, first } = setUp();
  const claim = claimOf("a");
  change(claim);
  claims.add(claim);
  expect(first.holdMs(MOST)).toBe(0);
});

test("a slot that is held to remove its Pod holds nothing back", () => {
  const { claims, first } = setUp();
  claims.add(claimOf("a", "removal"));
  expect(first.holdMs(MOST)).toBe(0);
});

test("settling and repeated touches yield for at most a second", () => {
  const claim = claimOf("a");
  const settled = { do: "settled", because: "stopped" } as const;
  // The operator did not observe the end of a claim from an earlier process.
  expect(leavesWayUntil(settled, claim)).toBeNull();
  expect(leavesWayUntil({ do: "touch" }, claim)).toBeNull();
  withFields(claim, { touchedMs: 3_000, endedMs: 7_000 });
  expect(leavesWayUntil({ do: "touch" }, claim)).toBe(4_000);
  expect(leavesWayUntil(settled, claim)).toBe(8_000);
});

test.each<Step>([
  { do: "look" },
  { do: "open", acknowledgedAt: "" },
  { do: "stop", force: true },
  { do: "fence", expected: "" },
  { do: "drop", because: "" },
  { do: "delete-pod", why: "MaxDuration", message: "" },
])("an urgent step does not yield: $do", (step) => {
  expect(leavesWayUntil(step, withFields(claimOf("a"), { touchedMs: 1, endedMs: 1 }))).toBeNull();
});
