import type { Rules } from "./rules.ts";

// A state is a row of bytes: first those of each item, then of each Pod (grouped by operator), then of each operator. With
// volumes, those of each volume follow and two bytes of each Pod, and for `parking: Shell`, more of each Pod. If sessions
// sleep, each turn of a Pod has the rows of a Pod and one more, and each Pod has one at the end: `pod` is the index of a
// turn then, and the turns of a Pod follow each other. References to items, sessions, volumes and operators count from 1;
// 0 means none.

/** Bytes of an item. */
export const ITEM = {
  state: 0,
  /** The operator whose poll got it and from which it may not have been reclaimed. */
  offer: 1,
  /** The number of acknowledgements so far; represents acknowledged_at. */
  stamp: 2,
  /** The operator whose acknowledgement gave it this stamp. */
  owner: 3,
  /** Operators whose acknowledgement was answered with 2xx, as bits. */
  acked: 4,
  /** The sender of its heartbeats: a Pod's container, or an operator. */
  holder: 5,
} as const;
const ITEM_BYTES = 6;

/** Bytes of a Pod, the Secret of its name, and its operator's memory of that claim. */
export const POD = {
  body: 0,
  object: 1,
  /** The item that its container was started for. */
  serves: 2,
  /** The item that the Secret of its name records. */
  record: 3,
  /** Whether the Secret has the key that the container waits for. Shell: whether it records the opening. */
  key: 4,
  /** The stamp under which the operator knows the item as its own; durable once the key is. */
  known: 5,
  /** Whether an acknowledgement of this claim took effect. */
  ours: 6,
  memory: 7,
  /** The stamp of a patch with the key that a dead operator left in flight. */
  lateKey: 8,
} as const;
export const POD_BYTES = 9;

/** `parking: Shell`: more bytes of a Pod. */
export const SHELL = {
  /** Whether the Pod's object is marked as assigned. */
  assigned: 0,
  /** Whether a patch that marks it may still take effect. */
  lateTouch: 1,
  /** Lines that may still reach the waiting shell: a bit or two for each item (lines.ts). */
  lines: 2,
  /** Whether a line was ever sent to the waiting shell. */
  sent: 3,
  /** What the operator's process knows of the delivery. */
  delivery: 4,
  /** The item whose line can still be sent by an operator that lost its leadership. */
  stale: 5,
} as const;
const SHELL_BYTES = 6;

/** Sessions that sleep: more bytes of a turn. */
export const TURN = {
  /** What happened to its container: bits of PAST. */
  past: 0,
  /** Whether the Secret of its name is the lock of a removal. */
  lock: 1,
} as const;
const TURN_BYTES = 2;

export const PAST = {
  /** Its program started. */
  ran: 1,
  /** The kubelet ran it again. */
  reran: 2,
  /** The same, since its claim was journaled. */
  reranInClaim: 4,
} as const;

/** Sessions that sleep: bytes of a Pod, which its turns share. */
export const SLEEP = {
  phase: 0,
  /** The last turn whose end is recorded. */
  ended: 1,
  /** The session that the Pod is marked with. */
  session: 2,
  /** The session whose program ran in the Pod. */
  files: 3,
  /** The session of a patch that marks the Pod as assigned and may still take effect. */
  lateTouch: 4,
  /** The session and the ended turn of a patch that marks the Pod as sleeping and may still take effect (sleepMark). */
  lateSleep: 5,
  /** A delete that may still take effect: that of a removal, or, from 2 on, of the claim of a turn. */
  lateDelete: 6,
  /** The turn that the lock of a removal may still be created for. */
  lateLock: 7,
} as const;
const SLEEP_BYTES = 8;

/** A patch that marks a Pod as sleeping, in one byte. */
export const sleepMark = (session: number, ended: number): number => session * MARK_BASE + ended;
export const sessionOfMark = (mark: number): number => Math.floor(mark / MARK_BASE);
export const endedOfMark = (mark: number): number => mark % MARK_BASE;
const MARK_BASE = 16;

/** How a Pod is marked. */
export const PHASE = { parked: 0, assigned: 1, sleeping: 2 } as const;

