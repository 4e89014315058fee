import {
  BODY,
  DELIVERY,
  holdingOperator,
  holdingPod,
  ITEM,
  isAlive,
  KNOWN,
  type Layout,
  MARK,
  MEMORY,
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
  VOLUME,
  WITH,
} from "./state.ts";
import type { Step } from "./steps.ts";

// Describes a state and a step for the trace of a failure.

export function describeStep({ name, outcome, operator, pod, item, volume = -1, fault }: Step): string {
  const about = [
    operator >= 0 ? `operator ${operator}` : "",
    pod >= 0 ? `pod ${pod}` : "",
    item >= 0 ? `item ${item}` : "",
    volume >= 0 ? `volume ${volume}` : "",
  ];
  const how = outcome === "" || outcome === "ok" ? "" : `: ${outcome}`;
  return `${name} ${about.filter(Boolean).join(", ")}${how}${fault && !name.startsWith("fault") ? " (fault)" : ""}`;
}

export function describeState(layout: Layout, state: State): string {
  return [
    ...each(layout.items, (item) => describeItem(layout, state, item)),
    ...each(layout.pods, (pod) => describePod(layout, state, pod)),
    ...each(layout.volumes, (volume) => describeVolume(layout, state, volume)),
    ...each(layout.operators, (operator) => describeOperator(layout, state, operator)),
  ]
    .filter(Boolean)
    .join("; ");
}

function describeItem(layout: Layout, state: State, item: number): string {
  const at = layout.item(item);
  const offer = state[at + ITEM.offer] ?? 0;
  const held = describeHolder(state[at + ITEM.holder] ?? 0);
  return [
    `item ${item} ${nameOf(STATE, state[at + ITEM.state])}`,
    held && `held by ${held}`,
    offer ? `offered to operator ${offer - 1}` : "",
  ]
    .filter(Boolean)
    .join(" ");
}

function describeHolder(holder: number): string {
  const [pod, operator] = [holdingPod(holder), holdingOperator(holder)];
  if (pod !== null) return `pod ${pod}`;
  return operator === null ? "" : `operator ${operator}`;
}

function describePod(layout: Layout, state: State, pod: number): string {
  const at = layout.pod(pod);
  const body = state[at + POD.body] ?? 0;
  const record = state[at + POD.record] ?? 0;
  const memory = state[at + POD.memory] ?? 0;
  const isLost = !state[at + POD.object] && (isAlive(body) || (layout.isShell && body === BODY.parked));
  return [
    `pod ${pod} ${nameOf(BODY, body)}`,
    isLost ? "(node lost)" : "",
    state[at + POD.object] === OBJECT.terminating ? "(terminating)" : "",
    layout.isShell ? describeShell(layout, state, pod) : "",
    layout.hasTurns ? describeTurn(layout, state, pod) : "",
    layout.hasVolumes && layout.turnOf(pod) === 1 ? describeMount(layout, state, pod) : "",
    record ? `Secret of item ${record - 1}${state[at + POD.key] ? " with key" : ""}` : "",
    memory ? `known: ${nameOf(MEMORY, memory)}` : "",
  ]
    .filter(Boolean)
    .join(" ");
}

function describeShell(layout: Layout, state: State, pod: number): string {
  const at = layout.shell(pod);
  const delivery = state[at + SHELL.delivery] ?? 0;
  return [
    state[at + SHELL.assigned] ? "assigned" : "",
    state[at + SHELL.lateTouch] ? "(touch under way)" : "",
    state[at + SHELL.lines] ? "(line under way)" : "",
    delivery ? `delivery: ${nameOf(DELIVERY, delivery)}` : "",
  ]
    .filter(Boolean)
    .join(" ");
}

function describeTurn(layout: Layout, state: State, pod: number): string {
  const [at, turnAt] = [layout.sleep(pod), layout.turn(pod)];
  const past = state[turnAt + TURN.past] ?? 0;
  const late = (["lateTouch", "lateSleep", "lateDelete", "lateLock"] as const).filter(
    (name) => state[at + SLEEP[name]],
  );
  const ended = state[at + SLEEP.ended] ?? 0;
  const isPod = layout.turnOf(pod) === 1;
  return [
    past & PAST.ran ? "(ran)" : "",
    past & PAST.reran ? "(runs again)" : "",
    state[turnAt + TURN.lock] ? "locked" : "",
    isPod ? `[Pod ${nameOf(PHASE, state[at + SLEEP.phase])}, ended turn ${ended}, ${late.join(", ")}]` : "",
  ]
    .filter(Boolean)
    .join(" ");
}

function describeMount(layout: Layout, state: State, pod: number): string {
  const [volume = 0, session = 0] = [WITH.volume, WITH.session].map((byte) => state[layout.mount(pod) + byte]);
  if (!volume) return "";
  return `with volume ${volume - 1}${session ? `, made for session ${session}` : ""}`;
}

function describeVolume(layout: Layout, state: State, volume: number): string {
  const at = layout.volume(volume);
  const [session, files, known] = [VOLUME.session, VOLUME.files, VOLUME.known].map((byte) => state[at + byte] ?? 0);
  const late = (["lateAssign", "lateMark", "lateDelete", "latePod"] as const).filter(
    (name) => state[at + VOLUME[name]],
  );
  const words = [
    ["gone", "", "being deleted"][state[at + VOLUME.object] ?? 0] ?? "",
    session ? `of session ${session}` : "",
    files ? `with files of session ${files}` : "",
    state[at + VOLUME.mark] ? nameOf(MARK, state[at + VOLUME.mark]) : "",
    state[at + VOLUME.used] ? "used since" : "",
    `known: ${(known ?? 0) < KNOWN.doubted ? nameOf(KNOWN, known) : "in doubt"}`,
    ...late,
  ];
  return `volume ${volume} [${words.filter(Boolean).join(", ")}]`;
}

function describeOperator(layout: Layout, state: State, operator: number): string {
  const at = layout.operator(operator);
  const is = [
    state[at + OPERATOR.up] ? "" : "down",
    state[at + OPERATOR.lateAck] ? "ack under way" : "",
    state[at + OPERATOR.deleted] ? "deleted" : "",
  ].filter(Boolean);
  return is.length === 0 ? "" : `operator ${operator} ${is.join(", ")}`;
}

function nameOf(names: Readonly<Record<string, number>>, value: number | undefined): string {
  return Object.keys(names).find((name) => names[name] === value) ?? String(value);
}

function each(count: number, words: (index: number) => string): string[] {
  return Array.from({ length: count }, (_, index) => words(index));
}
