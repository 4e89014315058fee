import { expect, test } from "vitest";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import { findLateRecords } from "../../src/sessions/recovery.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { claimSecret, fakeContext } from "./contexts.ts";

const { lateRecordsMs } = DEFAULT_TIMING;

/** Searches for late Secrets. The known names change from `before` to `after` while the list is read. */
async function found(list: readonly string[], before: readonly string[], after = before, failures = 0) {
  const clock = new VirtualClock();
  const listedMs: number[] = [];
  const takenUp: string[] = [];
  let known = before;
  const context = fakeContext({
    clock,
    claimLists: {
      list: async () => {
        listedMs.push(clock.monotonic() - startMs);
        known = after;
        if (listedMs.length <= failures) throw new Error("failed");
        return list.map((name) => claimSecret({}, { name }));
      },
    },
  });
  const startMs = clock.monotonic();
  const taken = () => new Set(known);
  const ending = new AbortController();
  const looking = findLateRecords(context, taken, ({ metadata }) => takenUp.push(metadata.name ?? ""), ending.signal);
  await clock.advance(10 * lateRecordsMs);
  ending.abort();
  await looking;
  return { takenUp, listedMs };
}

test("adopts a Secret that was written late, once no write can be under way", async () => {
  const { takenUp, listedMs } = await found(["known", "late"], ["known"]);
  expect(takenUp).toEqual(["late"]);
  expect(listedMs).toEqual([lateRecordsMs]);
});

test("does not adopt a Secret that was settled or created during the list", async () => {
  expect((await found(["settled"], ["settled"], [])).takenUp).toEqual([]);
  expect((await found(["begun"], [], ["begun"])).takenUp).toEqual([]);
});

test("retries a failed list", async () => {
  const { takenUp, listedMs } = await found(["late"], [], [], 2);
  expect(listedMs).toHaveLength(3);
  expect(takenUp).toEqual(["late"]);
});
