import { afterAll, describe, expect, test } from "vitest";
import { ANNOTATION_SESSION_ID } from "../../../src/api/names.ts";
import type { PointEvent } from "../../../src/core/points.ts";
import { type KubeObject, PERSISTENT_VOLUME_CLAIMS } from "../../../src/kube/resource.ts";
import { turnName } from "../../../src/pods/turns.ts";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import type { ContainerFate } from "../../sessions/loops/container.ts";
import { LoopWorld, type LoopWorldOptions, NAME, NAMESPACE, type Operator } from "../../sessions/loops/loop-world.ts";
import type { Program } from "../../sessions/loops/worker.ts";
import { readFaultSettings } from "../support/settings.ts";

// The deaths of sessions.test.ts, which kills processes, repeated in memory on a virtual clock. That is fast enough to
// kill an operator at each point of whole histories: before, during and after each request. The long run kills it at
// every event.

const SECOND = 1_000;
const MINUTE = 60 * SECOND;

/** Covers a lost lease, a quiet interval, and a container that nothing waits for. */
const SETTLES_MS = 40 * MINUTE;

/** From the death to the next process: a restarted Pod, or an adopted lease. */
const DOWN_MS = 2 * SECOND;

const { long: isLong, sample: isSample, seed } = readFaultSettings();

/** The number of deaths at each point and phase of a history. Polls and statistics occur hundreds of times. */
const MOST = isLong ? 12 : 1;

/** A sample repeats one in this many of the deaths that were already tried in another history with the same lease. */
const ONE_OF = 4;

/** Log lines of a history in the message of a failure. */
const LOG_LINES = 60;

const WORKSPACE = {
  type: "PerSession",
  claimTemplate: { resources: { requests: { storage: "1Gi" } } },
  retainSeconds: 60,
};

interface History {
  readonly sessions: Record<string, unknown>;
  /** What the first containers do; later ones serve. */
  readonly programs: readonly Program[];
  /** Some items belong to one session, whose volume or Pod is kept for a minute. */
  readonly comesBack?: boolean;
  /** The Environment is deleted while sessions run. */
  readonly drained?: boolean;
}

/** When the operator dies: at its n-th event; `inFlight`: just after the request of that event was sent. */
interface Death {
  readonly event: number;
  readonly inFlight: boolean;
}

interface Told {
  readonly events: readonly PointEvent[];
  readonly hasDied: boolean;
  readonly wrongs: readonly string[];
  readonly log: readonly string[];
}