/** Bytes of an operator. */
export const OPERATOR = {
  up: 0,
  /** The item of an acknowledgement in flight that no request waits for any more. */
  lateAck: 1,
  /** Whether its Environment is being deleted. */
  deleted: 2,
} as const;
const OPERATOR_BYTES = 3;

/** Bytes of a volume, and of what its operator remembers of it. */
export const VOLUME = {
  object: 0,
  /** The session that it is assigned to. */
  session: 1,
  /** The session whose program ran with it. */
  files: 2,
  /** What the operator's process knows of it (KNOWN). */
  known: 3,
  /** Whether it is marked as unused (MARK). */
  mark: 4,
  /** Whether a program ran with it since it was marked. */
  used: 5,
  /** The session of an assignment that may still take effect. */
  lateAssign: 6,
  /** Whether a mark as unused may still take effect. */
  lateMark: 7,
  /** Whether a deletion may still take effect. */
  lateDelete: 8,
  /** Whether the creation of a Pod for its session may still take effect. */
  latePod: 9,
} as const;
const VOLUME_BYTES = 10;

/** Volumes: more bytes of a Pod, which its turns share. */
export const WITH = {
  /** The volume that it mounts; 0: no Pod is here, only the place for one. */
  volume: 0,
  /** The session that it was made for; 0: any. */
  session: 1,
} as const;
const WITH_BYTES = 2;

/** What an operator's process knows of a volume. */
export const KNOWN = {
  nothing: 0,
  /** It is thought to have no session. */
  unassigned: 1,
  /** Its session is known, or that it is gone. */
  settled: 2,
  /** From here on: a request may still assign it, to session 1 and so on. */
  doubted: 3,
} as const;

export const MARK = { inUse: 0, unused: 1, /** Unused for the time that volumes are kept. */ expired: 2 } as const;

/** States of a work item. */
export const STATE = { queued: 0, starting: 1, active: 2, stopping: 3, stopped: 4 } as const;

/** The object of a Pod or a volume. */
export const OBJECT = {
  none: 0,
  exists: 1,
  /** Deleted, but the shell of the Pod may not have ended, or a Pod mounts the volume. */
  terminating: 2,
} as const;

/** What an operator's process knows of a delivery. A crash resets it to `unknown`. */
export const DELIVERY = {
  /** Not opened, or a line may have been sent: the log shows whether the program started. */
  unknown: 0,
  /** Opened by this process, or the log did not show a start. */
  waiting: 1,
  started: 2,
} as const;

/** What the session container does. */
export const BODY = {
  /** Waits for its key, or in its shell for a line. */
  parked: 0,
  /** Runs, without an answered heartbeat so far. */
  running: 1,
  /** Believes in its lease. */
  holding: 2,
  /** Will exit without a stop. */
  leaving: 3,
  /** Will post a forced stop, then exit. */
  finishing: 4,
  /** The same, after a SIGTERM before its first heartbeat was answered. */
  terminated: 5,
  ended: 6,
  gone: 7,
  /** The turn was not added yet. */
  absent: 8,
} as const;

/** An operator's memory of a claim; a crash resets it to `none`. Finer than `Memory` of src/protocol/claim.ts. */
export const MEMORY = {
  none: 0,
  journaled: 1,
  unanswered: 2,
  /** The item is ours. */
  acked: 3,
  /** lease: Operator: the first heartbeat got no answer. */
  firstLost: 4,
  /** lease: Operator: the first heartbeat was accepted, and the container has not started. */
  leased: 5,
  /** lease: Operator: the operator keeps the lease. */
  beating: 6,
  /** lease: Operator: a heartbeat got no answer. */
  echoLost: 7,
  lost: 8,
  /** The item's last heartbeat was read, and has not changed since. */
  snapshot: 9,
  /** It has changed. */
  outdated: 10,
  /** A heartbeat of ours bought the lease for a stop. */
  fenced: 11,
  /** lease: Operator: no answer for a TTL. */
  silent: 12,
  /** The item may be ours, or another client's. */
  doubted: 13,
  /** Its Secret is deleted, and its Pod must be marked as sleeping. None of our rules allows it. */
  resting: 14,
  /** The item may be ours, or another client's; its last heartbeat was read, and has not changed since. */
  doubtedSnapshot: 15,
  /** It has changed: it is another client's. */
  doubtedOutdated: 16,
} as const;

export type State = Uint8Array;

