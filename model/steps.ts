import type { SessionPoint } from "../src/protocol/points.ts";

/** Steps of an operator are named as the points of the code that takes them. */
export type OperatorStep = Extract<
  SessionPoint,
  | "claim.poll"
  | "claim.journal"
  | "claim.ack"
  | "claim.drop"
  | "session.own"
  | "session.doubt"
  | "session.take"
  | "session.lose"
  | "session.let-go"
  | "session.beat"
  | "session.open"
  | "session.snapshot"
  | "session.fence"
  | "session.stop"
  | "session.delete-pod"
  | "session.drop"
  | "session.settled"
  | "retention.delete-pod"
>;

/** What operators do not do, and a trace of theirs does not show. */
export type HiddenStep =
  | "work-api.reclaim"
  | "work-api.expire"
  | "work-api.lapse"
  | "node.start"
  | "node.end"
  | "worker.first-beat"
  | "worker.beat"
  | "worker.finish"
  | "worker.exit"
  | "worker.stop"
  | "network.late-ack"
  | "network.late-key"
  | "operator.restart"
  /** In memory alone: what was thought of a lease is over. */
  | "operator.forget";

/** What goes wrong, or what a user does. The way to a settled end must not need any of it. */
export type Fault =
  | "fault.crash"
  | "fault.delete-pod"
  | "fault.lose-node"
  | "fault.kill-container"
  | "fault.terminate-container"
  | "fault.silence"
  | "user.stop"
  | "user.delete-environment"
  | "user.move-api";

/** How a request came out, where it is not told by the step alone. Words of a trace's outcome where they mean the same. */
export type Outcome =
  | ""
  | "ok"
  | "refused"
  /** No answer; it took effect. */
  | "unanswered"
  /** No answer; it took none, or none yet. */
  | "lost"
  /** It took effect, and its operator died before the answer. */
  | "crash"
  /** Its operator died, and it may take effect later. */
  | "crash, under way";

export interface Step {
  readonly name: OperatorStep | HiddenStep | Fault;
  readonly outcome: Outcome;
  /** Indexes; -1: it is about none. */
  readonly operator: number;
  readonly pod: number;
  readonly item: number;
  /** Not one of those that lead to a settled end. */
  readonly fault: boolean;
  /** Of session.stop: without force. */
  readonly graceful?: boolean;
  /** The property that it breaks. */
  readonly breaks: string | null;
}
