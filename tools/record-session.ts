/**
 * Records what a user sees of one session's life into docs/session-life.md, from a real API server and an unmodified
 * worker: `node tools/record-session.ts`. `--check` writes nothing and exits with code 1 if a text has changed.
 */
import { execFile } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { bashScript } from "../simulator/script.ts";
import { isAsleep, turnStatus } from "../src/pods/turns.ts";
import { asTestCluster } from "../test/integration/own-cluster.ts";
import type { TestCluster } from "../test/support/cluster.ts";
import { untilAssigned, untilEnded, untilState } from "../test/support/session-life.ts";
import { startWorld, type World } from "../test/support/world.ts";
import { findClientTools } from "../testbed/cluster/client-tools.ts";
import { startCluster } from "../testbed/cluster/cluster.ts";
import { installBerth } from "../testbed/cluster/install.ts";
import { showProgress } from "../testbed/cluster/progress.ts";
import { metricChanges } from "./metric-changes.ts";
import { replaceRecorded } from "./recorded-blocks.ts";
import { type Run, shownEvents, shownTable, shownText } from "./shown-texts.ts";

const PAGE = join(import.meta.dirname, "..", "docs", "session-life.md");
const WORKER = fileURLToPath(new URL("../examples/worker/worker.mjs", import.meta.url));
/** How long the worker keeps an idle session: long enough to inspect it while it runs. */
const IDLE_MS = 8_000;
/** Replaces the name of every Pod after the first. */
const NEXT_POD = "berth-research-2h8xk5wc";

const progress = showProgress();
const kubectl = join(await findClientTools({ progress }), "kubectl");
const before = await readFile(PAGE, "utf8");
const after = replaceRecorded(before, await record());
const checks = process.argv.includes("--check");
if (before === after) console.log("docs/session-life.md is up to date");
else if (checks) console.error("docs/session-life.md is out of date: run node tools/record-session.ts");
else await writeFile(PAGE, after);
if (checks && before !== after) process.exitCode = 1;

async function record(): Promise<Map<string, string>> {
  await using own = await startCluster({ progress });
  progress.clear();
  await installBerth(own.api);
  const cluster = await asTestCluster(own);
  const createNamespace = () => cluster.createNamespace("shown-session");
  await using world = await startWorld(
    { ...cluster, createNamespace },
    {
      node: { runtime: "process", fates: () => undefined },
      sessions: { maxConcurrent: 1, workspace: { type: "Pod" } },
      container: {
        command: [process.execPath, WORKER],
        env: [{ name: "BERTH_WORKER_MAX_IDLE_MS", value: String(IDLE_MS) }],
      },
      timeScale: 1,
    },
  );
  await world.createEnvironment();
  const operator = world.startOperator();
  const texts = new Map<string, string>();
  await untilCounts(world, { warm: 1 });
  const run = {
    namespace: world.namespace,
    name: world.name,
    environmentId: world.environmentId,
    node: world.node.name,
  };
  const show = showing(cluster, run);
  const get = ["get", "benv,pods", "-L", "berth.dev/phase"];
  texts.set("warm", await show.tables(get));
  const metricsBefore = await operator.metrics.registry.metrics();

  const item = world.simulator.enqueue(world.environmentId, { script: bashScript("echo hello") });
  const pod = await untilAssigned(world, item);
  await untilState(world, item, "active");
  await world.until("the Event is written", () => world.events("SessionStarted").length === 1);
  await untilCounts(world, { running: 1 });
  const events = ["events", "--for", `pod/${pod.metadata.name}`];
  const secrets = ["get", "secrets", "-l", `berth.dev/environment=${world.name}`];
  texts.set("running", [await show.tables(get), await show.events(events), await show.tables(secrets)].join("\n\n"));

  await untilEnded(world, { operator, item, pod }, "Completed");
  await untilCounts(world, { sleeping: 1, running: 0, warm: 1 });
  await untilTurnWaits(world, 2);
  texts.set("sleeping", `${await show.tables(get)}\n\n${await show.events(events)}`);

  const { sessionId } = item;
  const next = world.simulator.enqueue(world.environmentId, { sessionId, script: bashScript("echo hello again") });
  await untilState(world, next, "active");
  await untilCounts(world, { sleeping: 0, running: 1 });
  texts.set("awake", `${await show.tables(get)}\n\n${await show.tables(secrets)}`);
  await untilState(world, next, "stopped");
  await untilCounts(world, { sleeping: 1, running: 0 });
  texts.set("metrics", shownText(metricChanges(metricsBefore, await operator.metrics.registry.metrics()), run));
  await operator.stop();
  return texts;
}

/** Waits until a sleeping session's next turn waits for its work item. */
async function untilTurnWaits(world: World, turn: number): Promise<void> {
  await world.until(`turn ${turn} waits`, () => {
    return world.pods.some((pod) => isAsleep(pod) && turnStatus(pod, turn)?.state?.running !== undefined);
  });
}

async function untilCounts(world: World, counts: Readonly<Record<string, number>>): Promise<void> {
  await world.until(`counts ${JSON.stringify(counts)}`, () => {
    const sessions: Partial<Record<string, number>> = { ...world.environment?.status?.sessions };
    return Object.entries(counts).every(([name, count]) => sessions[name] === count);
  });
}

/** Records kubectl commands and their output, as the page shows them. */
function showing(cluster: TestCluster, run: Run) {
  const pods = new RegExp(`\\bberth-${run.name}-[a-z0-9]{8}\\b`, "g");
  let first = "";
  const ask = async (command: readonly string[]) => {
    const env = { ...process.env, KUBECONFIG: cluster.kubeconfig };
    const { stdout } = await promisify(execFile)(kubectl, ["--namespace", run.namespace, ...command], { env });
    return stdout.replaceAll(pods, (name) => {
      first ||= name;
      return name === first ? name : NEXT_POD;
    });
  };
  const line = (command: readonly string[]) => `$ kubectl -n agents ${shownText(command.join(" "), run)}`;
  return {
    tables: async (command: readonly string[]) => {
      const tables = (await ask(command)).trim().split("\n\n");
      return [line(command), tables.map((table) => shownTable(table, run)).join("\n\n")].join("\n");
    },
    events: async (command: readonly string[]) => [line(command), shownEvents(await ask(command), run)].join("\n"),
  };
}