/** Smaller holders are containers, by their Pod; from here on they are operators. */
const OPERATOR_HOLDER = 128;

export const holderOfPod = (pod: number): number => pod + 1;
export const holderOfOperator = (operator: number): number => OPERATOR_HOLDER + operator;

/** The Pod whose container holds; null: no holder, or an operator. */
export function holdingPod(holder: number): number | null {
  return holder > 0 && holder < OPERATOR_HOLDER ? holder - 1 : null;
}

/** The operator that sends the heartbeats itself; null: no holder, or a container. */
export function holdingOperator(holder: number): number | null {
  return holder >= OPERATOR_HOLDER ? holder - OPERATOR_HOLDER : null;
}

/** Whether the container's program may still act. */
export function isAlive(body: number): boolean {
  return body >= BODY.running && body <= BODY.terminated;
}

/** The offsets in a state of these rules, in bytes. */
export class Layout {
  readonly rules: Rules;
  readonly items: number;
  readonly pods: number;
  readonly operators: number;
  readonly podsAt: number;
  readonly operatorsAt: number;
  readonly isShell: boolean;
  readonly hasTurns: boolean;
  readonly hasVolumes: boolean;
  readonly size: number;
  readonly volumes: number;
  readonly #volumeAt: number;
  readonly #mountAt: number;
  readonly #shellAt: number;
  readonly #turnAt: number;
  readonly #sleepAt: number;
  readonly #turnsOf: number[][] = [];
  readonly #podsOf: number[][] = [];
  readonly #volumesOf: number[][] = [];

  constructor(rules: Rules) {
    this.rules = rules;
    this.items = rules.items;
    this.operators = rules.operators;
    this.pods = rules.operators * rules.pods * rules.turns;
    this.podsAt = ITEM_BYTES * this.items;
    this.operatorsAt = this.podsAt + POD_BYTES * this.pods;
    this.hasVolumes = rules.volumes > 0;
    this.volumes = rules.operators * rules.volumes;
    this.#volumeAt = this.operatorsAt + OPERATOR_BYTES * this.operators;
    this.#mountAt = this.#volumeAt + VOLUME_BYTES * this.volumes;
    this.isShell = rules.parking === "Shell";
    this.#shellAt = this.#mountAt + (this.hasVolumes ? WITH_BYTES * rules.operators * rules.pods : 0);
    this.hasTurns = rules.turns > 1;
    this.#turnAt = this.#shellAt + SHELL_BYTES * this.pods;
    this.#sleepAt = this.#turnAt + TURN_BYTES * this.pods;
    const sleepEnd = this.#sleepAt + SLEEP_BYTES * rules.operators * rules.pods;
    this.size = this.hasTurns ? sleepEnd : this.isShell ? this.#turnAt : this.#shellAt;
    const each = (count: number, owner: number) => Array.from({ length: count }, (_, at) => owner * count + at);
    for (let pod = 0; pod < this.pods; pod += 1) this.#turnsOf.push(each(rules.turns, Math.floor(pod / rules.turns)));
    for (let operator = 0; operator < rules.operators; operator += 1) {
      this.#podsOf.push(each(rules.pods, operator).map((pod) => pod * rules.turns));
      this.#volumesOf.push(each(rules.volumes, operator));
    }
  }

  item(index: number): number {
    return index * ITEM_BYTES;
  }

  pod(index: number): number {
    return this.podsAt + index * POD_BYTES;
  }

  operator(index: number): number {
    return this.operatorsAt + index * OPERATOR_BYTES;
  }

  /** With `parking: Key` these bytes are beyond the state: they read as 0. */
  shell(pod: number): number {
    return this.#shellAt + pod * SHELL_BYTES;
  }

  /** If sessions don't sleep, these bytes are beyond the state, too. */
  turn(pod: number): number {
    return this.#turnAt + pod * TURN_BYTES;
  }

  volume(index: number): number {
    return this.#volumeAt + index * VOLUME_BYTES;
  }

  /** The bytes of the volume that a Pod mounts. Without volumes, they are other bytes. */
  mount(pod: number): number {
    return this.#mountAt + Math.floor(pod / this.rules.turns) * WITH_BYTES;
  }

  /** The bytes that the turns of a Pod share. */
  sleep(pod: number): number {
    return this.#sleepAt + Math.floor(pod / this.rules.turns) * SLEEP_BYTES;
  }

