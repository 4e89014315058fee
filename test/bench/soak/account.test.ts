import { expect, test } from "vitest";
import { accountOf } from "../../../bench/soak/account.ts";
import type { ItemRecord } from "../../../simulator/item.ts";

const item = (over: Partial<ItemRecord>) =>
  ({
    id: "work_01",
    state: "stopped",
    generation: 1,
    firstBeatAt: 1,
    acks: [{ at: 0, generation: 1 }],
    ...over,
  }) as ItemRecord;

test("an item that was served, and an item that was queued and served again, are both correct", () => {
  const again = item({ generation: 2, acks: [1, 2].map((generation) => ({ at: 0, generation, workerId: undefined })) });
  expect(accountOf([item({}), again])).toEqual({ sessions: 2, beaten: 2, requeued: 1, wrongs: [] });
});

test.each([
  ["is not stopped", { state: "active" }, "work_01 is active"],
  ["was never claimed", { acks: [], firstBeatAt: undefined }, "work_01 was queued 1 times and acknowledged 0 times"],
  [
    "was claimed twice in one generation",
    { acks: [1, 1].map((generation) => ({ at: 0, generation, workerId: undefined })) },
    "work_01 was acknowledged 2 times in 1 generations",
  ],
] as const)("an item that %s is reported", (_what, over, wrong) => {
  expect(accountOf([item(over as Partial<ItemRecord>)]).wrongs).toEqual([wrong]);
});
