import { z } from "zod";
import { newId } from "./ids.ts";

/** The calls that a fault can be put on. */
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
  /** Which call; any unless given. */
  call: z.enum(CALLS).optional(),
  environmentId: z.string().optional(),
  workId: z.string().optional(),
  /** Strikes the next so many matching requests, then it is spent; unlimited unless given. */
  times: z.int().positive().optional(),
  /** Chance to strike a matching request. */
  probability: z.number().min(0).max(1).default(1),
};

/**
 * Faults on demand. "Before" means that the request has no effect; "after", that it took full effect and only the reply
 * is bad.
 */
export const faultSchema = z.discriminatedUnion("kind", [
  /** Held up before its effect (or only the reply, with `after`), then handled as usual, even if the client is gone. */
  z.strictObject({ ...target, kind: z.literal("latency"), ms: z.number().min(0), after: z.boolean().default(false) }),
  /** Answered with an error status, before any effect. Retry-After in seconds where given. */
  z.strictObject({
    ...target,
    kind: z.literal("status"),
    status: z.int().min(400).max(599),
    retryAfterSeconds: z.number().min(0).optional(),
  }),
  /** The connection is cut, before any effect. */
  z.strictObject({ ...target, kind: z.literal("reset") }),
  /** The connection is cut after the effect. */
  z.strictObject({ ...target, kind: z.literal("lost-reply") }),
  /** Never answered: before any effect, or `after` it. */
  z.strictObject({ ...target, kind: z.literal("hang"), after: z.boolean().default(false) }),
  /** A proxy's error page instead of JSON, before any effect. */
  z.strictObject({ ...target, kind: z.literal("html"), status: z.int().min(200).max(599).default(502) }),
  /** After the effect, the reply's JSON is cut in the middle. */
  z.strictObject({ ...target, kind: z.literal("truncated") }),
  /** After the effect, every value of the reply has another type. */
  z.strictObject({ ...target, kind: z.literal("wrong-types") }),
  /** After the effect, a body without end. */
  z.strictObject({ ...target, kind: z.literal("endless") }),
  /** On poll: gives out an item that somebody else has in hand. */
  z.strictObject({ ...target, kind: z.literal("duplicate-offer") }),
]);

export type Fault = z.output<typeof faultSchema>;
export type FaultInput = z.input<typeof faultSchema>;

/** A fault that was put on, and how often it struck. */
export interface FaultRecord {
  readonly id: string;
  readonly fault: Fault;
  struck: number;
}

/** What a fault is matched against. */
export interface FaultTarget {
  readonly call: CallName;
  readonly environmentId: string | undefined;
  readonly workId: string | undefined;
}

/** Faults that strike before the request has any effect; the others strike its reply. */
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

/** The faults that are on. */
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
   * The first fault that strikes this request, before its effect or at its reply.
   * @param fits whether a fault makes sense now: one that does not is kept for a later request.
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

/** The same shape with every value of another type: numbers become texts, texts numbers, lists objects. */
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
