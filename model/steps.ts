import type { SessionPoint } from "../src/protocol/points.ts";

/** Points of `parking: Shell`. */
export type ShellPoint = "session.deliver" | "session.read-log" | "session.delivered";

/** Steps of sessions that sleep in their Pod. */
export type SleepStep =
  /** Marks the Pod as sleeping, and records the end of its turn. */
  | "session.sleep"
  | "turn.add"
  /** Records the end of a turn that ended while it waited. */
  | "turn.skip"
  | "removal.lock"
  /** Reads the Pod live, and sends the delete. */
  | "removal.delete-pod"
  | "removal.unlock";

/** Steps about the volumes of sessions. */
export type VolumeStep =
  | "workspace.assign"
  /** Marks it as in use: for a claim of the session that it is assigned to, or before a Pod is created. */
  | "workspace.take"
  /** Finds out whether the volume has a session, and writes to it if it has none. */
  | "workspace.adopt"
  /** Finds out that it has one, or is gone. */
  | "workspace.read"
  /** Creates one, for a new Pod. */
  | "workspace.create"
  /** Marks it as unused. */
  | "workspace.leave"
  | "workspace.delete"
  /** Creates a Pod with it. */
  | "prepare.create-pod";

/** Steps of an operator, named like the points of the code that takes them. */
export type OperatorStep = Extract<
  SessionPoint | ShellPoint,
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
  | "session.touch"
  | ShellPoint
  | "session.snapshot"
  | "session.fence"
  | "session.stop"
  | "session.delete-pod"
  | "session.drop"
  | "session.settled"
  | "retention.delete-pod"
>;

/** Steps of other actors, which an operator's trace does not show. */
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
  | "network.late-touch"
  | "network.late-sleep"
  | "network.late-delete"
  | "network.late-lock"
  | "network.late-assign"
  | "network.late-mark"
  | "network.late-pod"
  /** A volume was unused for as long as volumes are kept. */
  | "time.kept-long-enough"
  /** A line reaches its shell after its sender stopped waiting for the marker. */
  | "network.line"
  | "operator.restart"
  /** In memory only: the operator drops its view of a lease. */
  | "operator.forget";

/** Faults and acts of users. The path to a settled end must not need any of them. */
export type Fault =
  | "fault.crash"
  | "fault.delete-pod"
  | "fault.lose-node"
  | "fault.kill-container"
  | "fault.terminate-container"
  | "fault.silence"
  /** A process that lost its leadership sends a line. */
  | "fault.stale-leader"
  /** The kubelet lost the record of a container that ended, and runs it again. */
  | "fault.rerun"
  | "user.stop"
  | "user.delete-secret"
  | "user.delete-volume"
  | "user.delete-environment";

/** The outcome of a request if the step's name does not imply it. It uses a trace's terms where they mean the same. */
export type Outcome =
  | ""
  | "ok"
  | "refused"
  /** No answer; the request took effect. */
  | "unanswered"
  /** No answer; the request took no effect, or not yet. */
  | "lost"
  /** The request took effect, and its operator died before the answer. */
  | "crash"
  /** The operator died, and the request may take effect later. */
  | "crash, under way";

export interface Step {
  readonly name: OperatorStep | SleepStep | VolumeStep | HiddenStep | Fault;
  readonly outcome: Outcome;
  /** Indexes; -1: none. */
  readonly operator: number;
  readonly pod: number;
  readonly item: number;
  /** The volume that it is about, if any. */
  readonly volume?: number;
  /** Whether the step is not part of the path to a settled end. */
  readonly fault: boolean;
  /** For session.stop: without force. */
  readonly graceful?: boolean;
  /** The property that the step breaks. */
  readonly breaks: string | null;
}
