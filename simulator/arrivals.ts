import { z } from "zod";
import type { SimulatorClock } from "./clock.ts";
import type { Deadline, Deadlines } from "./deadlines.ts";
import { newId, seededRandom } from "./ids.ts";
import { scriptSchema } from "./script.ts";

/** What to queue: a new session, more work for an existing session, or an item that isn't a session. */
export const enqueueSchema = z.strictObject({
  /** `session`, `healthcheck`, or any other type, which shows how a client handles unknown types. */
  type: z.string().min(1).default("session"),
  /** What the session's agent does. Only for a new session. */
  script: scriptSchema.optional(),
  /** Queues more work for this session instead of creating one. */
  sessionId: z.string().optional(),
  /** Whether poll replies carry a secret. Defaults to the switch `secrets`. */
  secret: z.boolean().optional(),
  metadata: z.record(z.string(), z.string()).optional(),
});
export type EnqueueInput = z.input<typeof enqueueSchema>;

/** Sessions that come back: each gets further messages, some time after its worker has left. */
const returnsSchema = z.strictObject({
  /** The fraction of sessions that come back. */
  share: z.number().min(0).max(1).default(1),
  /** The number of times that each of them comes back: fixed, or drawn from a range. */
  times: z.union([z.int().positive(), z.strictObject({ min: z.int().min(0), max: z.int().positive() })]).default(1),
  /** The idle time from the stop of a work item to the next message, in seconds: fixed, or drawn from a range. */
  afterSeconds: z.union([z.number().min(0), z.strictObject({ min: z.number().min(0), max: z.number().min(0) })]),
  /** What the agent does each time. Defaults to the script of the session. */
  script: scriptSchema.optional(),
  /** Determines which sessions come back, and after what time. */
  seed: z.int().default(1),
});
export type ReturnsPlan = z.output<typeof returnsSchema>;

const common = {
  item: enqueueSchema.optional(),
  /** The maximum number of items. Messages of sessions that come back don't count. */
  count: z.int().positive().optional(),
  returns: returnsSchema.optional(),
};

/** When items arrive. All times are on the simulator's clock. */
export const arrivalsSchema = z.discriminatedUnion("kind", [
  /** Independent arrivals at a mean rate, for a duration or a count. The seed determines the times. */
  z.strictObject({
    ...common,
    kind: z.literal("poisson"),
    ratePerSecond: z.number().positive(),
    seed: z.int().default(1),
    durationSeconds: z.number().positive().optional(),
  }),
  /** `size` items at once, `bursts` times, `everySeconds` apart. */
  z.strictObject({
    ...common,
    kind: z.literal("burst"),
    size: z.int().positive(),
    bursts: z.int().positive().default(1),
    everySeconds: z.number().positive().default(60),
  }),
  /** One item at each of these times, in seconds after the start. */
  z.strictObject({ ...common, kind: z.literal("replay"), atSeconds: z.array(z.number().min(0)).min(1) }),
]);
export type ArrivalsInput = z.input<typeof arrivalsSchema>;
export type Arrivals = z.output<typeof arrivalsSchema>;

/** A running series of arrivals. */
export interface ArrivalsHandle {
  readonly id: string;
  /** The number of items so far. */
  readonly arrived: number;
  /** The number of times that a session has come back so far. */
  readonly returned: number;
  /** Resolves with the number of items after the last one arrived or `stop` was called. */
  readonly done: Promise<number>;
  stop(): void;
}

/** Starts arrivals. Calls `arrive` once per item. */
export function startArrivals(
  plan: Arrivals,
  clock: SimulatorClock,
  deadlines: Deadlines,
  arrive: () => void,
): Omit<ArrivalsHandle, "returned"> {
  const start = clock.now();
  const times = arrivalTimes(plan);
  const { promise, resolve } = Promise.withResolvers<number>();
  let arrived = 0;
  let pending: Deadline | undefined;
  const finish = () => {
    pending = undefined;
    resolve(arrived);
  };
  const schedule = () => {
    const next = times.next();
    if (next.done || (plan.count !== undefined && arrived >= plan.count)) return finish();
    pending = deadlines.at(start + next.value, () => {
      arrived += 1;
      arrive();
      schedule();
    });
  };
  schedule();
  return {
    id: newId("arr"),
    get arrived() {
      return arrived;
    },
    done: promise,
    stop: () => {
      pending?.cancel();
      finish();
    },
  };
}

const MS_PER_SECOND = 1000;

/** Yields the arrival times in milliseconds after the start, in ascending order. */
export function* arrivalTimes(plan: Arrivals): Generator<number, void> {
  switch (plan.kind) {
    case "poisson": {
      const random = seededRandom(plan.seed);
      const endMs = (plan.durationSeconds ?? Number.POSITIVE_INFINITY) * MS_PER_SECOND;
      let at = 0;
      for (;;) {
        at += (-Math.log(1 - random()) / plan.ratePerSecond) * MS_PER_SECOND;
        if (at > endMs) return;
        yield at;
      }
    }
    case "burst":
      for (let burst = 0; burst < plan.bursts; burst += 1) {
        for (let i = 0; i < plan.size; i += 1) yield burst * plan.everySeconds * MS_PER_SECOND;
      }
      return;
    case "replay":
      for (const seconds of plan.atSeconds.toSorted((a, b) => a - b)) yield seconds * MS_PER_SECOND;
  }
}
