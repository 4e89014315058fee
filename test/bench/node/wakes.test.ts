import { expect, test } from "vitest";
import type { Turn } from "../../../bench/node/sleep-lane.ts";
import { compareFiles, readOutput, readSurvived, relistsBetween } from "../../../bench/node/wakes.ts";

const HASH = "a".repeat(64);
const OTHER_HASH = "b".repeat(64);

function turn(output: string, uid = "uid-1"): Turn {
  return {
    ...{ kind: "pod", namespace: "ns", pod: "pod-1", turn: 1, workId: "work-1", sessionId: "session-1", uid },
    ...{ queuedAt: 0, offeredAt: 0, acknowledgedAt: 0, startedAt: 0, beatAt: 0, outputs: [output] },
  };
}

test("reads the hash and the canaries that an item printed", () => {
  const output = `saw /workspace/canary-7\nsaw /tmp/canary-8-beside\n${HASH}  -\n`;
  expect(readOutput(["", output])).toEqual({ hash: HASH, canaries: ["7", "8-beside"] });
  expect(readOutput([])).toEqual({ hash: undefined, canaries: [] });
});

const OWN = "saw /workspace/canary-7\n";

test.each([
  ["nothing", turn(`${HASH}  -`), turn(`${OWN}${HASH}  -`), {}],
  ["other files", turn(`${HASH}  -`), turn(`${OWN}${OTHER_HASH}  -`), { changed: 1 }],
  ["files that could not be read", turn(""), turn(OWN), { changed: 1 }],
  ["another session's file at the second item", turn(`${HASH}  -`), turn(`saw /canary-8\n${HASH}  -`), { foreign: 1 }],
  ["a file at the first item", turn(`${OWN}${HASH}  -`), turn(`${OWN}${HASH}  -`), { foreign: 1 }],
  ["another Pod", turn(`${HASH}  -`), turn(`${OWN}${HASH}  -`, "uid-2"), { elsewhere: 1 }],
])("finds %s", (_, first, second, found) => {
  expect(compareFiles("7", first, second)).toEqual({ woken: 1, changed: 0, foreign: 0, elsewhere: 0, ...found });
});

test("reads what an item found of an earlier one", () => {
  expect(readSurvived(["found workspace\nfound process\n"])).toEqual({
    ...{ workspace: true, elsewhere: false, process: true },
  });
  expect(readSurvived([])).toEqual({ workspace: false, elsewhere: false, process: false });
});

const metrics = (buckets: readonly number[], sum: number) =>
  [
    "# HELP kubelet_pleg_relist_duration_seconds Duration in seconds for relisting pods in PLEG.",
    ...["0.005", "0.01", "0.025", "+Inf"].map(
      (le, at) => `kubelet_pleg_relist_duration_seconds_bucket{le="${le}"} ${buckets[at]}`,
    ),
    `kubelet_pleg_relist_duration_seconds_sum ${sum}`,
    `kubelet_pleg_relist_duration_seconds_count ${buckets.at(-1)}`,
    "kubelet_pleg_relist_interval_seconds_count 9",
  ].join("\n");

test("reads the relists between two reads of the kubelet's metrics", () => {
  const { count, meanMs, p95Ms } = relistsBetween(metrics([5, 7, 8, 8], 0.1), metrics([15, 26, 28, 28], 0.3));
  expect([count, p95Ms]).toEqual([20, 10]);
  expect(meanMs).toBeCloseTo(10);
});
