import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { seededRandom } from "../../../simulator/ids.ts";
import { PODS, type Pod, SECRETS } from "../../../src/kube/resource.ts";
import { readJournal } from "../../../src/protocol/journal.ts";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import { CI_SEED } from "../../support/ci-seed.ts";
import { FAIR_ATTACH } from "./attach-stream.ts";
import type { ContainerFate } from "./container.ts";
import { LoopWorld, NAME, NAMESPACE, type Operator, programOf } from "./loop-world.ts";
import { FAIR } from "./network.ts";
import type { Program } from "./worker.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
/** Faults occur until then. Afterwards everything must settle without help. */
const FAULTS_MS = 90 * SECOND;
/** The longest waits: a lost lease, a quiet interval, and the probes of an image that was fixed. */
const SETTLES_MS = 40 * MINUTE;

/** The longest lag of a list (timing.ts). */
const LONGEST_LAG_MS = 4_900;

const WORKSPACE = {
  type: "PerSession",
  claimTemplate: { resources: { requests: { storage: "1Gi" } } },
  retainSeconds: 60,
};

/** With a command, so that its Pods can wait in a shell. */
const CONTAINER = { name: "worker", image: "worker:1", command: ["worker"] };

interface Faults {
  readonly crashes: number;
  readonly weather: boolean;
  readonly accidents: number;
  readonly fates: boolean;
  readonly edits: number;
  /** Whether another cluster serves the same queue. */
  readonly rival: boolean;
}

interface Outcome {
  readonly wrongs: readonly string[];
  readonly log: readonly string[];
}

