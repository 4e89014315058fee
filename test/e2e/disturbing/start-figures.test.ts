import { appendFile } from "node:fs/promises";
import { afterAll, describe, expect, test } from "vitest";
import { bashScript } from "../../../simulator/script.ts";
import { PODS } from "../../../src/kube/resource.ts";
import { hasNodeControl } from "../support/provided.ts";
import { enqueueOne, untilState } from "../support/session-life.ts";
import {
  createThenKey,
  createWhole,
  plainPod,
  RequestTimes,
  type Row,
  RunningTimes,
  type Start,
  table,
  touch,
  VARIABLES,
} from "../support/start-figures.ts";
import { type E2eOptions, type E2eWorld, startE2eWorld } from "../support/world.ts";

/**
 * Measures how fast sessions start on a real node, prints the figures, and writes them to the file that
 * BERTH_E2E_FIGURES names. It asserts nothing about times, which depend on the machine. It runs alone on the node, so
 * that nothing distorts them.
 */
const { BERTH_E2E_FIGURES, BERTH_E2E_FIGURES_COUNT = "5" } = process.env;
/** Sessions of each kind; docs/performance.md has figures of more. */
const COUNT = Number(BERTH_E2E_FIGURES_COUNT);
/** The test's time limit for this number of consecutive sessions. */
const TIMEOUT_MS = 300_000 + COUNT * 30_000;

/**
 * The kubelet checks a waiting container only every 10 to 15 s without a trigger, so what starts sooner was started by
 * the touch.
 */
const TOUCH_PATIENCE_MS = 6_000;

const SCRIPT = bashScript("echo hello");

const printed: string[] = [];
afterAll(async () => {
  if (printed.length === 0) return;
  const text = `\n${printed.join("\n\n")}\n`;
  console.log(text);
  if (BERTH_E2E_FIGURES) await appendFile(BERTH_E2E_FIGURES, text);
});

const running = (starts: readonly Start[]) => starts.map(({ toRunning }) => toRunning);
const beating = (starts: readonly Start[]) => starts.map(({ toFirstBeat }) => toFirstBeat);

/**
 * Serves sessions one after the other, each in one of Berth's Pods, and measures from queuing and from opening the Pod.
 */
async function serveInTurn(options: E2eOptions) {
  await using world = await startE2eWorld(options);
  using seen = new RunningTimes(world);
  const times = await RequestTimes.of(world);
  const { warm = 0 } = (options.sessions ?? {}) as { warm?: number };
  await world.createEnvironment();
  await world.untilCondition("Ready", "Ready");
  const opened: Start[] = [];
  const queued: number[] = [];
  for (let n = 0; n < COUNT; n += 1) {
    if (warm > 0) await world.untilParked(warm);
    const { item, pod } = await enqueueOne(world, { script: SCRIPT });
    const { firstBeatAt = Number.NaN, createdAt, acks } = await untilState(world, item, "stopped");
    expect(acks).toHaveLength(1);
    const { name = "" } = pod.metadata;
    const openedAt = await times.ofFirstPatch(name);
    opened.push({ toRunning: (seen.of(name) ?? Number.NaN) - openedAt, toFirstBeat: firstBeatAt - openedAt });
    queued.push(firstBeatAt - createdAt);
    await world.until("its claim is settled", () => world.claims.length === 0);
  }
  const touches = (which: string) => world.metric("berth_touches_total", { touch: which });
  expect(await touches("first")).toBe(COUNT);
  const again = (await touches("again")) ?? 0;
  await world.simulator.assertNoViolations();
  return { opened, queued, again };
}

/** Waits for the session's container to run; false if it does not within TOUCH_PATIENCE_MS. */
async function runs(world: E2eWorld, seen: RunningTimes, name: string): Promise<boolean> {
  return await world.until(`${name} runs`, () => seen.of(name) !== undefined, TOUCH_PATIENCE_MS).catch(() => false);
}

/** Plain Pods without Berth: one session in each, one after the other. */
class PlainStarts {
  readonly #world: E2eWorld;
  readonly #seen: RunningTimes;
  readonly #times: RequestTimes;
  #made = 0;
  readonly #parked: string[] = [];

  constructor(world: E2eWorld, seen: RunningTimes, times: RequestTimes) {
    this.#world = world;
    this.#seen = seen;
    this.#times = times;
  }

