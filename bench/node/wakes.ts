import { bashScript, type ScriptInput } from "../../simulator/script.ts";
import type { PodUsage } from "./pod-cgroups.ts";
import type { SleepKind, Turn } from "./sleep-lane.ts";
import type { Measured, Start } from "./starts.ts";

/** The parts of the scenario, in the order in which they run. */
export const WAKES_PARTS = ["sleeping", "beside", "turns", "wakes"] as const;
export type WakesPart = (typeof WAKES_PARTS)[number];

/** What wakes-main.ts measures. */
export interface WakesOptions {
  readonly parts: readonly string[];
  readonly wakes: {
    /** Wakes of each kind after each gap. */
    readonly count: number;
    /** Seconds from the end of an item to the session's next one. */
    readonly gaps: readonly number[];
    /** This part ends after this time, with the wakes that it has. */
    readonly minutes: number;
    /** Sessions of the reference, whose Pods are kept running. */
    readonly kept: number;
    /** Items of sessions whose Pod is gone: of Berth's with a volume, and of the reference. */
    readonly returns: number;
  };
  readonly sleeping: SleepingOptions;
  readonly turns: TurnsOptions;
}

export interface SleepingOptions {
  /** Pods of each kind. */
  readonly pods: number;
  /** From the moment in which all Pods sleep, or wait, to the measurement. */
  readonly settleSeconds: number;
  readonly seconds: number;
}

export interface TurnsOptions {
  readonly sessions: number;
  /** The number of the first late turn. */
  readonly late: number;
  /** The number of late turns of each session, and of other sessions whose second turn is measured beside each. */
  readonly rounds: number;
  /** How long the kubelet's relists are watched. */
  readonly relistSeconds: number;
}

/** A session's first start, or its wake. */
export interface Wake extends Turn {
  readonly kind: SleepKind;
  /** Seconds between the session's items. Null: its first item. */
  readonly gap: number | null;
  readonly measured?: Measured;
}

/** Whether woken sessions found their files, and only these. Counts of sessions. */
export interface FilesFound {
  readonly woken: number;
  /** The hash of the files differs from that of the first item, or one of them could not be read. */
  readonly changed: number;
  /** A file of another session was visible. */
  readonly foreign: number;
  /** The second item ran in another Pod. */
  readonly elsewhere: number;
}

export interface WakesFound {
  readonly wakes: readonly Wake[];
  /** Next items in Pods of the reference, which run between the items of their session. */
  readonly kept: readonly (Start & { readonly measured?: Measured })[];
  /** Items in a new Pod with the volume of a session, whose Pod was deleted. */
  readonly returned: { readonly berth: readonly Start[]; readonly kept: readonly Start[] };
  readonly files: FilesFound;
  /** The same of returned sessions. All of them are elsewhere. */
  readonly returnedFiles: FilesFound;
  /** The machine's load over a minute, before each start. */
  readonly loads: readonly number[];
  /** The most Pods at a time whose session slept. */
  readonly mostAsleep: number;
}

/** What a Pod used during the measurement. */
export interface PodCosts extends Pick<PodUsage, "anonymousBytes" | "kernelBytes" | "workingSetBytes"> {
  readonly cpuMsPerMinute: number;
}

export interface SleepingFound {
  readonly empty: readonly PodCosts[];
  readonly sleeping: readonly PodCosts[];
  /** Pods of the reference, which run between the items of their session. */
  readonly kept: readonly PodCosts[];
}

export interface Relists {
  readonly count: number;
  readonly meanMs: number;
  /** The upper bound of the bucket. */
  readonly p95Ms: number;
}

/** Bytes on the node's disk. */
export interface Disk {
  readonly layers: number;
  readonly logs: number;
  /** Records of the kubelet and containerd. */
  readonly records: number;
}

export type MeasuredTurn = Turn & { readonly measured?: Measured };

export interface TurnsFound {
  /** The second turn of each session. */
  readonly second: readonly MeasuredTurn[];
  readonly late: readonly MeasuredTurn[];
  /** The second turn of other sessions, measured in turns with `late`. */
  readonly secondBeside: readonly MeasuredTurn[];
  /** Of a Pod before its first late turn, as JSON. */
  readonly objectBytes: readonly number[];
  readonly relists: { readonly early: Relists; readonly late: Relists };
  /** What each ended turn of a Pod adds. */
  readonly diskPerTurn: Disk;
}

/** What a session's item finds of what an earlier one left. */
export interface Survived {
  /** A file at the workspace's path. */
  readonly workspace: boolean;
  /** A file elsewhere, as an installed package is. */
  readonly elsewhere: boolean;
  /** A process that the earlier item left in the background. */
  readonly process: boolean;
}

export type BesideKind = SleepKind | "kept";

/** Berth's sessions and those of the reference, on the same node. */
export interface BesideFound {
  readonly survived: Readonly<Record<BesideKind, { readonly next: Survived; readonly drained: Survived }>>;
  readonly room: {
    /** Pods of the reference that the node has room for. The next one waits until one of them ends. */
    readonly kept: number;
    /** Sessions that Berth served, one after the other, all within their `sleepSeconds`. */
    readonly served: number;
    /** Those of them that slept at the end. */
    readonly asleep: number;
  };
}