  /** The number of a turn in its Pod, from 1. */
  turnOf(pod: number): number {
    return (pod % this.rules.turns) + 1;
  }

  /** The turns of a Pod; without turns, the Pod. */
  turnsOf(pod: number): readonly number[] {
    return this.#turnsOf[pod] ?? [];
  }

  sessionOf(item: number): number {
    return this.rules.oneSession ? 1 : item + 1;
  }

  operatorOf(pod: number): number {
    return Math.floor(pod / (this.rules.pods * this.rules.turns));
  }

  operatorOfVolume(volume: number): number {
    return Math.floor(volume / this.rules.volumes);
  }

  /** The Pods of an operator, each by its first turn. */
  podsOf(operator: number): readonly number[] {
    return this.#podsOf[operator] ?? [];
  }

  /** The volumes of an operator. */
  volumesOf(operator: number): readonly number[] {
    return this.#volumesOf[operator] ?? [];
  }

  /** The operator on whose side a holder is. */
  sideOf(holder: number): number {
    const pod = holdingPod(holder);
    return pod === null ? holder - OPERATOR_HOLDER : this.operatorOf(pod);
  }

  /** Makes a Pod, or a turn of one, a new one without a claim. With volumes, WITH tells more. */
  park(state: State, pod: number): void {
    const [at, shellAt] = [this.pod(pod), this.shell(pod)];
    state.fill(0, at, at + POD_BYTES);
    state[at + POD.object] = OBJECT.exists;
    if (this.isShell) state.fill(0, shellAt, shellAt + SHELL_BYTES);
    if (!this.hasTurns) return;
    state.fill(0, this.turn(pod), this.turn(pod) + TURN_BYTES);
    if (this.turnOf(pod) > 1) state[at + POD.body] = BODY.absent;
    else state.fill(0, this.sleep(pod), this.sleep(pod) + SLEEP_BYTES);
  }

  /** Makes this place for a Pod, with all of its turns, an empty one. */
  clear(state: State, pod: number): void {
    for (const turn of this.turnsOf(pod)) {
      this.park(state, turn);
      state[this.pod(turn) + POD.object] = OBJECT.none;
      state[this.pod(turn) + POD.body] = BODY.gone;
    }
    if (this.hasVolumes) state.fill(0, this.mount(pod), this.mount(pod) + WITH_BYTES);
  }

  /**
   * All items queued, all Pods parked, all operators up. With volumes, each Pod mounts one without a session, and places
   * for more Pods are empty.
   */
  initial(): State {
    const state = new Uint8Array(this.size);
    for (let pod = 0; pod < this.pods; pod += 1) this.park(state, pod);
    for (let operator = 0; operator < this.operators; operator += 1) {
      state[this.operator(operator) + OPERATOR.up] = 1;
      const volumes = this.volumesOf(operator);
      for (const volume of volumes) {
        state[this.volume(volume) + VOLUME.object] = OBJECT.exists;
        state[this.volume(volume) + VOLUME.known] = KNOWN.unassigned;
      }
      for (const [index, pod] of this.hasVolumes ? this.podsOf(operator).entries() : []) {
        if (index >= volumes.length) this.clear(state, pod);
        else state[this.mount(pod) + WITH.volume] = (volumes[index] ?? 0) + 1;
      }
    }
    return state;
  }

  /** The same, before the first volume is listed or created. */
  empty(): State {
    const state = this.initial();
    for (let volume = 0; volume < this.volumes; volume += 1) {
      state.fill(0, this.volume(volume), this.volume(volume) + VOLUME_BYTES);
    }
    for (let pod = 0; pod < this.pods; pod += this.rules.turns) this.clear(state, pod);
    return state;
  }
}

/** Brings items that no client holds, and shells that do not wait any more, to one normal form. */
export function normalize(layout: Layout, state: State): void {
  if (layout.isShell) for (let pod = 0; pod < layout.pods; pod += 1) normalizeShell(layout, state, pod);
  if (layout.hasTurns) for (let pod = 0; pod < layout.pods; pod += 1) normalizeTurn(layout, state, pod);
  if (layout.hasVolumes) normalizeVolumes(layout, state);
  for (let at = 0; at < layout.podsAt; at += ITEM_BYTES) {
    const is = state[at + ITEM.state];
    if (is !== STATE.queued && is !== STATE.stopped) continue;
    state[at + ITEM.owner] = 0;
    state[at + ITEM.acked] = 0;
    state[at + ITEM.holder] = 0;
    if (is === STATE.stopped) state[at + ITEM.offer] = 0;
  }
}

