import type { Actor, RequestExcuse } from "./caller.ts";

/** The mistakes that a client can make. docs/simulator/behavior.md describes each kind. */
export const VIOLATION_KINDS = [
  "ack-without-offer",
  "ack-outside-window",
  "beat-on-queued",
  "start-without-ack",
  "second-start",
  "two-holders",
  "wrong-echo",
  "unconditional-beat",
  "beat-after-stop",
  "stop-queued",
  "stop-unfenced",
  "stop-without-lease",
  "unknown-tool-result",
  "wrong-credential",
  "invalid-poll",
  "invalid-request",
  "missing-header",
  "unknown-path",
] as const;

export type ViolationKind = (typeof VIOLATION_KINDS)[number];

/** What a judge function found, before it's known who caused it and which item it concerns. */
export interface Finding {
  readonly kind: ViolationKind;
  readonly details: string;
  /** Why a correct client may cause it; the simulator then lists it in `excused`. */
  readonly excuse?: Excuse;
}

/**
 * Why a correct client may cause a violation. `stock-worker`: the stock workers are known to do this, and no operator
 * can prevent it. The others are explained at `RequestExcuse`.
 */
export type Excuse = RequestExcuse | "stock-worker";

/** A breach of the protocol by a client. */
export interface Violation extends Finding {
  /** Milliseconds of the simulator's clock. */
  readonly at: number;
  readonly by: Actor;
  readonly environmentId?: string;
  readonly workId?: string;
  readonly sessionId?: string;
}

/** Formats a violation as one line for people and test failures. */
export function violationText(violation: Violation): string {
  const { kind, details, by, workId, sessionId } = violation;
  const about = workId ?? sessionId;
  const who = [by.as, by.workerId, by.userAgent].filter((part) => part !== undefined).join(", ");
  return `${kind}${about ? ` (${about})` : ""}: ${details} [by ${who}]`;
}
