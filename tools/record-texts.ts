/**
 * Records what kubectl shows of the faults (test/integration/faults.ts) that docs/troubleshooting.md shows, from a real
 * API server: `node tools/record-texts.ts`. `--check` writes nothing and exits with code 1 if a text has changed.
 */
import { execFile } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { type Fault, faults, makeHappen } from "../test/integration/faults.ts";
import { asTestCluster } from "../test/integration/own-cluster.ts";
import type { TestCluster } from "../test/support/cluster.ts";
import { startWorld, type World } from "../test/support/world.ts";
import { findClientTools } from "../testbed/cluster/client-tools.ts";
import { startCluster } from "../testbed/cluster/cluster.ts";
import { installBerth } from "../testbed/cluster/install.ts";
import { showProgress } from "../testbed/cluster/progress.ts";
import { recordedBlocks, replaceRecorded } from "./recorded-blocks.ts";
import { shownDescription, shownTable } from "./shown-texts.ts";

const PAGE = join(import.meta.dirname, "..", "docs", "troubleshooting.md");
/** Counts are written at most every 5 s, so a status that has not changed for longer is complete. */
const STILL_MS = 6_000;
const STILL_WITHIN_MS = 45_000;

const checks = process.argv.includes("--check");
const progress = showProgress();
const kubectl = join(await findClientTools({ progress }), "kubectl");
const before = await readFile(PAGE, "utf8");
const after = replaceRecorded(before, await record([...recordedBlocks(before).keys()]));
if (before === after) console.log("docs/troubleshooting.md is up to date");
else if (checks) console.error("docs/troubleshooting.md is out of date: run node tools/record-texts.ts");
else await writeFile(PAGE, after);
if (checks && before !== after) process.exitCode = 1;

async function record(names: readonly string[]): Promise<Map<string, string>> {
  await using own = await startCluster({ progress });
  progress.clear();
  await installBerth(own.api);
  const cluster = await asTestCluster(own);
  const texts = new Map<string, string>();
  for (const fault of faults().filter(({ name }) => names.includes(name))) {
    texts.set(fault.name, await recordOne(cluster, fault));
  }
  return texts;
}

async function recordOne(cluster: TestCluster, fault: Fault): Promise<string> {
  const createNamespace = () => cluster.createNamespace(`shown-${fault.name}`);
  await using world = await startWorld({ ...cluster, createNamespace }, fault.world);
  const operator = await makeHappen(fault, world, cluster);
  await world.untilCondition(fault.shows.type, fault.shows.reason);
  await world.until("its Event", () => world.events(fault.shows.reason).length > 0);
  await untilStill(world);
  const text = await shown(cluster, world, fault);
  await operator.stop();
  console.log(`recorded ${fault.name}`);
  return text;
}

/** Waits until the Environment has not been written for a while. Some faults never settle. */
async function untilStill(world: World): Promise<void> {
  const startedMs = performance.now();
  let version = world.environment?.metadata.resourceVersion;
  let sinceMs = startedMs;
  await world.until("the Environment to stop changing", () => {
    const now = performance.now();
    if (world.environment?.metadata.resourceVersion !== version) {
      version = world.environment?.metadata.resourceVersion;
      sinceMs = now;
    }
    return now - sinceMs > STILL_MS || now - startedMs > STILL_WITHIN_MS;
  });
}

async function shown(cluster: TestCluster, world: World, fault: Fault): Promise<string> {
  const { namespace, name, environmentId, node } = world;
  const run = { namespace, name, environmentId, node: node.name };
  const ask = async (...command: string[]) => {
    const env = { ...process.env, KUBECONFIG: cluster.kubeconfig };
    return (await promisify(execFile)(kubectl, ["--namespace", namespace, ...command], { env })).stdout;
  };
  const types = ["Ready", fault.shows.type];
  return [
    "$ kubectl -n agents get benv",
    shownTable(await ask("get", "benv"), run),
    "$ kubectl -n agents describe benv research",
    shownDescription(await ask("describe", "benv", name), run, types),
  ].join("\n");
}
