import { expect, test } from "vitest";
import { Notifier } from "../../src/core/notifier.ts";
import type { Claim } from "../../src/protocol/claim.ts";
import type { ItemView } from "../../src/protocol/claim-observed.ts";
import { ClaimTable } from "../../src/protocol/claim-table.ts";
import { ItemSweep } from "../../src/sessions/item-sweep.ts";
import { opened, view } from "../protocol/claims.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { fakeContext } from "./fake-context.ts";

test("does not report an item to a claim that took the slot during the sweep", async () => {
  const clock = new VirtualClock();
  const claims = new ClaimTable();
  const seen: Claim[] = [];
  const running = (workId: string) =>
    opened({ startedAtMs: 1, firstBeatSeen: true, journal: { ...opened().record.journal, workId } });
  const [earlier, later] = [running("work_1"), running("work_2")];
  claims.add(earlier);
  const ending = new AbortController();
  const observer = {
    sweep: async () => {
      claims.remove(earlier);
      claims.add(later);
      ending.abort();
      return new Map<string, ItemView>([["work_1", view("active", clock.monotonic())]]);
    },
  };
  const sweep = new ItemSweep({
    context: fakeContext({ clock }),
    claims,
    observer,
    sessions: { saw: (claim: Claim) => seen.push(claim), poke: () => {} },
  } as never);
  await sweep.run(ending.signal, () => true, new Notifier());
  expect(claims.get(later.name)).toBe(later);
  expect(seen).toEqual([]);
});
