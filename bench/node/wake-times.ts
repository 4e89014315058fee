import { setTimeout as pause } from "node:timers/promises";
import type { Simulator } from "../../simulator/simulator.ts";
import { SECOND_MS } from "../../src/core/clock.ts";
import { ADMIN, OPERATOR } from "../../testbed/cluster/users.ts";
import { type Inside, load } from "./inside.ts";
import { type Kept, KeptLane } from "./kept-lane.ts";
import { WARM } from "./kinds.ts";
import { settle, shuffled } from "./lane.ts";
import { SleepLane, type Turn } from "./sleep-lane.ts";
import { type Start, toBeat, toStarted, withMeasured } from "./starts.ts";
import {
  addFiles,
  compareFiles,
  type FilesFound,
  NO_FILES,
  READING,
  type Wake,
  type WakesFound,
  type WakesOptions,
  writing,
} from "./wakes.ts";

/** A session between its two items. */
interface Sleeper {
  readonly name: string;
  readonly lane: SleepLane;
  readonly first: Turn;
  readonly gap: number;
  /** Milliseconds since the epoch. */
  readonly dueAt: number;
}

/** The measurement ends early after this many failed starts. */
const MOST_FAILURES = 5;
const LONGEST_PAUSE_MS = 1_000;
const SPARE_VOLUMES = 20;

/**
 * Measures first starts and wakes, one at a time. Each wake is followed by another first start in a Pod that waited, and
 * by an item of the reference, so that whatever else is on the node affects all of them.
 */
export async function measureWakes(
  inside: Inside<WakesOptions>,
  simulator: Simulator,
  random: () => number,
  fail: (what: string, error: unknown) => void,
): Promise<WakesFound> {
  const { count, gaps, minutes, kept, returns } = inside.options.wakes;
  const { audit } = inside.stand.cluster;
  const base = { simulator, maxConcurrent: 2 * WARM };
  await using things = new AsyncDisposableStack();
  const pod = things.use(await SleepLane.create({ ...base, kind: "pod", name: "pod", warm: WARM }, inside));
  // Each session keeps its volume, and Pods that were never used take theirs along.
  const volumes = count * gaps.length + 2 * WARM + SPARE_VOLUMES;
  const volume = things.use(
    await SleepLane.create({ ...base, kind: "volume", name: "volume", warm: WARM, volumes }, inside),
  );
  const keeping = things.use(await KeptLane.create({ name: "kept", simulator, sessions: kept + 1 }, inside));
  const keptSessions: Kept[] = [];
  while (keptSessions.length < kept) keptSessions.push(await keeping.begin(random));
  const gone = await keeping.begin(random);
  await keeping.evict(gone.pod.metadata.name ?? "");
  const lanes = [pod, volume];
  const each = lanes.flatMap((lane) => gaps.flatMap((gap) => Array.from({ length: count }, () => ({ lane, gap }))));
  // The sessions with the longest gaps begin first, so that the others are measured during these gaps.
  const left = shuffled(each, random)
    .toSorted((one, other) => one.gap - other.gap)
    .map((planned, at) => ({ ...planned, name: String(at) }));
  const asleep = new Set<Sleeper>();
  const wakes: Wake[] = [];
  const ofReference: Start[] = [];
  const returned = { berth: [] as Start[], kept: [] as Start[] };
  const loads: number[] = [];
  let files: FilesFound = NO_FILES;
  let returnedFiles: FilesFound = NO_FILES;
  let mostAsleep = 0;
  let failed = 0;
  let woken = 0;
  const endsAt = performance.now() + minutes * 60 * SECOND_MS;
  const mayGoOn = () => !inside.isEnding() && performance.now() < endsAt && failed < MOST_FAILURES;
  const since = await audit.mark();

  const begin = async (lane: SleepLane, name: string): Promise<Turn> => {
    await settle(lanes, random);
    loads.push(load());
    const turn = await lane.start(writing(name));
    note(lane, turn, null);
    return turn;
  };
  const wake = async (sleeper: Sleeper): Promise<void> => {
    const { lane, first, gap, name } = sleeper;
    asleep.delete(sleeper);
    await settle(lanes, random);
    loads.push(load());
    const turn = await lane.start(READING, first.sessionId);
    files = addFiles(files, compareFiles(name, first, turn));
    if (turn.uid === first.uid) note(lane, turn, gap);
    lane.end(turn);
    if (lane === volume && returned.berth.length < returns) await comeBack(sleeper);
  };
  /** Serves the next item of a session whose Pod was deleted, and one of the reference. */
  const comeBack = async ({ first, name }: Sleeper): Promise<void> => {
    await settle(lanes, random);
    const turn = await volume.start(READING, first.sessionId);
    volume.end(turn);
    returned.berth.push(turn);
    returnedFiles = addFiles(returnedFiles, compareFiles(name, first, turn));
    await settle([...lanes, keeping], random);
    returned.kept.push(await keeping.comeBack(gone));
  };
  const refer = async (): Promise<void> => {
    const session = keptSessions[ofReference.length % keptSessions.length];
    if (!session) return;
    await settle(lanes, random);
    ofReference.push(await keeping.next(session));
  };
  function note(lane: SleepLane, turn: Turn, gap: number | null): void {
    const kind = lane.sleepKind;
    wakes.push({ ...turn, kind, gap });
    const what = gap === null ? "first" : `after ${gap} s`;
    console.log(`${kind} ${what}: ${toStarted(turn).toFixed(0)}/${toBeat(turn).toFixed(0)}, load ${load().toFixed(1)}`);
  }

  while (mayGoOn() && (left.length > 0 || asleep.size > 0)) {
    const [next] = [...asleep].toSorted((one, other) => one.dueAt - other.dueAt);
    try {
      if (next && next.dueAt <= Date.now()) {
        await wake(next);
        woken += 1;
        pod.end(await begin(pod, `${next.name}-beside`));
        // One for two wakes is enough: gaps make no difference to it.
        if (woken % 2 === 0) await refer();
      } else {
        const planned = left.pop();
        if (planned) {
          const { lane, gap, name } = planned;
          const first = await begin(lane, name);
          asleep.add({ name, lane, first, gap, dueAt: Date.now() + gap * SECOND_MS });
          mostAsleep = Math.max(mostAsleep, asleep.size);
        } else if (next) {
          await pause(Math.min(LONGEST_PAUSE_MS, Math.max(0, next.dueAt - Date.now())));
        }
      }
    } catch (error) {
      failed += 1;
      fail("a start", error);
    }
  }
  const entries = await audit.entries({ since });
  const measured = withMeasured(wakes, entries, () => OPERATOR);
  const reference = withMeasured(ofReference, entries, () => ADMIN);
  return { wakes: measured, kept: reference, returned, files, returnedFiles, loads, mostAsleep };
}
