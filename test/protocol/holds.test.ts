import { beforeEach, describe, expect, test } from "vitest";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import type { Holds } from "../../src/protocol/holds.ts";
import type { StepName } from "../../src/protocol/tracked-steps.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { contextOf } from "./claims.ts";

const HASH = "a1";
const FOREVER = 3_600_000;
const { retryMaxMs, othersReclaimMs, probeFirstMs } = DEFAULT_TIMING;

let clock: VirtualClock;
let holds: Holds;

beforeEach(() => {
  clock = new VirtualClock();
  const metrics = { failingSteps: { set: () => {} } };
  const labels = { namespace: "agents", environment: "research" };
  holds = contextOf({ clock, metrics, labels, timing: DEFAULT_TIMING, random: () => 0.5 } as never).holds;
  holds.starts.watch(HASH, clock.monotonic());
  holds.creations.useTemplate(HASH);
});

const fail = (step: StepName) => holds.failed(step, { error: new Error("refused") });

/** What is held now. */
function held(): string[] {
  const nowMs = clock.monotonic();
  const checks = {
    polls: nowMs < holds.pollsFromMs,
    claims: nowMs < holds.claimsFromMs || !holds.starts.admits(HASH, nowMs),
    wakes: holds.wakes(HASH, "sesn_1") === "waits",
    creations: holds.creations.waitMs > 0,
  };
  return Object.entries(checks).flatMap(([what, isHeld]) => (isHeld ? [what] : []));
}

function failStarts(): void {
  for (const session of ["sesn_2", "sesn_3", "sesn_4"]) {
    const start = { hash: HASH, claim: session, session, wakes: false, openedMs: clock.monotonic() };
    holds.starts.failed(start, "exit code 1", clock.monotonic());
  }
}

function failOpenings(): void {
  fail("open");
  clock.pause(retryMaxMs);
  fail("open");
}

describe("what is held", () => {
  test.each<[string, () => unknown, string[]]>([
    ["nothing failed", () => {}, []],
    ["items can't be acknowledged", () => fail("acknowledge"), ["polls", "wakes"]],
    ["Secrets of claims can't be created", () => fail("journal"), ["polls", "wakes"]],
    ["Pods can't be read", () => fail("read-pod"), ["polls", "wakes"]],
    ["claimed sessions can't be opened", failOpenings, ["claims"]],
    ["a sleeping Pod can't be attached to", () => fail("wake"), []],
    ["ended sessions can't be settled", () => fail("settled"), []],
    ["programs of new sessions fail", failStarts, ["claims", "wakes"]],
    ["an image can't be pulled", () => holds.creations.pause(), ["creations"]],
    ["a quota has no room for a Pod", () => holds.creations.pause("quota"), ["creations"]],
    ["all Pods are in use", () => holds.rest(), ["polls"]],
    ["items have no secret", () => ["1", "2", "3"].map((id) => holds.credential(true, id)), ["claims"]],
  ])("if %s", (_what, happen, expected) => {
    happen();
    expect(held()).toEqual(expected);
    const again = expected.some((what) => what !== "creations");
    expect(holds.againAtMs < Number.POSITIVE_INFINITY).toBe(again);
    clock.pause(FOREVER);
    expect(held()).toEqual([]);
    expect(holds.againAtMs).toBe(Number.POSITIVE_INFINITY);
  });

  test("ends when the step succeeds, and until then one item is claimed at a time", () => {
    fail("acknowledge");
    clock.pause(retryMaxMs);
    expect([held(), holds.isOneByOne]).toEqual([[], true]);
    holds.succeeded("acknowledge");
    expect(holds.isOneByOne).toBe(false);
  });
});

describe("items without a secret", () => {
  const missing = (id: string) => holds.credential(true, id);
  const verdict = () => holds.verdicts().find(({ reason }) => reason.startsWith("Credential"));

  test("hold claims from the third in a row on, for longer after each", () => {
    for (const id of ["1", "2"]) missing(id);
    expect([held(), holds.mostDemand]).toEqual([[], Number.POSITIVE_INFINITY]);
    expect(verdict()?.message).toContain("work item 1 came without its own secret");
    missing("3");
    expect([held(), holds.mostDemand]).toEqual([["claims"], 1]);
    expect(verdict()?.message).toContain("the last 3 work items");
    clock.pause(probeFirstMs);
    expect(held()).toEqual([]);
    missing("4");
    expect(holds.claimsFromMs).toBe(clock.monotonic() + 2 * probeFirstMs);
  });

  test.each<[string, () => void]>([
    ["an item has one", () => holds.credential(false, "4")],
    ["the key changes", () => holds.keyChanged()],
    ["the spec asks for another credential", () => holds.watchCredential("EnvironmentKey")],
  ])("hold none once %s, and the pauses begin short again", (_what, happen) => {
    for (const id of ["1", "2", "3"]) missing(id);
    happen();
    expect(held()).toEqual([]);
    for (const id of ["5", "6", "7"]) missing(id);
    expect(held()).toEqual(["claims"]);
    expect(holds.claimsFromMs).toBeLessThanOrEqual(clock.monotonic() + 4 * probeFirstMs);
  });
});

test("an item that can't be acknowledged rests for longer after each failure, and after all others may be tried", () => {
  expect(holds.itemFromMs("work_1")).toBeNull();
  const restMs = () => {
    holds.itemFailed("work_1");
    return (holds.itemFromMs("work_1") ?? 0) - clock.monotonic() - othersReclaimMs;
  };
  const first = restMs();
  expect(restMs()).toBe(4 * first);
  for (let n = 0; n < 10; n += 1) fail("acknowledge");
  clock.pause(1);
  expect(restMs()).toBeGreaterThanOrEqual((holds.fromMs("acknowledge") ?? 0) - clock.monotonic());
  holds.itemSucceeded("work_1");
  expect(holds.itemFromMs("work_1")).toBeNull();
});