/** One history, identical in each run except for the death in it. */
async function history(
  { sessions, programs, comesBack = false, drained = false }: History,
  death: Death | null,
): Promise<Told> {
  const events: PointEvent[] = [];
  let operator: Operator | null = null;
  let hasDied = false;
  const options: LoopWorldOptions = {
    seed: 7,
    sessions: { maxConcurrent: 3, warm: 1, ...sessions },
    spec: { deletionGraceSeconds: 20 },
    limits: { ttlSeconds: 30 },
    // The API does not expire items: one that is acknowledged and gets no heartbeats stays that way forever.
    switches: { starting: "never" },
    fate: (_pod, container) => {
      const serves = sessions["lease"] === "Operator" ? "plain" : "stock";
      const program = programs[started++] ?? serves;
      // A Pod whose first program never served has no files to keep.
      return fateOf(container === turnName(1) ? serves : program);
    },
    points: (event) => {
      events.push(event);
      if (!operator || !death || events.length !== death.event) return;
      const dying = operator;
      operator = null;
      const die = () => {
        hasDied = true;
        world.say(`dies at ${event.point} (${death.inFlight ? "in flight" : event.phase})`);
        dying.kill();
        world.clock.setTimer(() => {
          operator = world.startOperator();
        }, DOWN_MS);
      };
      // The request reaches the network before any promise continues.
      if (death.inFlight) queueMicrotask(die);
      else die();
    },
  };
  let started = 0;
  const world = new LoopWorld(options);
  world.createEnvironment();
  operator = world.startOperator();
  const first = operator;
  const at = (ms: number, act: () => void) => world.clock.setTimer(act, ms);
  const sessionId = world.api.world.item(world.enqueue()).data.id;
  at(SECOND, () => world.enqueue());
  if (comesBack) for (const ms of [2, 20, 35]) at(ms * SECOND, () => world.enqueue({ sessionId }));
  at(4 * SECOND, () => world.enqueue({ type: "healthcheck" }));
  at(5 * SECOND, () => world.enqueue({ secret: false }));
  at(30 * SECOND, () =>
    world.patchEnvironment({ spec: { sessions: { template: { metadata: { labels: { v: "2" } } } } } }),
  );
  const wrongs: string[] = [];
  const check = async (what: string, condition: () => boolean, limitMs: number) => {
    try {
      await world.clock.advanceUntil(condition, limitMs, 500);
    } catch {
      wrongs.push(`${what}\n${world.describe()}`);
    }
  };
  await world.clock.advance(drained ? 10 * SECOND : 40 * SECOND);
  const remove = () => world.server.delete(ENVIRONMENTS, NAMESPACE, NAME);
  if (drained) remove();
  const isOver = () =>
    world.claims.length === 0 && world.node.running.size === 0 && world.podsOf("running").length === 0;
  const isLive = () => world.items.some(({ state }) => state !== "stopped" && !(drained && state === "queued"));
  await check("not settled", () => isOver() && !isLive(), SETTLES_MS);
  // A warm Pod has a volume without a session.
  const isOfSession = ({ metadata }: KubeObject) => metadata.annotations?.[ANNOTATION_SESSION_ID] !== undefined;
  const volumes = () => world.server.list(PERSISTENT_VOLUME_CLAIMS, NAMESPACE);
  if (comesBack) await check("volumes left", () => !volumes().some(isOfSession), 10 * MINUTE);
  const hasPod = ({ metadata }: KubeObject) => world.pods.some((pod) => pod.metadata.name === metadata.name);
  if (comesBack) await check("volumes without a Pod", () => volumes().every(hasPod), 10 * MINUTE);
  const own = world.starts.filter(({ workId }) => world.api.world.item(workId).data.id === sessionId);
  const pods = new Set(own.map(({ pod }) => pod));
  if (sessions["workspace"] === SLEEPING.workspace && pods.size > 1)
    wrongs.push(`the session ran in ${[...pods].join(" and ")}, so its files were lost\n${world.describe()}`);
  if (!drained) remove();
  await check("not gone", () => !world.environment && world.claims.length === 0 && world.pods.length === 0, 3 * MINUTE);
  first.kill();
  (operator as Operator | null)?.kill();
  return { events, hasDied, wrongs: [...wrongs, ...world.violations, ...world.wrongs], log: world.log };
}

function fateOf(program: Program): ContainerFate {
  return { startError: false, program, servesMs: 8 * SECOND };
}

/** The deaths to try: before and after each request, and with it in flight; at most `MOST` of a kind. */
function deathsOf(events: readonly PointEvent[], lease: string): { death: Death; name: string }[] {
  const counts = new Map<string, number>();
  const deaths: { death: Death; name: string }[] = [];
  const add = (event: number, inFlight: boolean, kind: string) => {
    const count = counts.get(kind) ?? 0;
    counts.set(kind, count + 1);
    if (count >= MOST || !isTried(`${lease} ${kind}`)) return;
    deaths.push({ death: { event, inFlight }, name: `${kind} ${count + 1}` });
  };
  for (const [index, { point, phase, details }] of events.entries()) {
    if (point === "claim.poll" && phase === "after" && details["workId"] === null) continue;
    add(index + 1, false, `${point} ${phase}`);
    if (phase === "before") add(index + 1, true, `${point} in flight`);
  }
  return deaths;
}

const tried = new Set<string>();
let turn = seed;

/**
 * Whether a run tries this death in another history. A sample skips most of the deaths that histories have in common.
 */
function isTried(death: string): boolean {
  if (!isSample || !tried.has(death)) {
    tried.add(death);
    return true;
  }
  turn += 1;
  return turn % ONE_OF === 0;
}

/** Pods with a command wait in a shell by default. */
const IN_SHELL = {
  template: {
    spec: {
      containers: [{ name: "worker", image: "worker:1", command: ["worker"] }],
      terminationGracePeriodSeconds: 30,
    },
  },
};

