import { setTimeout as pause } from "node:timers/promises";
import { findLeftovers } from "../../demo/leftovers.ts";
import { violationText } from "../../simulator/violations.ts";
import { residentBytes } from "../support/process-status.ts";
import { type Account, accountOf } from "./account.ts";
import type { Member } from "./fleet.ts";
import { arrivalsOf, KINDS, type Kind } from "./kinds.ts";
import type { SoakOptions } from "./options.ts";
import { type Plan, planRounds } from "./plan.ts";
import { type SoakStage, startStage } from "./stage.ts";
import { Trouble } from "./trouble.ts";
import { type Growth, judge, type Rest } from "./verdict.ts";
import { leastOf, openDescriptors, readVitals, type Vitals } from "./vitals.ts";

/** Environments that exist for one round only, in addition to those that stay for the whole soak. */
const PASSING = 2;
/** A rest is the minimum of LOOKS looks, LOOK_EVERY_MS apart. A look takes two seconds, or ten on a busy machine. */
const LOOKS = 2;
const LOOK_EVERY_MS = 1_000;
const PEAK_EVERY_MS = 1_000;
/** The time that the API server's garbage collector needs after an Environment is deleted. */
const CLEAR_MS = 120_000;

/** A round of load and the rest after it. */
export interface Round extends Rest {
  readonly isWarmUp: boolean;
  /** From the start of the soak to this rest. */
  readonly seconds: number;
  /** The highest values under load. */
  readonly peak: { readonly rssBytes: number; readonly sockets: number };
}

export interface Outcome {
  readonly options: SoakOptions;
  readonly plan: Plan;
  readonly rounds: readonly Round[];
  /** The growth between the rests after the warm-up. */
  readonly growth: readonly Growth[];
  /** Vitals without any Environment, after the warm-up and at the end. */
  readonly empty: { readonly before: Vitals; readonly after: Vitals };
  readonly account: Account;
  /** Sessions that came back. */
  readonly returns: {
    readonly times: number;
    /** How often a session got its next item in the Pod in which it slept. */
    readonly wakes: number;
    /** The most items of one session. */
    readonly mostItems: number;
    /** Sessions that found files of another one. */
    readonly strangers: readonly string[];
  };
  readonly trouble: Readonly<Record<string, number>>;
  /** Why watches of the operator ended, and how often. */
  readonly watchesEnded: Readonly<Record<string, number>>;
  readonly seconds: number;
  readonly violations: readonly string[];
  readonly leftovers: readonly string[];
  readonly exit: number | string;
}

/** Runs a soak. Calls `say` at every rest. */
export async function soak(options: SoakOptions, say: (round: Round) => void): Promise<Outcome> {
  await using stage = await startStage(options.seed);
  const plan = planRounds(options.forMs);
  const run = new Soak(stage, options, plan, say);
  return await Promise.race([run.perform(), endedByItself(run, stage)]);
}

/** Rejects if an operator ends before the soak tells it to. */
async function endedByItself(run: Soak, stage: SoakStage): Promise<never> {
  const { operator } = stage;
  const code = await operator.ended;
  if (run.isOver) return await new Promise(() => {});
  if (stage.wasKilled(operator)) {
    while (stage.operator === operator) await pause(LOOK_EVERY_MS);
    return await endedByItself(run, stage);
  }
  throw new Error(`the operator ended unexpectedly (${code})\n${run.lastWords()}`);
}

/** How a read of /proc fails once the process is gone. */
const IS_GONE: ReadonlySet<string> = new Set(["ENOENT", "ESRCH"]);

class Soak {
  readonly #stage: SoakStage;
  readonly #options: SoakOptions;
  readonly #kinds: readonly Kind[];
  readonly #plan: Plan;
  readonly #say: (round: Round) => void;
  readonly #trouble: Trouble;
  readonly #rounds: Round[] = [];
  readonly #fromMs = performance.now();
  #returned = 0;
  /** The operator is allowed to end now. */
  isOver = false;

  constructor(stage: SoakStage, options: SoakOptions, plan: Plan, say: (round: Round) => void) {
    this.#stage = stage;
    this.#options = options;
    this.#kinds = KINDS.filter(({ name }) => options.kinds.length === 0 || options.kinds.includes(name));
    this.#plan = plan;
    this.#say = say;
    this.#trouble = new Trouble(stage);
  }

  lastWords(): string {
    const { log, stray } = this.#stage.operator;
    return [...log.slice(-20).map((line) => JSON.stringify(line)), ...stray.slice(-20)].join("\n");
  }

