import { z } from "zod";
import { newId } from "./ids.ts";

/** The calls that a fault can apply to. */
export const CALLS = [
  "poll",
  "ack",
  "heartbeat",
  "stop",
  "stats",
  "list",
  "retrieve",
  "update",
  "session",
  "events-list",
  "events-stream",
  "events-send",
] as const;
export type CallName = (typeof CALLS)[number];

const target = {
  /** The call that the fault applies to. Defaults to any call. */
  call: z.enum(CALLS).optional(),
  environmentId: z.string().optional(),
  workId: z.string().optional(),
  /** The fault strikes this number of matching requests and is then removed. Unlimited by default. */
  times: z.int().positive().optional(),
  /** The chance that a matching request is struck. */
  probability: z.number().min(0).max(1).default(1),
};

/**
 * The faults that a client can inject. "Before" means that the request has no effect. "After" means that the request
 * took full effect and only the reply is bad.
 */
export const faultSchema = z.discriminatedUnion("kind", [
  /**
   * Delays the request before its effect (with `after`, only the reply), then handles it as usual even if the client is
   * gone.
   */
  z.strictObject({ ...target, kind: z.literal("latency"), ms: z.number().min(0), after: z.boolean().default(false) }),
  /** Answers with an error status before any effect, with Retry-After in seconds if it's set. */
  z.strictObject({
    ...target,
    kind: z.literal("status"),
    status: z.int().min(400).max(599),
    retryAfterSeconds: z.number().min(0).optional(),
  }),
  /** Resets the connection before any effect. */
  z.strictObject({ ...target, kind: z.literal("reset") }),
  /** Resets the connection after the effect. */
  z.strictObject({ ...target, kind: z.literal("lost-reply") }),
  /** Never answers. The request has no effect, or its full effect with `after`. */
  z.strictObject({ ...target, kind: z.literal("hang"), after: z.boolean().default(false) }),
  /** Answers with a proxy's HTML error page before any effect. */
  z.strictObject({ ...target, kind: z.literal("html"), status: z.int().min(200).max(599).default(502) }),
  /** Cuts the reply's JSON in the middle, after the effect. */
  z.strictObject({ ...target, kind: z.literal("truncated") }),
  /** Changes the type of every value in the reply, after the effect. */
  z.strictObject({ ...target, kind: z.literal("wrong-types") }),
  /** Sends a body that never ends, after the effect. */
  z.strictObject({ ...target, kind: z.literal("endless") }),
  /** Makes a poll give out an item that another client holds. */
  z.strictObject({ ...target, kind: z.literal("duplicate-offer") }),
]);

export type Fault = z.output<typeof faultSchema>;
export type FaultInput = z.input<typeof faultSchema>;

/** An injected fault and the number of times it struck. */
export interface FaultRecord {
  readonly id: string;
  readonly fault: Fault;
  struck: number;
}

/** The parts of a request that a fault can match. */
export interface FaultTarget {
  readonly call: CallName;
  readonly environmentId: string | undefined;
  readonly workId: string | undefined;
}

/** Whether the fault strikes before the request has any effect. The others strike its reply. */
export function strikesBefore(fault: Fault): boolean {
  switch (fault.kind) {
    case "latency":
    case "hang":
      return !fault.after;
    case "status":
    case "reset":
    case "html":
    case "duplicate-offer":
      return true;
    default:
      return false;
  }
}

/** The injected faults. */
export class Faults {
  readonly #records = new Map<string, FaultRecord>();
  readonly #random: () => number;
  readonly #onStrike: (record: FaultRecord) => void;

  constructor(random: () => number, onStrike: (record: FaultRecord) => void) {
    this.#random = random;
    this.#onStrike = onStrike;
  }

  add(fault: Fault): FaultRecord {
    const record = { id: newId("flt"), fault, struck: 0 };
    this.#records.set(record.id, record);
    return record;
  }

  remove(id: string): boolean {
    return this.#records.delete(id);
  }

  clear(): void {
    this.#records.clear();
  }

  list(): FaultRecord[] {
    return [...this.#records.values()];
  }

  /**
   * Returns the first fault that strikes this request, either before its effect or at its reply.
   * @param fits whether a fault applies now; a fault that doesn't is kept for a later request
   */
  strike(when: "before" | "after", target: FaultTarget, fits: (fault: Fault) => boolean): Fault | undefined {
    for (const record of this.#records.values()) {
      const { fault } = record;
      if (strikesBefore(fault) !== (when === "before") || !matches(fault, target) || !fits(fault)) continue;
      if (fault.probability < 1 && this.#random() >= fault.probability) continue;
      record.struck += 1;
      if (fault.times !== undefined && record.struck >= fault.times) this.#records.delete(record.id);
      this.#onStrike(record);
      return fault;
    }
    return undefined;
  }
}

function matches(fault: Fault, target: FaultTarget): boolean {
  return (
    (fault.call === undefined || fault.call === target.call) &&
    (fault.environmentId === undefined || fault.environmentId === target.environmentId) &&
    (fault.workId === undefined || fault.workId === target.workId) &&
    (fault.kind !== "duplicate-offer" || target.call === "poll")
  );
}

/**
 * Returns the same structure with every value of another type: numbers become strings, strings numbers, lists objects.
 */
export function withWrongTypes(value: unknown): unknown {
  if (Array.isArray(value)) return { items: value.length };
  if (value === null) return 0;
  switch (typeof value) {
    case "string":
      return value.length;
    case "number":
    case "boolean":
      return String(value);
    case "object":
      return Object.fromEntries(Object.entries(value as object).map(([key, inner]) => [key, withWrongTypes(inner)]));
    default:
      return value;
  }
}
