/**
 * Records every status of Pods on a real node, in situations that a test can't wait for, and writes them to
 * test/fixtures/pod-sequences. Needs what a real node needs (`npm run setup:node`). To record the node's shutdown, it
 * also needs Debian's dbus, python3-dbus, and python3-gi.
 *
 *   node testbed/recorder/main.ts [--check] [ACT...]
 *
 * With --check, it writes nothing and prints which recordings differ from the existing ones, ignoring times and amounts.
 */
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isDeepStrictEqual, parseArgs } from "node:util";
import { showProgress } from "../cluster/progress.ts";
import { startNodeCluster } from "../real-node/node-cluster.ts";
import type { Act } from "./act.ts";
import { ends } from "./act-ends.ts";
import { pulls, secrets } from "./act-looks.ts";
import { lost, lostAlone, lostForGood, outOfService } from "./act-lost.ts";
import { pressure, pressureAtStart, restarts, shutdown } from "./act-node.ts";
import { makeImage } from "./image.ts";
import { comparable, Normalizer, RECORDED, type Sequence } from "./sequence.ts";
import { type Recording, Stage } from "./stage.ts";

const ACTS: readonly Act[] = [
  ends,
  lost,
  lostAlone,
  lostForGood,
  outOfService,
  shutdown,
  pressure,
  pressureAtStart,
  restarts,
  pulls,
  secrets,
];
const DIR = join(import.meta.dirname, "../../test/fixtures/pod-sequences");

const { values, positionals } = parseArgs({ options: { check: { type: "boolean" } }, allowPositionals: true });
const progress = showProgress();
const unknown = positionals.filter((name) => !ACTS.some((act) => act.name === name));
if (unknown.length > 0)
  throw new Error(`no act ${unknown.join(", ")}: there are ${ACTS.map(({ name }) => name).join(", ")}`);

for (const act of ACTS) {
  if (positionals.length > 0 && !positionals.includes(act.name)) continue;
  try {
    for (const [name, sequence] of await perform(act)) await keep(name, sequence);
  } catch (error) {
    progress.line(`${act.name}: ${error instanceof Error ? error.message : String(error)}`);
    process.exitCode = 1;
  }
}
progress.clear();

/** Plays an act on its own cluster. */
async function perform(act: Act): Promise<Map<string, Sequence>> {
  const dir = await mkdtemp(join(tmpdir(), "berth-recorder-"));
  try {
    const images = [await makeImage(join(dir, "image"))];
    await using cluster = await startNodeCluster({
      images,
      nodeName: RECORDED.node,
      parentDir: dir,
      progress,
    });
    await using stage = new Stage(cluster, dir);
    await stage.begin();
    progress.line(`${act.name}: playing`);
    await act.play(stage);
    const containerd = await cluster.control.run("containerd", ["--version"]);
    const recorded = { kubernetes: cluster.version, containerd: containerd.stdout.split(" ")[2] ?? "" };
    return new Map(stage.recordings.map((recording) => [recording.name, sequenceOf(recording, recorded)]));
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

function sequenceOf(recording: Recording, recorded: Sequence["recorded"]): Sequence {
  const { pod, note, spec, steps } = recording;
  if (!pod) throw new Error(`${recording.name} was never seen`);
  return { note, recorded, spec: new Normalizer(pod).apply(spec), steps };
}

async function keep(name: string, sequence: Sequence): Promise<void> {
  const file = join(DIR, `${name}.json`);
  if (values.check !== true) {
    await mkdir(DIR, { recursive: true });
    await writeFile(file, `${JSON.stringify(sequence, null, 1)}\n`);
    progress.line(`  ${name}: ${sequence.steps.length} statuses`);
    return;
  }
  const before = await readFile(file, "utf8").catch(() => undefined);
  const same =
    before !== undefined && isDeepStrictEqual(comparable(JSON.parse(before) as Sequence), comparable(sequence));
  progress.line(`  ${name}: ${before === undefined ? "is new" : same ? "as recorded" : "differs"}`);
  if (!same) process.exitCode = 1;
}
