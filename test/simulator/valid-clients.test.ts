import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { beatIntervalMs } from "../../simulator/switches.ts";
import { beatSchema, type Client, type Work, workerOf, workSchema } from "./client.ts";
import { type Rig, startRig } from "./rig.ts";

const SECOND = 1000;
const TTL_MS = 90 * SECOND;
const ACK_WINDOW_MS = 5 * SECOND;
/** The requests of these tests take no time on the virtual clock, so one second is more than enough. */
const MARGIN_MS = SECOND;

const switchesArbitrary = fc.record({
  secondAck: fc.constantFrom("refused" as const, "unchanged" as const, "renewed" as const),
  reackStamp: fc.constantFrom("renewed" as const, "kept" as const),
  lapse: fc.constantFrom("requeue" as const, "stop" as const),
  requeueId: fc.constantFrom("kept" as const, "new" as const),
  starting: fc.constantFrom("expires" as const, "never" as const),
  lapsedStopping: fc.constantFrom("stays" as const, "ends" as const),
  stoppingBeat: fc.constantFrom("extends" as const, "ignored" as const),
  listOrder: fc.constantFrom("newest" as const, "oldest" as const, "shuffled" as const),
});

const wait = (min: number, max: number) =>
  fc.record({ do: fc.constant("wait" as const), ms: fc.integer({ min, max }) });

const stepArbitrary = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant("enqueue" as const) }) },
  { weight: 12, arbitrary: fc.record({ do: fc.constant("operate" as const), who: fc.nat(1) }) },
  { weight: 10, arbitrary: fc.record({ do: fc.constant("work" as const), who: fc.nat(7) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("kill" as const), who: fc.nat(7) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("finish" as const), who: fc.nat(7) }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant("user-stop" as const), which: fc.nat(20), force: fc.boolean() }),
  },
  { weight: 8, arbitrary: wait(1, 2 * SECOND) },
  { weight: 3, arbitrary: wait(10 * SECOND, 50 * SECOND) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant("lose" as const),
      call: fc.constantFrom("poll" as const, "ack" as const, "heartbeat" as const, "stop" as const),
    }),
  },
);
type Step = typeof stepArbitrary extends fc.Arbitrary<infer T> ? T : never;

/**
 * A container with a stock worker. It sends heartbeats, ends when it's told to, and never stops an item that it may
 * have lost.
 */
class Worker {
  readonly work: Work;
  alive = true;
  readonly #client: Client;
  readonly #now: () => number;
  #echo = "NO_HEARTBEAT";
  #answeredAt: number | undefined;

  constructor(client: Client, work: Work, now: () => number) {
    this.#client = workerOf(client, work);
    this.work = work;
    this.#now = now;
  }

  async beat(): Promise<void> {
    const answer = await this.#client.beat(this.work.id, this.#echo).catch(() => undefined);
    if (!answer) return;
    if (answer.status !== 200) {
      this.alive = false;
      return;
    }
    const body = beatSchema.parse(answer.json());
    this.#echo = body.last_heartbeat;
    this.#answeredAt = this.#now();
    if (body.state !== "active" || !body.lease_extended) await this.#leave(body.state !== "stopped");
  }

  async finish(): Promise<void> {
    const sure = this.#answeredAt !== undefined && this.#now() - this.#answeredAt < TTL_MS - MARGIN_MS;
    if (sure) await this.#leave(true);
  }

  async #leave(stop: boolean): Promise<void> {
    this.alive = false;
    if (stop) await this.#client.stop(this.work.id, true).catch(() => undefined);
  }
}

interface Claim {
  readonly work: Work;
  readonly polledAt: number;
  phase: "polled" | "unanswered" | "running";
  worker: Worker | undefined;
  /** The listed last_heartbeat, and when it last changed. */
  seen: { value: string | null; at: number } | undefined;
  fencedAt: number | undefined;
}

/** An operator that follows the claim protocol: it acknowledges inside the window, and fences before it stops. */
class Operator {
  readonly #client: Client;
  readonly #rig: Rig;
  readonly claims: Claim[] = [];

  constructor(client: Client, rig: Rig) {
    this.#client = client;
    this.#rig = rig;
  }