  async perform(): Promise<Outcome> {
    const { rounds, warmUpRounds } = this.#plan;
    let residents = await this.#createResidents("warm-up");
    for (let round = 0; round < warmUpRounds; round += 1) await this.#round(round, true);
    await this.#clear(residents);
    const before = await this.#look();
    residents = await this.#createResidents("resident");
    for (let round = warmUpRounds; round < rounds; round += 1) await this.#round(round, false);
    const growth = judge(this.#rounds.filter(({ isWarmUp }) => !isWarmUp));
    await this.#clear(residents);
    const after = await this.#look();
    return await this.#outcome({ growth, empty: { before, after } });
  }

  async #createResidents(prefix: string): Promise<Member[]> {
    const { fleet } = this.#stage;
    const members = await Promise.all(this.#kinds.map((kind) => fleet.create(`${prefix}-${kind.name}`, kind)));
    await fleet.untilRest();
    return members;
  }

  async #clear(members: readonly Member[]): Promise<void> {
    await Promise.all(members.map((member) => this.#stage.fleet.delete(member)));
    await this.#stage.fleet.untilRest();
  }

  async #round(number: number, isWarmUp: boolean): Promise<void> {
    const { fleet, operator } = this.#stage;
    const passing = await Promise.all(
      Array.from({ length: PASSING }, (_, at) => {
        const kind = this.#kinds[(number * PASSING + at) % this.#kinds.length] as Kind;
        return fleet.create(`passing-${number}-${at}-${kind.name}`, kind);
      }),
    );
    const peak = await this.#load(number);
    await fleet.untilRest();
    await this.#clear(passing);
    const round = {
      ...{ isWarmUp, peak },
      sessions: fleet.ended,
      vitals: await this.#look(),
      seconds: (performance.now() - this.#fromMs) / 1_000,
    };
    this.#rounds.push(round);
    this.#say(round);
    // Keep only the end of the log for an error message. Hours of it would be useless.
    (operator.log as unknown[]).splice(0, Math.max(0, operator.log.length - 1_000));
  }

  /** Makes sessions arrive in all Environments, together with trouble. */
  async #load(round: number): Promise<Round["peak"]> {
    const { fleet, world } = this.#stage;
    const { roundMs } = this.#plan;
    const { rate, seed, kills } = this.#options;
    const members = [...fleet.members.values()];
    const arrivals = members.map(({ environmentId, kind }, at) => {
      const plan = arrivalsOf(kind, {
        ratePerSecond: rate / members.length,
        durationSeconds: roundMs / 1_000,
        seed: seed + round * members.length + at,
      });
      return world.simulator.arrivals(environmentId, plan);
    });
    const ended = new AbortController();
    const peak = this.#watchPeak(ended.signal);
    await Promise.all([
      this.#trouble.make(roundMs, { kills: kills || round === 0 }),
      ...arrivals.map(({ done }) => done),
    ]);
    for (const each of arrivals) {
      each.stop();
      this.#returned += each.returned;
    }
    ended.abort();
    return await peak;
  }

  /** Runs until the signal aborts. Other code reports the end of the operator. */
  async #watchPeak(signal: AbortSignal): Promise<Round["peak"]> {
    const peak = { rssBytes: 0, sockets: 0 };
    while (!signal.aborted) {
      const { pid } = this.#stage.operator;
      const seen = await Promise.all([residentBytes(pid), openDescriptors(pid)]).catch((error: unknown) => {
        if (!IS_GONE.has((error as NodeJS.ErrnoException).code ?? "")) throw error;
      });
      const [rssBytes, { sockets }] = seen ?? [0, { sockets: 0 }];
      peak.rssBytes = Math.max(peak.rssBytes, rssBytes);
      peak.sockets = Math.max(peak.sockets, sockets);
      await pause(PEAK_EVERY_MS, undefined, { signal }).catch(() => {});
    }
    return peak;
  }

  async #look(): Promise<Vitals> {
    const { operator, inspector } = this.#stage;
    const first = await readVitals(operator, inspector);
    const all: [Vitals, ...Vitals[]] = [first];
    for (let look = 1; look < LOOKS; look += 1) {
      await pause(LOOK_EVERY_MS);
      all.push(await readVitals(operator, inspector));
    }
    return leastOf(all);
  }

  async #outcome(parts: Pick<Outcome, "growth" | "empty">): Promise<Outcome> {
    const { world, fleet, operator, inspector } = this.#stage;
    const watchesEnded = await this.#watchesEnded();
    const leftovers = await this.#leftovers();
    this.isOver = true;
    // A process with an attached inspector doesn't exit until the inspector disconnects.
    inspector[Symbol.dispose]();
    return {
      ...parts,
      options: this.#options,
      plan: this.#plan,
      rounds: this.#rounds,
      account: accountOf(fleet.items),
      returns: { times: this.#returned, ...fleet.returns },
      trouble: this.#trouble.counts,
      watchesEnded,
      seconds: (performance.now() - this.#fromMs) / 1_000,
      violations: world.simulator.violations.map(violationText),
      leftovers,
      exit: await operator.stop(),
    };
  }

  async #watchesEnded(): Promise<Record<string, number>> {
    const lines = (await (await fetch(`http://${this.#stage.operator.addresses.metrics}/metrics`)).text()).split("\n");
    const ended: Record<string, number> = {};
    for (const line of lines) {
      const [, cause, count] = /^berth_reflector_restarts_total\{.*cause="(\w+)".*\} (\d+)$/.exec(line) ?? [];
      if (cause !== undefined) ended[cause] = (ended[cause] ?? 0) + Number(count);
    }
    return ended;
  }

  async #leftovers(): Promise<string[]> {
    const { world, fleet } = this.#stage;
    const { kube, namespace, simulator } = world;
    // Items are checked in the account, not here.
    const environments = fleet.environmentIds.map((environmentId) => ({ mode: "sessions" as const, environmentId }));
    const query = { kube, namespace, simulator, environments, afterwards: true, interrupted: false };
    const deadline = performance.now() + CLEAR_MS;
    for (;;) {
      const left = await findLeftovers(query);
      if (left.length === 0 || performance.now() > deadline) return left;
      await pause(LOOK_EVERY_MS);
    }
  }
}