/** Its sessions sleep in their Pods between items, for less time than a history waits at its end. */
const SLEEPING = { ...IN_SHELL, warm: 0, workspace: { type: "Pod", sleepSeconds: 120 } };

const HISTORIES: readonly (readonly [name: string, of: History])[] = [
  ["lease: Worker", { sessions: {}, programs: ["stock", "killed", "crashes"] }],
  ["lease: Worker, Release", { sessions: { onPodFailure: "Release" }, programs: ["killed", "stock", "silent"] }],
  ["lease: Worker, parking: Shell", { sessions: IN_SHELL, programs: ["stock", "killed", "crashes"] }],
  ["lease: Worker, parking: Shell, overdue", { sessions: { ...IN_SHELL, maxDurationSeconds: 6 }, programs: ["deaf"] }],
  [
    "lease: Operator, parking: Program",
    { sessions: { parking: "Program", lease: "Operator" }, programs: ["plain", "killed", "crashes"] },
  ],
  [
    "lease: Operator, parking: Shell, Release",
    { sessions: { ...IN_SHELL, lease: "Operator", onPodFailure: "Release" }, programs: ["killed"] },
  ],
  [
    "lease: Worker, Protect, drained",
    { sessions: { disruption: "Protect" }, programs: ["deaf", "stock"], drained: true },
  ],
  ["lease: Operator", { sessions: { lease: "Operator" }, programs: ["plain", "killed", "crashes"] }],
  ["lease: Operator, Release", { sessions: { lease: "Operator", onPodFailure: "Release" }, programs: ["killed"] }],
  ["lease: Operator, overdue", { sessions: { lease: "Operator", maxDurationSeconds: 6 }, programs: ["silent"] }],
  [
    "workspace: PerSession",
    { sessions: { warm: 0, workspace: WORKSPACE }, programs: ["stock", "killed", "crashes"], comesBack: true },
  ],
  [
    "workspace: PerSession, lease: Operator, warm Pods",
    {
      sessions: { warm: 1, workspace: WORKSPACE, lease: "Operator" },
      programs: ["plain", "killed", "crashes"],
      comesBack: true,
    },
  ],
  ["workspace: Pod", { sessions: SLEEPING, programs: ["stock", "stock", "killed", "crashes"], comesBack: true }],
  [
    "workspace: Pod, parking: Program",
    { sessions: { ...SLEEPING, parking: "Program" }, programs: ["stock", "stock", "killed"], comesBack: true },
  ],
  [
    "workspace: Pod, lease: Operator, Release",
    {
      sessions: { ...SLEEPING, lease: "Operator", onPodFailure: "Release" },
      programs: ["plain", "plain", "killed", "crashes"],
      comesBack: true,
    },
  ],
  [
    "workspace: Pod, drained",
    { sessions: SLEEPING, programs: ["stock", "stock", "deaf"], comesBack: true, drained: true },
  ],
  ["lease: Operator, drained", { sessions: { lease: "Operator" }, programs: ["plain", "silent"], drained: true }],
];

let died = 0;
let survived = 0;
const points = new Set<string>();

describe("an operator that dies at any event of a history loses, repeats and leaves behind nothing", () => {
  test.each(HISTORIES)(
    "%s",
    async (_name, of) => {
      const whole = await history(of, null);
      expect(whole.wrongs).toEqual([]);
      const failed: string[] = [];
      const deaths = deathsOf(whole.events, String(of.sessions["lease"] ?? "Worker"));
      for (const { death, name } of deaths) {
        const { wrongs, events, hasDied, log } = await history(of, death);
        const there = events[death.event - 1];
        const expected = whole.events[death.event - 1];
        const isThere = hasDied && there?.point === expected?.point;
        const wrong = isThere ? wrongs : [`never died there, but came to ${there?.point}`, ...wrongs];
        if (wrong.length > 0) failed.push(`${name}: ${wrong.join("\n")}\n${log.slice(-LOG_LINES).join("\n")}`);
        points.add(expected?.point ?? "");
      }
      died += deaths.length;
      survived += deaths.length - failed.length;
      expect(failed.slice(0, 3), `${failed.length} of ${deaths.length}`).toEqual([]);
    },
    600_000,
  );
});

afterAll(() => console.log(`crash points, in memory: ${survived} of ${died} survived, at ${points.size} points`));