/** A part that failed is undefined. */
export interface WakesResult {
  readonly wakes?: WakesFound | undefined;
  readonly sleeping?: SleepingFound | undefined;
  readonly turns?: TurnsFound | undefined;
  readonly beside?: BesideFound | undefined;
  /** What failed, and why. Failed starts are not counted. */
  readonly failures: readonly string[];
}

export const FILES = 1_000;
/** Files that a session must only see if they are its own: not those of other sessions. */
const CANARY = "canary-";
const SAW = "saw ";

const LOOK = `find / \\( -path /proc -o -path /sys \\) -prune -o -name '${CANARY}*' -print 2>/dev/null | sed 's/^/${SAW}/'`;
const WRITE = `for n in $(seq ${FILES}); do echo $n $RANDOM > file-$n; done`;
const HASH = "cat $(ls file-* | sort) | sha256sum";

/** A session's first item: writes the files and a canary. */
export function writing(name: string): ScriptInput {
  return bashScript(`${LOOK}; ${WRITE}; touch ${CANARY}${name}; ${HASH}`);
}

/** A session's next item: reads the files again. */
export const READING: ScriptInput = bashScript(`${LOOK}; ${HASH}`);

const PROCESS = "sleep 98765";
/** Matches the process, and not a shell whose script has this text. */
const PROCESS_PATTERN = "sleep 9876[5]";
const LEFT = "left-by-an-item";

/** Leaves a file in the workspace, a file elsewhere, and a process in the background. */
export const LEAVING: ScriptInput = bashScript(
  `touch /workspace/${LEFT} /tmp/${LEFT}; setsid ${PROCESS} >/dev/null 2>&1 </dev/null & sleep 0.1`,
);

/** Looks for what LEAVING left. */
export const LOOKING: ScriptInput = bashScript(
  [
    `[ -e /workspace/${LEFT} ] && echo found workspace`,
    `[ -e /tmp/${LEFT} ] && echo found elsewhere`,
    `cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -q '${PROCESS_PATTERN}' && echo found process`,
    "true",
  ].join("; "),
);

/** What LOOKING printed. */
export function readSurvived(outputs: readonly string[]): Survived {
  const text = outputs.join("\n");
  const has = (name: keyof Survived) => text.includes(`found ${name}`);
  return { workspace: has("workspace"), elsewhere: has("elsewhere"), process: has("process") };
}

/** What an item printed: the hash of the files, if it has one, and the names of the canaries that it saw. */
export function readOutput(outputs: readonly string[]): { hash: string | undefined; canaries: readonly string[] } {
  const lines = outputs.flatMap((output) => output.split("\n"));
  const hash = lines.map((line) => /^([0-9a-f]{64}) /.exec(line)?.[1]).find((found) => found !== undefined);
  const seen = lines.filter((line) => line.startsWith(SAW));
  return { hash, canaries: seen.map((line) => line.slice(line.lastIndexOf("/") + 1 + CANARY.length)) };
}

/** Compares the second item of a session with its first. @param name of its canary */
export function compareFiles(name: string, first: Turn, second: Turn): FilesFound {
  const [before, after] = [readOutput(first.outputs), readOutput(second.outputs)];
  const isForeign = before.canaries.length > 0 || after.canaries.some((canary) => canary !== name);
  return {
    woken: 1,
    changed: Number(before.hash === undefined || before.hash !== after.hash),
    foreign: Number(isForeign),
    elsewhere: Number(first.uid !== second.uid),
  };
}

export const NO_FILES: FilesFound = { woken: 0, changed: 0, foreign: 0, elsewhere: 0 };

export function addFiles(one: FilesFound, other: FilesFound): FilesFound {
  return {
    woken: one.woken + other.woken,
    changed: one.changed + other.changed,
    foreign: one.foreign + other.foreign,
    elsewhere: one.elsewhere + other.elsewhere,
  };
}

const RELISTS = "kubelet_pleg_relist_duration_seconds";

/** The kubelet's relists between two reads of its metrics. */
export function relistsBetween(before: string, after: string): Relists {
  const [from, to] = [samplesOf(before), samplesOf(after)];
  const growth = (name: string) => (to.get(name) ?? 0) - (from.get(name) ?? 0);
  const count = growth(`${RELISTS}_count`);
  const bounds = [...to.keys()].flatMap((name) => {
    const le = new RegExp(`^${RELISTS}_bucket\\{le="([^"]+)"\\}$`).exec(name)?.[1];
    return le === undefined ? [] : [{ name, seconds: le === "+Inf" ? Number.POSITIVE_INFINITY : Number(le) }];
  });
  const p95 = bounds.toSorted((a, b) => a.seconds - b.seconds).find(({ name }) => growth(name) >= 0.95 * count);
  return { count, meanMs: (growth(`${RELISTS}_sum`) / count) * 1_000, p95Ms: (p95?.seconds ?? Number.NaN) * 1_000 };
}

function samplesOf(metrics: string): Map<string, number> {
  const lines = metrics.split("\n").filter((line) => line.startsWith(RELISTS));
  return new Map(
    lines.map((line) => [line.slice(0, line.lastIndexOf(" ")), Number(line.slice(line.lastIndexOf(" ") + 1))]),
  );
}
