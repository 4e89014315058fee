import { LABEL_PHASE } from "../../../src/api/names.ts";
import { MOST_RELEASES } from "../../../src/claims/releases.ts";
import { DEFAULT_TIMING } from "../../../src/core/timing.ts";
import { type KubeObject, PODS, SECRETS, type Secret } from "../../../src/kube/resource.ts";
import { createLogger } from "../../../src/observe/logger.ts";
import { type Journal, readJournal } from "../../../src/protocol/journal.ts";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import type { HttpRequest } from "../../../src/work/http.ts";
import { refusal } from "../../sessions/loops/api-server.ts";
import type { KubeRequest } from "../../sessions/loops/kube.ts";
import { LoopWorld, NAME, NAMESPACE, type Operator } from "../../sessions/loops/loop-world.ts";
import {
  type KubeAnswer,
  kubeRefusal,
  NEVER_MS,
  SERVERS_WORDS,
  slowMs,
  type WorkAnswer,
  workRefusal,
} from "./answers.ts";
import { KUBE_ROWS, kubeCallOf, type Row, SLEEPING, WORK_ROWS } from "./calls.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;

export type Lease = "Worker" | "Operator";

/** One cell of the matrix. If `answer` is null, the same world runs without a fault. */
export interface Cell {
  readonly api: "kube" | "work";
  readonly call: string;
  readonly answer: KubeAnswer | WorkAnswer | null;
  readonly lease: Lease;
}

/** The outcome of a cell. */
export interface Result {
  /** Requests that the fault hit. */
  readonly hits: number;
  /** Expectations that did not hold, each with what was observed. */
  readonly failures: readonly string[];
  /** Calls that the operator sent, by row name. */
  readonly sent: ReadonlySet<string>;
  readonly log: readonly string[];
}

/** How long a fault lasts. */
const FAULT_MS = 30 * MINUTE;
/** Seconds between new items during the fault. */
const ARRIVAL_SECONDS = 90;
const FIRST_ITEMS = 6;
const MAX_CONCURRENT = 4;
/** The number of sessions to which returning items belong. */
const SESSIONS = 4;
const WARM = 1;
const SERVES_MS = 40 * SECOND;
const RETAIN_SECONDS = 30;

/** A problem must be visible this long after it began. Writing the status takes a little longer. */
const TOLD_MS = 60 * SECOND;
const WRITTEN_MS = 6 * SECOND;
/**
 * If every request is answered, only the lack of progress shows. The operator waits this long before it reports that.
 */
const NO_PROGRESS_MS = 120 * SECOND;
/** A request without an answer fails after this timeout. */
const TIMEOUT_MS = 30 * SECOND;
/** A problem that blocks something this long must be reported, however rarely the operator retries the failing call. */
const LONG_MS = 180 * SECOND;

/** Longer than the longest pause between two attempts. */
const LULL_MS = 60 * SECOND;

/**
 * After the fix, everything must be served and settled within this time; longer if a documented pause may have just
 * begun.
 */
const RECOVERY_MS = 10 * MINUTE;

/** Limits for requests of the failing call: within a minute at the start, and within half an hour. */
const MAX_PER_MINUTE = 150;
const MAX_IN_ALL = 1_800;
/** A limit for all calls to one of the two APIs. A world without faults needs about a third. */
const MAX_ALL_PER_MINUTE = 400;

/**
 * Limit for acknowledgements without a session, over all items: those in flight when the fault begins, the
 * three after which starts count as failing, and probes.
 */
const MAX_IN_VAIN = 13;

/** Runs one cell. */
export async function runCell(cell: Cell, seed: number): Promise<Result> {
  const run = new CellRun(cell, seed);
  try {
    return await run.play();
  } finally {
    run.end();
  }
}