  get #now(): number {
    return this.#rig.clock.now();
  }

  async step(): Promise<void> {
    for (const claim of [...this.claims]) if (!claim.worker?.alive) await this.#advance(claim);
    await this.#poll();
  }

  async #poll(): Promise<void> {
    const polledAt = this.#now;
    const work = await this.#client.poll({ reclaim_older_than_ms: 15_000 }).catch(() => null);
    if (!work || this.claims.some((claim) => claim.work.id === work.id)) return;
    this.claims.push({ work, polledAt, phase: "polled", worker: undefined, seen: undefined, fencedAt: undefined });
  }

  async #advance(claim: Claim): Promise<void> {
    if (claim.phase === "polled") await this.#ack(claim);
    else if (claim.phase === "unanswered") await this.#lookUp(claim);
    else await this.#settle(claim);
  }

  async #ack(claim: Claim): Promise<void> {
    if (this.#now - claim.polledAt >= ACK_WINDOW_MS - MARGIN_MS) return this.#drop(claim);
    const askedAt = this.#now;
    const answer = await this.#client.ack(claim.work.id).catch(() => undefined);
    if (!answer) {
      claim.phase = "unanswered";
      return;
    }
    const stamp = answer.status === 200 ? workSchema.parse(answer.json()).acknowledged_at : null;
    if (stamp === null || Date.parse(stamp) < askedAt) return this.#drop(claim);
    this.#open(claim);
  }

  async #lookUp(claim: Claim): Promise<void> {
    if (this.#now - claim.polledAt < ACK_WINDOW_MS) return;
    const item = await this.#find(claim);
    const stamp = Date.parse(item?.acknowledged_at ?? "");
    const ours = stamp >= claim.polledAt && stamp <= claim.polledAt + ACK_WINDOW_MS;
    if (item?.state === "starting" && ours) this.#open(claim);
    else this.#drop(claim);
  }

  #open(claim: Claim): void {
    claim.phase = "running";
    claim.worker = new Worker(this.#client, claim.work, () => this.#now);
  }

  #drop(claim: Claim): void {
    this.claims.splice(this.claims.indexOf(claim), 1);
  }

  async #find(claim: Claim): Promise<Work | undefined> {
    return (await this.#client.listAll()).find((item) => item.id === claim.work.id);
  }

  /** Handles a container that is gone: fence, then stop, or find that there is nothing to do. */
  async #settle(claim: Claim): Promise<void> {
    const item = await this.#find(claim);
    if (!item || item.state === "queued" || item.state === "stopped") return this.#drop(claim);
    if (item.state === "stopping") {
      await this.#client.stop(claim.work.id, true).catch(() => undefined);
      return;
    }
    if (item.state === "starting") return await this.#fence(claim, "NO_HEARTBEAT");
    const value = item.latest_heartbeat_at;
    if (!claim.seen || claim.seen.value !== value) claim.seen = { value, at: this.#now };
    else if (value && this.#now - claim.seen.at >= beatIntervalMs(TTL_MS)) await this.#fence(claim, value);
  }

  async #fence(claim: Claim, echo: string): Promise<void> {
    const answer = await this.#client.beat(claim.work.id, echo).catch(() => undefined);
    if (answer?.status !== 200 || beatSchema.parse(answer.json()).state !== "active") return;
    await this.#client.stop(claim.work.id, true).catch(() => undefined);
  }
}

async function run(rig: Rig, steps: readonly Step[]): Promise<void> {
  const { client } = rig;
  const operators = ["op-1", "op-2"].map((workerId) => new Operator(client.with({ workerId }), rig));
  // Both operators are alive from the start, so their ids are certainly different clients.
  for (const workerId of ["op-1", "op-2", "op-1"]) await client.with({ workerId }).stats();
  const workers = () => operators.flatMap((operator) => operator.claims.flatMap((claim) => claim.worker ?? []));
  for (const step of steps) {
    switch (step.do) {
      case "enqueue":
        rig.simulator.enqueue(rig.environmentId);
        break;
      case "operate":
        await operators[step.who]?.step();
        break;
      case "work":
      case "kill":
      case "finish": {
        const alive = workers().filter((worker) => worker.alive);
        const worker = alive[step.who % Math.max(1, alive.length)];
        if (step.do === "work") await worker?.beat();
        else if (step.do === "finish") await worker?.finish();
        else if (worker) worker.alive = false;
        break;
      }
      case "user-stop": {
        const items = rig.simulator.items();
        const item = items[step.which % Math.max(1, items.length)];
        if (item) rig.simulator.stopItem(item.id, { force: step.force });
        break;
      }
      case "lose":
        rig.simulator.inject({ call: step.call, kind: "lost-reply", times: 1 });
        break;
      case "wait":
        await rig.clock.advance(step.ms);
    }
  }
}

/** The number of random runs. Each uses HTTP with its own simulator. */
const RUNS = 40;

describe("correct clients, whatever happens to them", () => {
  test("cause no violations", { timeout: 120_000 }, async () => {
    let beats = 0;
    let stops = 0;
    const property = fc.asyncProperty(
      switchesArbitrary,
      fc.array(stepArbitrary, { minLength: 60, maxLength: 160, size: "max" }),
      async (switches, steps) => {
        await using rig = await startRig({ switches });
        await run(rig, steps);
        beats += rig.simulator.report().beats;
        stops += rig.simulator.report().requests["stop 204"] ?? 0;
        rig.simulator.assertNoViolations();
        expect(rig.simulator.excused).toEqual([]);
      },
    );
    // If it fails, fast-check prints the seed and the shrunken counterexample.
    await fc.assert(property, { numRuns: RUNS });
    // Check that the runs actually did something.
    expect(beats).toBeGreaterThan(RUNS);
    expect(stops).toBeGreaterThan(RUNS / 10);
  });
});