/** Runs one random history of a world, determined by its seed. */
async function history(seed: number, faults: Faults): Promise<Outcome> {
  const random = seededRandom(seed);
  const between = (from: number, to: number) => from + (to - from) * random();
  const pick = <T>(values: readonly [T, ...T[]]): T => values[Math.floor(random() * values.length)] ?? values[0];
  const maxConcurrent = Math.floor(between(1, 6));
  const starting = pick(["expires", "never"]);
  const maxDurationSeconds = pick([60, 300, 86_400]);
  const lease = pick(["Worker", "Operator"]);
  const onPodFailure = pick(["Stop", "Release"]);
  const endless: Program = maxDurationSeconds > 300 ? "stock" : "deaf";
  let calm = false;
  const fate = (pod: Pod): ContainerFate => {
    const servesMs = between(500, 40 * SECOND);
    const isPlain = programOf(pod) === "Operator";
    if (calm || !faults.fates) return { startError: false, program: isPlain ? "plain" : "stock", servesMs };
    if (isPlain) {
      const program = pick<Program>([
        "plain",
        "plain",
        "plain",
        "crashes",
        "killed",
        endless === "deaf" ? "silent" : "plain",
      ]);
      return { startError: random() < 0.1, program, servesMs };
    }
    return {
      startError: random() < 0.1,
      // Only maxDurationSeconds ends a program that never exits.
      program: pick(["stock", "stock", "stock", "stock", "dies", "silent", "crashes", "killed", endless]),
      servesMs,
    };
  };
  // A second generator, so that the other draws of a seed do not change.
  const own = seededRandom(seed + 1);
  const sleeps = seededRandom(seed + 4);
  const isPerSession = own() < 1 / 3;
  const sleepSeconds = sleeps() < 1 / 2 ? 0 : Math.floor(10 + sleeps() * 200);
  const maxSleeping = sleeps() < 1 / 2 ? {} : { maxSleeping: Math.floor(sleeps() * 3) };
  const type = sleepSeconds > 0 ? { type: "Pod" } : {};
  const workspace = {
    ...(sleepSeconds > 0 ? maxSleeping : {}),
    workspace: { ...(isPerSession ? WORKSPACE : type), sleepSeconds },
  };
  const world = new LoopWorld({
    seed,
    fate,
    sessions: {
      maxConcurrent,
      warm: Math.min(maxConcurrent, Math.floor(between(0, 3))),
      maxDurationSeconds,
      lease,
      onPodFailure,
      disruption: pick(["Allow", "Protect"]),
      ...pick<Record<string, string>>([{ parking: "Key" }, {}, { parking: "Shell" }, { parking: "Program" }]),
      template: { spec: { containers: [CONTAINER], terminationGracePeriodSeconds: 30 } },
      parkedMaxAgeSeconds: pick([0, 60, 600]),
      ...workspace,
    },
    switches: {
      secondAck: pick(["refused", "unchanged"]),
      lapse: pick(["requeue", "stop"]),
      starting,
      lapsedStopping: pick(["stays", "ends"]),
      stoppingBeat: pick(["extends", "ignored"]),
      requeueId: pick(["kept", "kept", "new"]),
      listOrder: pick(["newest", "oldest", "shuffled"]),
      listedHeartbeat: pick(["same", "reformatted"]),
      stopReply: pick(["empty", "work"]),
      listKeepsStopped: pick([null, 3]),
    },
    // The server may grant another TTL than the requested one.
    limits: { ttlSeconds: pick([90, 30, 10]), maxTtlSeconds: pick([600, 90, 30, 10]) },
  });
  // Date headers come from many machines, or from a machine other than the one that writes timestamps.
  const [aheadMs, apartMs] = own() < 0.5 ? [0, 0] : [(own() - 0.5) * 600, own() * 60];
  world.api.dateAheadMs = () => aheadMs + own() * apartMs;
  const { lapsedStopping } = world.api.world.switches;
  // Simulates a service of many machines: lists lag by various times, and slow requests still take effect.
  const service = seededRandom(seed + 2);
  const streams = seededRandom(seed + 3);
  if (service() < 1 / 3) world.api.listBehindMs = () => service() * LONGEST_LAG_MS;
  // If the server never ends a stopping item, a late acknowledgement is bounded (docs/model.md).
  const isLate = faults.weather && lapsedStopping === "ends" && service() < 1 / 3;
  if (isLate) {
    world.api.delay = (call) => (call === "ack" && !calm && service() < 1 / 4 ? 4_000 + service() * 1_800 : 0);
  }
  world.startsAreHeld = faults.crashes === 0 && !faults.weather;
  world.say(`lease ${lease} ${onPodFailure} ${JSON.stringify(workspace)}`);
  world.say(`seed ${seed} ${JSON.stringify(faults)} maxConcurrent ${maxConcurrent}`);
  const at = (ms: number, act: () => void) => world.clock.setTimer(act, ms);
  world.createEnvironment();
  const rival = faults.rival
    ? new LoopWorld({
        seed: seed + 1,
        beside: world,
        sessions: { maxConcurrent: 2, warm: 1, lease: pick(["Worker", "Operator"]) },
      })
    : null;
  rival?.createEnvironment();
  let other = rival?.startOperator();
  if (rival && faults.crashes > 0) {
    at(between(0, FAULTS_MS), () => {
      other?.kill();
      other = undefined;
      at(between(100, 60 * SECOND), () => {
        other = rival.startOperator();
      });
    });
  }

  let operator: Operator | null = world.startOperator();
  // The next process leads when the previous one has ended or lost leadership.
  const restart = (downMs: number, end: (old: Operator) => Promise<void> | void) => {
    const old = operator;
    if (!old) return;
    operator = null;
    const start = () => {
      operator ??= world.startOperator();
    };
    const ended = end(old);
    if (!ended) at(downMs, start);
    else {
      // The kubelet kills a process that does not end within its grace period.
      at(30 * SECOND, () => {
        if (operator) return;
        old.kill();
        start();
      });
      void ended.then(() => at(downMs, start));
    }
  };
  for (let n = 0; n < faults.crashes; n += 1) {
    at(between(0, FAULTS_MS), () =>
      pick([
        () => restart(between(100, pick([1_000, 30 * SECOND])), (old) => old.kill()),
        () => restart(between(100, 3_000), (old) => old.stop()),
        () =>
          restart(between(100, 5_000), (old) => {
            old.loseLeadership();
            void old.stop();
          }),
      ])(),
    );
  }
  if (faults.weather) {
    const bad = () => ({ lost: between(0, 0.12), slow: between(0, 0.12), refused: between(0, 0.08) });
    world.weather.kube = bad();
    world.weather.work = bad();
    world.weather.worker = { ...bad(), refused: 0 };
    world.weather.watch = { lagMs: pick([30, 300, 3_000, 15_000]), breaks: pick([0, 0.02]) };
    const share = () => 0.2 * streams();
    world.weather.attach = { refused: share(), lineLost: share(), markerLost: share(), breaks: share() };
    if (rival) rival.weather.work = bad();
  }
  const items = Math.floor(between(3, 12));
  for (let n = 0; n < items; n += 1) {
    const kind = random();
    const input = kind < 0.06 ? { type: "healthcheck" } : kind < 0.1 ? { secret: false } : {};
    at(between(0, FAULTS_MS), () => {
      const earlier = world.items.find(({ type }) => type === "session" && own() < 1 / 3);
      // A session that returns, maybe before its previous Pod has ended.
      const returns = isPerSession || sleepSeconds > 0;
      const again = returns && earlier ? { sessionId: world.api.world.item(earlier.id).data.id } : {};
      world.enqueue({ ...input, ...("type" in input ? {} : again) });
    });
  }
  const somePod = () => {
    const { pods } = world;
    return pods[Math.floor(random() * pods.length)]?.metadata.name;
  };
  for (let n = 0; n < faults.accidents; n += 1) {
    at(between(0, FAULTS_MS), () => {
      const name = somePod();
      const item = pick([...world.items.filter(({ state }) => state !== "stopped"), null] as [
        ReturnType<LoopWorld["item"]> | null,
      ]);
      const drawn = pick(["kill", "delete", "force", "lose", "stop", "stop-force"]);
      const ofTurns = sleeps() < 1 / 2 ? "rerun" : "kill-keeper";
      const accident = sleepSeconds > 0 && sleeps() < 1 / 4 ? ofTurns : drawn;
      world.say(`accident: ${accident} ${name}`);
      if (accident.startsWith("stop")) {
        if (item) world.api.world.stopItem(item.id, accident === "stop-force");
      } else if (name !== undefined) {
        if (accident === "kill") world.node.kill(name);
        else if (accident === "rerun") world.node.rerun(name, "berth-turn-1");
        else if (accident === "kill-keeper") world.node.kill(name, CONTAINER.name);
        else if (accident === "lose") world.node.lose(name, NAMESPACE);
        else world.server.delete(PODS, NAMESPACE, name, accident === "force" ? { gracePeriodSeconds: 0 } : {});
      }
    });
  }
  for (let n = 0; n < faults.edits; n += 1) {
    at(between(0, FAULTS_MS), () => {
      // Not between journal and acknowledgement: an item that is acknowledged then has no record, because the user
      // deleted it.
      const claim = world.claims.find((secret) => {
        const { workId = "", use } = readJournal(secret) ?? {};
        return use === "removal" || world.api.world.items.get(workId)?.state !== "queued";
      });
      // If both the record and the operator's memory of it are gone, only the API can end the item, and some servers
      // don't.
      const edit = pick([
        "template",
        "pause",
        "resume",
        "max",
        "lease",
        "secret",
        starting === "never" || lapsedStopping === "stays" ? "secret" : "secret-gone",
      ]);
      world.say(`edit: ${edit}`);
      const spec = (patch: Record<string, unknown>) => world.patchEnvironment({ spec: patch });
      if (edit === "template") {
        const containers = [{ ...CONTAINER, image: `worker:${Math.floor(random() * 1_000)}` }];
        spec({ sessions: { template: { spec: { containers } } } });
      } else if (edit === "pause") spec({ paused: true });
      else if (edit === "resume") spec({ paused: false });
      else if (edit === "lease") spec({ sessions: { lease: pick(["Worker", "Operator"]) } });
      else if (edit === "max") spec({ sessions: { maxConcurrent: Math.max(1, maxConcurrent - 1), warm: 0 } });
      else if (claim) {
        const name = claim.metadata.name ?? "";
        if (edit === "secret-gone") world.server.delete(SECRETS, NAMESPACE, name);
        else world.server.patch(SECRETS, NAMESPACE, name, { metadata: { labels: { edited: String(n) } } });
      }
    });
  }

  const wrongs: string[] = [];
  const check = async (what: string, condition: () => boolean, limitMs: number) => {
    try {
      await world.clock.advanceUntil(condition, limitMs, 500);
    } catch {
      wrongs.push(`L ${what}\n${world.describe()}`);
    }
  };
  await world.clock.advance(FAULTS_MS);
  calm = true;
  world.weather.kube = FAIR;
  world.weather.work = FAIR;
  world.weather.worker = FAIR;
  world.weather.watch = { lagMs: 30, breaks: 0 };
  world.weather.attach = FAIR_ATTACH;
  if (rival) rival.weather.work = FAIR;
  world.patchEnvironment({ spec: { paused: false } });
  world.say("calm");
  await check("not settled", () => world.isSettled && (rival?.isSettled ?? true), SETTLES_MS);
  if (wrongs.length === 0) {
    world.server.delete(ENVIRONMENTS, NAMESPACE, NAME);
    world.say("Environment deleted");
    await check(
      "not cleaned up",
      () => !world.environment && world.claims.length === 0 && world.pods.length === 0,
      3 * MINUTE,
    );
  }
  // A Pod whose creation a killed process had sent may appear beside those of the next process.
  // So may a Pod that wakes, beside free Pods that are then removed.
  const woken = sleepSeconds > 0 ? maxConcurrent : 0;
  const most = maxConcurrent + 1 + woken + (faults.crashes > 0 ? faults.crashes * maxConcurrent : 0);
  if (world.maxLivePods > most) wrongs.push(`${world.maxLivePods} Pods at a time, maxConcurrent ${maxConcurrent}`);
  (operator as Operator | null)?.kill();
  (other as Operator | undefined)?.kill();
  const found = [...wrongs, ...world.violations, ...world.wrongs, ...(rival?.wrongs ?? [])];
  // A late acknowledgement may land when its Pod was deleted. All later effects are still judged.
  const isOfLate = (words: string) => words.startsWith("ack-outside-window") || words.startsWith("S1 ");
  return { wrongs: isLate ? found.filter((words) => !isOfLate(words)) : found, log: world.log };
}