function normalizeShell(layout: Layout, state: State, pod: number): void {
  const [podAt, at] = [layout.pod(pod), layout.shell(pod)];
  const body = state[podAt + POD.body] ?? 0;
  if (body !== BODY.parked && !isAlive(body)) {
    // If the container runs again, its operator still knows that the program started.
    const isKnown = layout.rules.reruns && state[podAt + POD.record] && state[at + SHELL.delivery] === DELIVERY.started;
    state.fill(0, at, at + SHELL_BYTES);
    if (isKnown) state[at + SHELL.delivery] = DELIVERY.started;
    return;
  }
  // A running program's standard input is /dev/null.
  if (body !== BODY.parked) state[at + SHELL.lines] = state[at + SHELL.sent] = state[at + SHELL.stale] = 0;
  if (state[at + SHELL.assigned] || !state[podAt + POD.object]) state[at + SHELL.lateTouch] = 0;
}

function normalizeTurn(layout: Layout, state: State, pod: number): void {
  const at = layout.pod(pod);
  const body = state[at + POD.body] ?? 0;
  if (!isAlive(body)) state[at + POD.serves] = 0;
  if (state[at + POD.object]) return;
  const [shellAt, turnAt, sleepAt] = [layout.shell(pod), layout.turn(pod), layout.sleep(pod)];
  const mayRun = isAlive(body) || (body === BODY.parked && state[shellAt + SHELL.lines]);
  if (!mayRun) {
    state[at + POD.body] = BODY.gone;
    state.fill(0, shellAt, shellAt + SHELL_BYTES);
    state[turnAt + TURN.past] = 0;
  }
  const files = state[sleepAt + SLEEP.files] ?? 0;
  const lateLock = state[sleepAt + SLEEP.lateLock] ?? 0;
  state.fill(0, sleepAt, sleepAt + SLEEP_BYTES);
  state[sleepAt + SLEEP.lateLock] = lateLock;
  if (mayRunAny(layout, state, pod)) state[sleepAt + SLEEP.files] = files;
}

function normalizeVolumes(layout: Layout, state: State): void {
  let mounted = 0;
  for (let pod = 0; pod < layout.pods; pod += layout.rules.turns) {
    const at = layout.mount(pod);
    const isThere = state[layout.pod(pod) + POD.object] !== OBJECT.none;
    if (isThere) mounted |= 1 << (state[at + WITH.volume] ?? 0);
    else if (!mayRunAny(layout, state, pod)) state.fill(0, at, at + WITH_BYTES);
  }
  for (let volume = 0; volume < layout.volumes; volume += 1) {
    const at = layout.volume(volume);
    // Its Pods keep it until they are gone.
    const isNamed = (mounted & (1 << (volume + 1))) !== 0;
    if (state[at + VOLUME.object] === OBJECT.terminating && !isNamed) state[at + VOLUME.object] = OBJECT.none;
    normalizeVolume(state, at, isNamed);
  }
}

/** @param isNamed whether a Pod names it: then its operator may not know yet that it is gone */
function normalizeVolume(state: State, at: number, isNamed: boolean): void {
  if (state[at + VOLUME.mark] === MARK.inUse) state[at + VOLUME.used] = 0;
  if (state[at + VOLUME.object]) return;
  const [known = 0, session = 0] = [state[at + VOLUME.known], state[at + VOLUME.session]];
  state.fill(0, at, at + VOLUME_BYTES);
  state[at + VOLUME.known] = known;
  if (isNamed) state[at + VOLUME.session] = session;
}

function mayRunAny(layout: Layout, state: State, pod: number): boolean {
  return layout.turnsOf(pod).some((turn) => {
    const body = state[layout.pod(turn) + POD.body] ?? 0;
    return isAlive(body) || (body === BODY.parked && (state[layout.shell(turn) + SHELL.lines] ?? 0) !== 0);
  });
}
