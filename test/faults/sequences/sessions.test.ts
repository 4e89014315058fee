import { test } from "vitest";
import { useCluster } from "../../support/cluster.ts";
import { runSequences } from "./run.ts";
import { SESSIONS } from "./sessions/mode.ts";

const cluster = useCluster();

test("no sequence of events loses a session of an Environment, runs one twice, or leaves anything behind", async () => {
  await runSequences(SESSIONS, cluster, {
    file: "sequences/sessions",
    counts: { plain: 100, sample: 25, long: 1_000 },
  });
});