  /** Starts a Pod created at that moment, with its complete Secret. */
  async cold(): Promise<Start> {
    const world = this.#world;
    const name = this.#name("cold");
    const item = await this.#claim();
    await createWhole(world, name, item);
    await world.kube.create(PODS, plainPod(world, name, VARIABLES));
    // As for the touch of a parked Pod: when the API server has answered.
    const madeAt = Date.now();
    await world.until(`${name} runs`, () => this.#seen.of(name) !== undefined);
    return await this.#startOf(name, item, madeAt);
  }

  /**
   * Creates Pods that wait for their Secrets. All are created before the first is used: Pods touched right after they
   * were parked ran about a second later (measured, docs/performance.md), and a warm Pod has waited for a while.
   */
  async park(count: number): Promise<void> {
    const names = Array.from({ length: count }, () => this.#name("parked"));
    for (const name of names) await this.#world.kube.create(PODS, plainPod(this.#world, name, VARIABLES));
    await this.#world.until(`${count} Pods are parked`, () => {
      const waiting = this.#world.pods.filter(
        ({ status }) => status?.containerStatuses?.[0]?.state?.waiting?.reason === "CreateContainerConfigError",
      );
      return waiting.length === count;
    });
    this.#parked.push(...names);
  }

  /** Starts a parked Pod. Also returns whether one touch was not enough. */
  async parked(give: typeof createWhole): Promise<Start & { readonly again: boolean }> {
    const world = this.#world;
    const name = this.#parked.shift() ?? "";
    const item = await this.#claim();
    await give(world, name, item);
    await touch(world, name, 1);
    const again = !(await runs(world, this.#seen, name));
    if (again) {
      await touch(world, name, 2);
      await world.until(`${name} runs`, () => this.#seen.of(name) !== undefined);
    }
    return { ...(await this.#startOf(name, item, await this.#times.ofFirstPatch(name))), again };
  }

  #name(kind: string): string {
    this.#made += 1;
    return `${kind}-${this.#made}`;
  }

  async #claim(): Promise<Record<string, string>> {
    const { simulator, environmentId } = this.#world;
    await simulator.enqueue(environmentId, { script: SCRIPT });
    const item = await simulator.claim();
    if (!item) throw new Error("nothing waits in the queue");
    return item;
  }

  async #startOf(name: string, item: Record<string, string>, sinceMs: number): Promise<Start> {
    const { simulator } = this.#world;
    const id = item["ANTHROPIC_WORK_ID"] ?? "";
    const record = await untilState(this.#world, await simulator.item(id), "stopped");
    expect(record.stoppedBy?.as).toBe("sessions-token");
    await this.#world.kube.delete(PODS, { namespace: this.#world.namespace, name });
    return {
      toRunning: (this.#seen.of(name) ?? Number.NaN) - sinceMs,
      toFirstBeat: (record.firstBeatAt ?? Number.NaN) - sinceMs,
    };
  }
}

describe.skipIf(!hasNodeControl())("how fast sessions start", () => {
  const rows: { running: Row[]; beating: Row[]; queued: Row[] } = { running: [], beating: [], queued: [] };
  const notes: string[] = [];

  test("in Berth's Pods, parked and created when work arrives", { timeout: TIMEOUT_MS }, async () => {
    const key = await serveInTurn({ sessions: { warm: 2, maxConcurrent: 4 } });
    const init = await serveInTurn({ sessions: { warm: 2, maxConcurrent: 4, parking: "Init" } });
    const none = await serveInTurn({ sessions: { warm: 0, warmScaleDownSeconds: 0 } });
    rows.running.push(
      { name: "Berth, parking: Key", times: running(key.opened) },
      { name: "Berth, parking: Init", times: running(init.opened) },
    );
    rows.beating.push(
      { name: "Berth, parking: Key", times: beating(key.opened) },
      { name: "Berth, parking: Init", times: beating(init.opened) },
    );
    rows.queued.push(
      { name: "warm: 2", times: key.queued },
      { name: "warm: 2, parking: Init", times: init.queued },
      { name: "warm: 0", times: none.queued },
    );
    notes.push(
      `Berth touched again: parking: Key ${key.again} of ${COUNT}, parking: Init ${init.again} of ${COUNT}, warm: 0 ${none.again} of ${COUNT} sessions.`,
    );
    for (const { times } of rows.queued) expect(times.filter((ms) => ms > 0)).toHaveLength(COUNT);
  });

  test("in plain Pods: cold, and parked with both ways to provide the Secret", { timeout: TIMEOUT_MS }, async () => {
    await using world = await startE2eWorld();
    using seen = new RunningTimes(world);
    const plain = new PlainStarts(world, seen, await RequestTimes.of(world));
    const cold: Start[] = [];
    const whole: (Start & { again: boolean })[] = [];
    const later: (Start & { again: boolean })[] = [];
    await plain.park(2 * COUNT);
    // In turn, so that each meets the same conditions. A cold one comes first, so that the others have waited for a
    // while.
    for (let n = 0; n < COUNT; n += 1) {
      cold.push(await plain.cold());
      whole.push(await plain.parked(createWhole));
      later.push(await plain.parked(createThenKey));
    }
    const named = (of: (starts: readonly Start[]) => number[]): Row[] => [
      { name: "plain Pod, whole Secret, then touch", times: of(whole) },
      { name: "plain Pod, Secret first, key later, then touch", times: of(later) },
      { name: "cold Pod, made with the Secret whole", times: of(cold) },
    ];
    rows.running.push(...named(running));
    rows.beating.push(...named(beating));
    const again = (starts: readonly { again: boolean }[]) => starts.filter((start) => start.again).length;
    notes.push(
      `A second touch was needed: whole Secret ${again(whole)} of ${COUNT}, key later ${again(later)} of ${COUNT}.`,
    );
    await world.simulator.assertNoViolations();
    const items = await world.simulator.items();
    expect(items.map(({ acks, generation }) => [acks.length, generation])).toEqual(items.map(() => [1, 1]));
    expect(items).toHaveLength(3 * COUNT);
  });

  afterAll(() => {
    printed.push(
      table("opened (or made) to running, ms", rows.running),
      table("opened (or made) to first heartbeat, ms", rows.beating),
      table("queued to first heartbeat, ms", rows.queued),
      notes.join("\n"),
    );
  });
});