const RUNS = Number(process.env["LOOP_RUNS"] ?? 6);
const SEED = process.env["LOOP_SEED"];

describe("the loops of an Environment under random faults", () => {
  test.each<[string, Faults]>([
    ["no faults", { crashes: 0, weather: false, accidents: 0, fates: false, edits: 0, rival: false }],
    [
      "slow, lost and refused requests",
      { crashes: 0, weather: true, accidents: 0, fates: false, edits: 0, rival: false },
    ],
    ["operator processes that end", { crashes: 3, weather: false, accidents: 0, fates: false, edits: 0, rival: false }],
    [
      "programs and containers that fail",
      { crashes: 0, weather: false, accidents: 4, fates: true, edits: 0, rival: false },
    ],
    ["users who change objects", { crashes: 0, weather: false, accidents: 2, fates: false, edits: 5, rival: false }],
    ["another cluster", { crashes: 1, weather: false, accidents: 1, fates: false, edits: 0, rival: true }],
    ["all of them", { crashes: 2, weather: true, accidents: 3, fates: true, edits: 2, rival: false }],
    [
      "all of them, and another cluster",
      { crashes: 2, weather: true, accidents: 3, fates: true, edits: 1, rival: true },
    ],
  ])(
    "%s: the protocol holds, and everything settles",
    async (_, faults) => {
      await fc.assert(
        fc.asyncProperty(fc.nat(), async (seed) => {
          const { wrongs, log } = await history(seed, faults);
          if (wrongs.length > 0)
            expect.fail(`${wrongs.join("\n")}\n${log.slice(-Number(process.env["LOOP_LOG"] ?? 60)).join("\n")}`);
        }),
        SEED === undefined
          ? { numRuns: RUNS, endOnFailure: true, ...CI_SEED }
          : { numRuns: 1, endOnFailure: true, examples: [[Number(SEED)]] },
      );
    },
    600_000,
  );
});