class CellRun {
  readonly #cell: Cell;
  readonly #row: Row;
  readonly #world: LoopWorld;
  readonly #operator: Operator;
  readonly #blockedReasons: BlockedWork;
  readonly #failures: string[] = [];
  readonly #sent = new Set<string>();
  #on = false;
  #hits = 0;
  /** By subject of the failing requests: when the current series of hits without a lull began, and the last hit. */
  readonly #hitMs = new Map<string, { sinceMs: number; lastMs: number }>();
  /** Requests of the failing call, and of each API, by minute since the fault began. */
  readonly #matching = new Map<number, number>();
  readonly #all = new Map<string, number>();
  #begunMs = 0;
  /** When the log first reported the fault. */
  #loggedMs: number | null = null;
  #started = 0;
  #mostRunning = 0;
  #acks = 0;
  #markers = 0;
  #sessions: string[] = [];

  constructor(cell: Cell, seed: number) {
    this.#cell = cell;
    const row = (cell.api === "kube" ? KUBE_ROWS : WORK_ROWS)[cell.call];
    if (!row) throw new TypeError(`no row ${cell.call}`);
    this.#row = row;
    this.#world = new LoopWorld({
      seed,
      writesEvents: true,
      sessions: {
        lease: cell.lease,
        maxConcurrent: MAX_CONCURRENT,
        warm: WARM,
        parkedMaxAgeSeconds: 300,
        retainEndedSeconds: RETAIN_SECONDS,
        retainFailedSeconds: RETAIN_SECONDS,
        ...row.sessions,
      },
      ...(row.prepareSeconds === undefined ? {} : { prepareMs: () => (row.prepareSeconds ?? 0) * SECOND }),
      fate: () => {
        this.#started += 1;
        // One in three dies silently, so that the operator has to settle its item.
        const program = cell.lease === "Operator" ? "plain" : this.#started % 3 === 0 ? "dies" : "stock";
        return { startError: false, program, servesMs: SERVES_MS };
      },
    });
    this.#blockedReasons = new BlockedWork(this.#world);
    this.#world.createEnvironment();
    const logger = createLogger("info", { write: (line) => this.#logged(line) });
    this.#operator = this.#world.startOperator({ logger });
    this.#inject();
  }

  async play(): Promise<Result> {
    const { begin = "busy" } = this.#row;
    const world = this.#world;
    const warm = Number(this.#row.sessions?.["warm"] ?? WARM);
    if (begin === "start") this.#begin();
    else await world.until("the warm Pods", () => world.parked.length >= warm);
    if (begin === "idle") {
      await world.pass(2 * MINUTE);
      this.#begin();
    }
    for (let n = 0; n < FIRST_ITEMS; n += 1) this.#enqueue();
    if (begin === "busy") {
      await world.until(
        "work waits and sessions run",
        () => world.node.running.size >= 2 && world.items.some(({ state }) => state === "queued"),
      );
      this.#begin();
    }
    this.#row.first?.(world);
    await this.#watch();
    this.#on = false;
    await this.#recovers();
    this.#judgeRequests();
    this.#judgeItems();
    await this.#isDeleted();
    const wrongs = [...world.wrongs, ...world.violations];
    if (wrongs.length > 0) this.#fail(`wrong: ${wrongs.slice(0, 3).join("; ")} (${wrongs.length})`);
    if (this.#cell.answer !== null && this.#hits === 0) this.#fail("the fault never hit a request");
    return { hits: this.#hits, failures: this.#failures, sent: this.#sent, log: world.log };
  }

  end(): void {
    this.#operator.kill();
  }

  #fail(what: string): void {
    this.#failures.push(what);
  }

  #enqueue(): void {
    const { comesBack = false } = this.#row;
    const sessionId = comesBack && this.#sessions.length >= SESSIONS ? this.#sessions.shift() : undefined;
    const id = this.#world.enqueue(sessionId === undefined ? {} : { sessionId });
    if (comesBack) this.#sessions.push(this.#world.api.world.item(id).data.id);
  }

  // --- the fault --------------------------------------------------------------------------------------------------

  #begin(): void {
    this.#begunMs = this.#world.clock.monotonic();
    this.#on = this.#cell.answer !== null;
    const [verb, plural = ""] = this.#cell.call.split(" ");
    if (this.#on && (verb === "list" || verb === "watch")) this.#operator.kube.breakWatches(plural);
    this.#world.say(`fault ${this.#cell.api} ${this.#cell.call} ${this.#cell.answer}`);
  }

  #inject(): void {
    const { kube } = this.#operator;
    const { api } = this.#world;
    kube.sent = (request) => {
      const call = kubeCallOf(request);
      this.#sent.add(call);
      this.#count("kube", call);
    };
    kube.intercept.push((request) => this.#refuseKube(request));
    kube.delay = (request) => (this.#hitsKube(request, "none") ? NEVER_MS : 0);
    kube.answerDelay = (request) => (this.#hitsKube(request, "lost") ? NEVER_MS : 0);
    kube.loses = (what) => what === "marker" && this.#losesMarker();
    const isOperators = ({ headers }: HttpRequest) => headers["anthropic-worker-id"] !== undefined;
    api.delay = (call, request) => {
      if (!isOperators(request)) return 0;
      this.#sent.add(call);
      this.#count("work", call);
      if (this.#hitsWork(call, request, "none")) return NEVER_MS;
      return this.#hitsWork(call, request, "slow") ? slowMs(call).requestMs : 0;
    };
    api.answerDelay = (call, request) => {
      if (!isOperators(request)) return 0;
      if (this.#hitsWork(call, request, "lost") || this.#losesAck(call)) return NEVER_MS;
      return this.#is("work", call) && this.#cell.answer === "slow" ? slowMs(call).answerMs : 0;
    };
    api.answer = (call, request) => {
      const { answer } = this.#cell;
      if (answer === null || !Number(answer) || !isOperators(request) || !this.#is("work", call)) return undefined;
      this.#hit(itemOf(call, request));
      return workRefusal(answer as WorkAnswer);
    };
  }

  #is(api: Cell["api"], call: string): boolean {
    return this.#on && this.#cell.api === api && this.#cell.call === call;
  }

  #hit(subject: string): void {
    const nowMs = this.#world.clock.monotonic();
    this.#hits += 1;
    const before = this.#hitMs.get(subject);
    const sinceMs = before && nowMs <= before.lastMs + LULL_MS ? before.sinceMs : nowMs;
    this.#hitMs.set(subject, { sinceMs, lastMs: nowMs });
  }

  /** When the longest of the current failures began; Infinity if there is none. */
  #failingSinceMs(nowMs: number): number {
    const now = [...this.#hitMs.values()].filter(({ lastMs }) => nowMs <= lastMs + LULL_MS);
    return Math.min(Number.POSITIVE_INFINITY, ...now.map(({ sinceMs }) => sinceMs));
  }

  #hitsKube(request: KubeRequest, answer: KubeAnswer): boolean {
    // A watch has no effect that could happen without its answer.
    const given = request.verb === "watch" && this.#cell.answer === "lost" ? "none" : this.#cell.answer;
    const hits = given === answer && this.#is("kube", kubeCallOf(request));
    if (hits) this.#hit(subjectOf(request));
    return hits;
  }

  #hitsWork(call: string, request: HttpRequest, answer: WorkAnswer): boolean {
    const hits = this.#cell.answer === answer && this.#is("work", call);
    if (hits) this.#hit(itemOf(call, request));
    return hits;
  }

  /** Whether this is one of the lost acknowledgements: one in three. */
  #losesAck(call: string): boolean {
    if (!this.#row.losesAcks || call !== "ack") return false;
    this.#acks += 1;
    return this.#acks % 3 === 0;
  }

  /** Whether this is one of the lost markers: one in two. */
  #losesMarker(): boolean {
    if (!this.#row.losesMarkers) return false;
    this.#markers += 1;
    return this.#markers % 2 === 0;
  }

  #refuseKube(request: KubeRequest): void {
    const { answer, call } = this.#cell;
    // The operator relists when the history that a watch needs is gone.
    if (request.verb === "watch" && this.#is("kube", `list ${request.plural}`)) {
      throw refusal(410, "Expired", "too old resource version");
    }
    if (answer === null || !Number(answer) || !this.#is("kube", kubeCallOf(request))) return;
    this.#hit(subjectOf(request));
    throw kubeRefusal(answer as KubeAnswer, { ...request, verb: call.split(" ")[0] ?? "" });
  }

  #count(api: Cell["api"], call: string): void {
    if (!this.#on) return;
    const minute = Math.floor((this.#world.clock.monotonic() - this.#begunMs) / MINUTE);
    const key = `${api} ${minute}`;
    this.#all.set(key, (this.#all.get(key) ?? 0) + 1);
    if (this.#is(api, call)) this.#matching.set(minute, (this.#matching.get(minute) ?? 0) + 1);
  }

  #logged(line: string): void {
    if (!this.#on || this.#hits === 0) return;
    if (isAbout(line)) this.#loggedMs ??= this.#world.clock.monotonic();
  }

  // --- while it lasts ---------------------------------------------------------------------------------------------

  /**
   * Lets the time of the fault pass, and checks every second what the fault blocks and whether the operator reports it.
   */
  async #watch(): Promise<void> {
    const world = this.#world;
    const endMs = this.#begunMs + FAULT_MS;
    const arrivalMs = (this.#row.arrivalSeconds ?? ARRIVAL_SECONDS) * SECOND;
    let nextItemMs = world.clock.monotonic() + arrivalMs;
    let unreportedSeconds = 0;
    let blockedSeconds = 0;
    let first = "";
    const secondsByEffect = new Map<string, number>();
    const ready: string[] = [];
    while (world.clock.monotonic() < endMs) {
      await this.#pass();
      this.#row.always?.(world);
      const nowMs = world.clock.monotonic();
      if (nowMs >= nextItemMs) {
        nextItemMs += arrivalMs;
        this.#enqueue();
      }
      const seen = readyOf(world);
      if (ready.at(-1)?.endsWith(seen) !== true)
        ready.push(`+${Math.round((nowMs - this.#begunMs) / SECOND)}s ${seen}`);
      const what = this.#blockedReasons.look(nowMs);
      const isDue =
        nowMs >= this.#failingSinceMs(nowMs) + this.#reportLimitMs || this.#blockedReasons.lastedMs >= LONG_MS;
      if (what === null || this.#hits === 0 || !isDue) continue;
      blockedSeconds += 1;
      secondsByEffect.set(what, (secondsByEffect.get(what) ?? 0) + 1);
      if (this.#isReported()) {
        continue;
      }
      if (unreportedSeconds === 0) first = `+${Math.round((nowMs - this.#begunMs) / SECOND)}s`;
      unreportedSeconds += 1;
    }
    const blocked = [...secondsByEffect].map(([what, seconds]) => `${what} ${seconds} s`).join(", ");
    const story = () => `${blocked}; Ready: ${shortened(ready)}; Events: ${shortened(world.told.filter(isAbout))}`;
    if (this.#cell.answer === null && blockedSeconds > 0) this.#fail(`blocked without a fault: ${story()}`);
    const turns = ready.filter((each, at) => at > 0 && isTrue(each) !== isTrue(ready[at - 1])).length;
    if (turns > MOST_TURNS) this.#fail(`Ready turned ${turns} times: ${story()}`);
    // A condition may change for a moment, while a probe is in flight or the first Pod that avoids the fault is prepared.
    if (unreportedSeconds > FLICKER_S)
      this.#fail(`not told for ${unreportedSeconds} of ${blockedSeconds} s, first at ${first}: ${story()}`);
    // A single refusal or a conflict is not reported: only the request metric counts it, which this world does not
    // have.
    const isNews = this.#hits > 2 && this.#cell.answer !== "409";
    if (blockedSeconds === 0 && isNews && !this.#isRecorded)
      this.#fail(`no trace in log, Events or metrics: ${story()}`);
  }

  get #reportLimitMs(): number {
    const { answer } = this.#cell;
    if (answer === "slow") return WRITTEN_MS + NO_PROGRESS_MS;
    return WRITTEN_MS + TOLD_MS + (answer === "none" || answer === "lost" ? TIMEOUT_MS : 0);
  }

  /** Whether a user who looks at the Environment now can see that something is wrong, and what. */
  #isReported(): boolean {
    const condition = this.#world.conditionOf("Ready");
    const { says = "" } = this.#row;
    // If every request is answered in time, there is no error message to repeat.
    const expected = this.#cell.answer === "slow" ? NO_PROGRESS : says;
    if (condition && condition.status !== "True") {
      if (isAbout(condition.message) || (expected !== "" && condition.message.includes(expected))) return true;
    }
    const { told } = this.#world;
    // The session of one item is lost, and the Environment serves the others.
    if (this.#row.isOnlyCounted && says !== "" && told.some((words) => words.includes(says))) return true;
    return this.#row.silencesStatus === true && (this.#loggedMs !== null || told.some(isAbout));
  }

  /** Whether the operator recorded a fault that blocks nothing. */
  get #isRecorded(): boolean {
    if (this.#row.isOnlyCounted || HAVE_THEIR_EFFECT.has(this.#cell.answer ?? "")) return true;
    const { says = "" } = this.#row;
    const { told } = this.#world;
    return this.#loggedMs !== null || told.some((words) => isAbout(words) || (says !== "" && words.includes(says)));
  }

  // --- after it ---------------------------------------------------------------------------------------------------

  async #recovers(): Promise<void> {
    const world = this.#world;
    const fixedMs = world.clock.monotonic();
    const reasons = ["SessionsStarting", "Authenticated"].map((type) => world.conditionOf(type)?.reason);
    const pauses = [
      reasons.includes("StartsFailing") ? DEFAULT_TIMING.probeMaxMs : 0,
      reasons.includes("KeyRejected") ? DEFAULT_TIMING.rejectedKeyRetryMs : 0,
    ];
    const boundMs = RECOVERY_MS + Math.max(...pauses);
    const isOver = () => world.isSettled && world.conditionOf("Ready")?.status === "True";
    if (!(await this.#within(isOver, boundMs))) {
      this.#fail(`not served ${boundMs / MINUTE} min after the fix: ${this.#left()}`);
      return;
    }
    world.say(`settled ${Math.round((world.clock.monotonic() - fixedMs) / SECOND)} s after the fix`);
    const id = world.enqueue();
    if (!(await this.#within(() => world.starts.some(({ workId }) => workId === id), MINUTE))) {
      this.#fail(`a session that comes after the fix does not start within a minute: ${this.#left()}`);
    }
    if (!(await this.#within(() => world.isSettled, 5 * MINUTE)))
      this.#fail(`its item is not settled: ${this.#left()}`);
  }

  async #isDeleted(): Promise<void> {
    const world = this.#world;
    world.server.delete(ENVIRONMENTS, NAMESPACE, NAME);
    const isGone = () => !world.environment && world.claims.length === 0 && world.pods.length === 0;
    if (!(await this.#within(isGone, 3 * MINUTE))) this.#fail(`not gone after its deletion: ${this.#left()}`);
  }

  async #within(condition: () => boolean, limitMs: number): Promise<boolean> {
    const endMs = this.#world.clock.monotonic() + limitMs;
    while (!condition()) {
      if (this.#world.clock.monotonic() >= endMs) return false;
      await this.#pass();
    }
    return true;
  }

  async #pass(): Promise<void> {
    await this.#world.pass(SECOND);
    this.#mostRunning = Math.max(this.#mostRunning, this.#world.node.running.size);
  }

  #left(): string {
    const { items, claims, pods, node } = this.#world;
    const states = new Map<string, number>();
    for (const { state } of items) states.set(state, (states.get(state) ?? 0) + 1);
    const counts = [...states].map(([state, count]) => `${count} ${state}`).join(", ");
    return `items ${counts}; ${claims.length} claims, ${pods.length} Pods, ${node.running.size} containers; ${readyOf(this.#world)}`;
  }

  #judgeRequests(): void {
    const most = Math.max(0, ...this.#matching.values());
    const total = [...this.#matching.values()].reduce((sum, count) => sum + count, 0);
    const mostOf = (api: string) =>
      Math.max(0, ...[...this.#all].filter(([key]) => key.startsWith(api)).map(([, count]) => count));
    const isRefused = Number(this.#cell.answer) >= 400;
    if (most > MAX_PER_MINUTE || total > ((isRefused ? this.#row.most : undefined) ?? MAX_IN_ALL)) {
      const last = this.#matching.get(FAULT_MS / MINUTE - 2) ?? 0;
      this.#fail(`${most} requests of it within a minute (${total} in all, ${last} in the last one)`);
    }
    for (const api of ["kube", "work"]) {
      if (mostOf(api) > MAX_ALL_PER_MINUTE) this.#fail(`${mostOf(api)} requests to ${api} within a minute`);
    }
  }

  #judgeItems(): void {
    const world = this.#world;
    const { items } = world;
    const starts = new Map<string, number>();
    for (const { workId } of world.starts) starts.set(workId, (starts.get(workId) ?? 0) + 1);
    // The server queues an item again when its lease lapses, so the item may run again.
    const twice = items.filter(({ id, generation }) => (starts.get(id) ?? 0) > generation);
    if (twice.length > 0) this.#fail(`${twice.length} items ran more often than they were queued`);
    const vain = items.map(({ id, acks }) => {
      const started = starts.get(id) ?? 0;
      // An item that ran as often as it may is claimed only to be stopped.
      return started === MOST_RELEASES ? 0 : acks.length - started;
    });
    const inVain = vain.reduce((sum, count) => sum + count, 0);
    if (inVain > MAX_IN_VAIN) this.#fail(`${inVain} acknowledgements in vain, ${Math.max(...vain)} of one item`);
    const eaten = items.filter(({ id, state }) => state === "stopped" && !starts.has(id)).length;
    if (eaten > MAX_IN_VAIN) this.#fail(`${eaten} of ${items.length} items were stopped without a session`);
    // Pods that wake may appear beside free Pods, which are then removed.
    const woken = this.#row.sessions === SLEEPING ? MAX_CONCURRENT : 0;
    if (world.maxLivePods > MAX_CONCURRENT + 1 + woken)
      this.#fail(`${world.maxLivePods} Pods at maxConcurrent ${MAX_CONCURRENT}`);
    if (this.#mostRunning > MAX_CONCURRENT)
      this.#fail(`${this.#mostRunning} sessions ran at maxConcurrent ${MAX_CONCURRENT}`);
  }
}

/** Limit for status changes of `Ready`: each claim has its own patience, and about 25 come in half an hour. */
const MOST_TURNS = 50;

/** Whether a recorded line of `Ready` has status True. */
function isTrue(said: string | undefined): boolean {
  return said?.includes("s True ") === true;
}

/** The object that a request is retried for. Created objects have a new name each time. */
function subjectOf({ verb, name }: KubeRequest): string {
  return verb === "create" ? "" : name;
}

/**
 * The item that a call is repeated for. The operator does not retry an item that it can't acknowledge, but tries the
 * next one.
 */
function itemOf(call: string, { path }: HttpRequest): string {
  return call === "heartbeat" || call === "stop" ? (path.split("?")[0] ?? "") : "";
}

/** Answers with which the request takes effect anyway. */
const HAVE_THEIR_EFFECT: ReadonlySet<string> = new Set(["slow", "lost"]);

/** Total seconds for which `Ready` may turn back. */
const FLICKER_S = 20;

const NO_PROGRESS = "Berth acknowledges nothing";

const WORDS = [
  SERVERS_WORDS,
  "come too late to be acknowledged",
  "another client sent a heartbeat",
  "no answer",
  "no complete answer",
  "timeout",
  "time-out",
  "not get the request in time",
];

/** Whether a text reports the fault, with the server's message or as a missing answer. */
function isAbout(text: string): boolean {
  return WORDS.some((words) => text.includes(words));
}

function readyOf(world: LoopWorld): string {
  const condition = world.conditionOf("Ready");
  return condition ? `${condition.status} ${condition.reason} (${condition.message.slice(0, MESSAGE)})` : "no Ready";
}

const MESSAGE = 220;

function shortened(texts: readonly string[]): string {
  const shown = texts.length > 6 ? [...texts.slice(0, 4), `... ${texts.length - 6} more`, ...texts.slice(-2)] : texts;
  return shown.map((text) => text.slice(0, MESSAGE + 60)).join(" | ") || "none";
}

const POD_IS_LEFT = "a Pod is left";

/** The effects that show what a fault blocks, once they have lasted a minute. */
class BlockedWork {
  readonly #world: LoopWorld;
  readonly #sinceMs = new Map<string, number>();
  /** Live objects by uid. The server's lists are copies, which are too expensive to make every second. */
  readonly #pods = new Map<string, KubeObject>();
  readonly #claims = new Map<string, Journal>();

  constructor(world: LoopWorld) {
    this.#world = world;
    world.server.subscribe(({ plural, type, object }) => {
      const { uid = "" } = object.metadata;
      const journal = plural === SECRETS.plural ? readJournal(object as Secret) : null;
      if (plural === PODS.plural) this.#pods.set(uid, object);
      if (journal) this.#claims.set(uid, journal);
      if (type !== "DELETED") return;
      this.#pods.delete(uid);
      this.#claims.delete(uid);
    });
  }

  /** How long the effect that `look` returned has lasted. */
  lastedMs = 0;

  /** The longest-lasting effect, of at least a minute; null if nothing is blocked. */
  look(nowMs: number): string | null {
    this.lastedMs = 0;
    const now = new Set(this.#now());
    for (const what of this.#sinceMs.keys()) if (!now.has(what)) this.#sinceMs.delete(what);
    for (const what of now) if (!this.#sinceMs.has(what)) this.#sinceMs.set(what, nowMs);
    for (const [what, sinceMs] of [...this.#sinceMs].sort(([, x], [, y]) => x - y)) {
      const graceMs = what.startsWith(POD_IS_LEFT) ? (RETAIN_SECONDS + 30) * SECOND : 0;
      if (nowMs - sinceMs < TOLD_MS + graceMs) continue;
      this.lastedMs = nowMs - sinceMs;
      return what.split(":")[0] ?? what;
    }
    return null;
  }

  *#now(): Iterable<string> {
    const world = this.#world;
    const running = new Set([...world.node.running].map(({ workId }) => workId));
    const live = [...world.api.world.items.values()].filter(({ state }) => state !== "stopped");
    const taken = new Set(live.filter(({ state }) => state !== "queued").map(({ data }) => data.id));
    const waits = live.some(({ state, data }) => state === "queued" && !taken.has(data.id));
    if (waits && running.size < MAX_CONCURRENT) yield "work waits beside a free place";
    for (const { id, state } of live) {
      if (state !== "queued" && !running.has(id)) yield `an item is ${state} without a container:${id}`;
    }
    for (const [uid, journal] of this.#claims) {
      const isOver = journal.use === "removal" || world.api.world.items.get(journal.workId)?.state === "stopped";
      if (isOver && !running.has(journal.workId)) yield `a claim's Secret is left:${uid}`;
    }
    const runs = new Set([...world.node.running].map(({ pod }) => pod));
    for (const { metadata } of this.#pods.values()) {
      const name = metadata.name ?? "";
      const phase = metadata.labels?.[LABEL_PHASE];
      if (phase !== "warm" && phase !== "sleeping" && !runs.has(name)) yield `${POD_IS_LEFT}:${name}`;
    }
  }
}
