import { test } from "vitest";
import { useCluster } from "../../support/cluster.ts";
import { runSequences } from "./run.ts";
import { WORKERS } from "./workers/mode.ts";

const cluster = useCluster();

test("no sequence of events ends a busy worker, leaves too many or too few, or leaves anything behind", async () => {
  await runSequences(WORKERS, cluster, { file: "sequences/workers", counts: { plain: 20, sample: 6, long: 250 } });
});
