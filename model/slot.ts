import type { Moment } from "./moment.ts";
import type { Rules } from "./rules.ts";
import {
  BODY,
  DELIVERY,
  holderOfOperator,
  ITEM,
  isAlive,
  OBJECT,
  OPERATOR,
  PAST,
  PHASE,
  POD,
  SHELL,
  SLEEP,
  STATE,
  type State,
  TURN,
} from "./state.ts";
import type { OperatorStep, Outcome, SleepStep } from "./steps.ts";

/** What a step of a claim adds to its name. */
interface Told {
  readonly outcome?: Outcome;
  readonly fault?: boolean;
  readonly breaks?: string | null;
  readonly graceful?: boolean;
}

/** One Pod with its Secret, as its operator sees it: the input of its next step. */
export class Slot {
  readonly moment: Moment;
  readonly rules: Rules;
  readonly operator: number;
  readonly pod: number;
  /** The offsets of its bytes and of its operator's. */
  readonly at: number;
  readonly operatorAt: number;
  /** The offset of its bytes for `parking: Shell`. */
  readonly shellAt: number;
  /** If sessions sleep: the offsets of the bytes of its turn, and of its Pod, and the number of the turn. */
  readonly turnAt: number;
  readonly sleepAt: number;
  readonly turn: number;
  readonly body: number;
  readonly object: boolean;
  readonly isTerminating: boolean;
  readonly memory: number;
  readonly hasKey: boolean;
  readonly known: number;
  /** The item that its Secret records, -1 without one, and the offset of its bytes. */
  readonly item: number;
  readonly itemAt: number;

  constructor(moment: Moment, pod: number) {
    const { layout } = moment;
    this.moment = moment;
    this.rules = layout.rules;
    this.pod = pod;
    this.operator = layout.operatorOf(pod);
    this.at = layout.pod(pod);
    this.operatorAt = layout.operator(this.operator);
    this.shellAt = layout.shell(pod);
    this.turnAt = layout.turn(pod);
    this.sleepAt = layout.sleep(pod);
    this.turn = layout.turnOf(pod);
    this.body = moment.byte(this.at + POD.body);
    this.object = moment.byte(this.at + POD.object) !== OBJECT.none;
    this.isTerminating = moment.byte(this.at + POD.object) === OBJECT.terminating;
    this.memory = moment.byte(this.at + POD.memory);
    this.hasKey = moment.byte(this.at + POD.key) === 1;
    this.known = moment.byte(this.at + POD.known);
    this.item = moment.byte(this.at + POD.record) - 1;
    this.itemAt = layout.item(Math.max(0, this.item));
  }

  get byOperator(): boolean {
    return this.rules.lease === "Operator";
  }

  get state(): number {
    return this.moment.byte(this.itemAt + ITEM.state);
  }

  get holder(): number {
    return this.moment.byte(this.itemAt + ITEM.holder);
  }

  get stamp(): number {
    return this.moment.byte(this.itemAt + ITEM.stamp);
  }

  /** The item of an acknowledgement in flight; -1: none. */
  get ackUnderWay(): number {
    return this.moment.byte(this.operatorAt + OPERATOR.lateAck) - 1;
  }

  get isDeleted(): boolean {
    return this.moment.isDeleted(this.operator);
  }

  get isShell(): boolean {
    return this.moment.layout.isShell;
  }

  /** Whether the Pod waits for its key or its line. */
  get isParked(): boolean {
    return this.body === BODY.parked && this.object && !this.isTerminating;
  }

  /** Shell: whether the Pod is marked as assigned. */
  get isAssigned(): boolean {
    if (this.hasTurns) return this.phase === PHASE.assigned;
    return this.moment.byte(this.shellAt + SHELL.assigned) === 1;
  }

  /** Whether the Pod waits and was given to no session. */
  get isFree(): boolean {
    if (this.hasTurns) return this.isParked && !this.isLocked && this.isOpenTurn;
    return this.isParked && !(this.isAssigned && this.rules.assignedAlone === "deleted");
  }

  get hasTurns(): boolean {
    return this.moment.layout.hasTurns;
  }

  get hasVolumes(): boolean {
    return this.moment.layout.hasVolumes;
  }

  get phase(): number {
    return this.moment.byte(this.sleepAt + SLEEP.phase);
  }

  /** The last turn of the Pod whose end is recorded. */
  get ended(): number {
    return this.moment.byte(this.sleepAt + SLEEP.ended);
  }

  /** Whether the Secret of the turn is the lock of a removal. */
  get isLocked(): boolean {
    return this.moment.byte(this.turnAt + TURN.lock) === 1;
  }

  /** Whether the turn is the one for the next item. */
  get isOpenTurn(): boolean {
    if (!this.rules.endedRecord) return this.phase !== PHASE.assigned;
    return this.ended === this.turn - 1 && this.phase === (this.turn === 1 ? PHASE.parked : PHASE.sleeping);
  }

  /** Whether the container that the claim was made for ended, and another one of its name waits. */
  get isRerun(): boolean {
    return this.rules.rerun === "by-id" && (this.moment.byte(this.turnAt + TURN.past) & PAST.reranInClaim) !== 0;
  }

  /** Whether the turn is for a session that sleeps in the Pod. */
  get isWoken(): boolean {
    return this.hasTurns && this.turn > 1;
  }

  /** Shell: what this process knows of the delivery. */
  get delivery(): number {
    return this.moment.byte(this.shellAt + SHELL.delivery);
  }

  /** Shell: whether the claim is opened, and this process knows of no start. */
  get isUnstarted(): boolean {
    const isSeenRunning = this.object && (this.body === BODY.parked || isAlive(this.body));
    return this.isShell && this.hasKey && isSeenRunning && !this.isRerun && this.delivery !== DELIVERY.started;
  }

  /** Whether the container has ended, or its end will never be reported. */
  get isOver(): boolean {
    const isGivenUp = this.rules.giveUp === "send-failed" && this.isUnstarted && this.delivery === DELIVERY.unknown;
    return this.body === BODY.ended || this.body === BODY.gone || !this.object || this.isRerun || isGivenUp;
  }

  /** Whether the item is still under the acknowledgement that made it ours. */
  get isSameStamp(): boolean {
    return this.known === this.stamp || this.rules.stamp === "kept";
  }

  /** Queued again, or stopped. */
  get isOutOfHands(): boolean {
    return this.state === STATE.queued || this.state === STATE.stopped;
  }

  fork(): State {
    return this.moment.fork();
  }

  /** The state after a step that changes only the operator's memory. */
  remembering(memory: number): State {
    const next = this.fork();
    next[this.at + POD.memory] = memory;
    return next;
  }

  /** The state after a step that changes only what the operator knows of a delivery. */
  knowing(delivery: number): State {
    const next = this.fork();
    next[this.shellAt + SHELL.delivery] = delivery;
    return next;
  }

  /** The state in which this operator holds the item with its heartbeats. */
  held(): State {
    const next = this.fork();
    next[this.itemAt + ITEM.holder] = holderOfOperator(this.operator);
    return next;
  }

  tell(
    next: State,
    name: OperatorStep | SleepStep | "fault.crash" | "fault.silence" | "operator.forget",
    told: Told = {},
  ): void {
    const { outcome = "ok", fault = false, breaks = null, graceful = false } = told;
    const { operator, pod, item } = this;
    this.moment.tell(next, { name, outcome, operator, pod, item, fault, breaks, graceful });
  }
}
