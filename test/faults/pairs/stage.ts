import { seededRandom } from "../../../simulator/ids.ts";
import { ANNOTATION_SESSION_ID, ANNOTATION_WORKSPACE, LABEL_PHASE } from "../../../src/api/names.ts";
import { NODES, PERSISTENT_VOLUME_CLAIMS, PODS, type Pod } from "../../../src/kube/resource.ts";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import { SLEEP_ENDS } from "../../../src/sleep/sleep-plan.ts";
import { refusal } from "../../sessions/loops/api-server.ts";
import type { KubeRequest } from "../../sessions/loops/kube.ts";
import {
  LoopWorld,
  type LoopWorldOptions,
  NAME,
  NAMESPACE,
  type Operator,
  programOf,
} from "../../sessions/loops/loop-world.ts";
import { TEMPLATE } from "../../sessions/loops/sleepy-world.ts";
import { NEW_SECONDS, type Promised, WAKE_SECONDS } from "./promises.ts";

export const SECOND = 1_000;
export const MINUTE = 60 * SECOND;

/** A Pod as another client sees it. */
interface SeenPod {
  readonly name: string;
  readonly node: string;
  readonly phase: string;
  readonly sessionId: string | undefined;
  readonly volume: string | undefined;
  readonly image: string;
  readonly isGoing: boolean;
  readonly hasEnded: boolean;
}

/** A message of a session: one work item. */
export interface Message {
  readonly id: string;
  readonly sessionId: string;
  /** The Pod or volume that had the session's files when the message came; null: none. */
  files: string | null;
  readonly sentMs: number;
  isServed: boolean;
  /** Whether its session sleeps, so that it needs no room for a Pod. */
  wakes: boolean;
  /** Seconds for which it has waited although nothing held it. */
  waited: number;
}

/** A feature that takes part in this history. */
export interface Active {
  readonly name: string;
  readonly promised: Promised;
  isOn: boolean;
  /** Whether it still holds messages after its end. */
  lingers: () => boolean;
  /** Whether it holds this message now, if it holds only its own. */
  holdsOwn: (message: Message) => boolean;
}

export interface Setting {
  readonly seed: number;
  readonly lease: "Worker" | "Operator";
  readonly hasVolumes: boolean;
  readonly sessions: Record<string, unknown>;
  readonly options: LoopWorldOptions;
  readonly hasRival: boolean;
  readonly hasStandby: boolean;
}

/** The most that sessions may keep waiting after everything has ended. */
const SETTLES_MS = 15 * MINUTE;
/** How long a message must have waited so that its session keeps its files: Berth reads the queue's list that often. */
const KNOWN_MS = 15 * SECOND;
/** How soon the Event about a lost Pod must come. */
const SAID_MS = 20 * SECOND;

/** A cluster with sessions, and what must be true of it at every moment. */
export class Stage {
  readonly setting: Setting;
  readonly world: LoopWorld;
  readonly rival: LoopWorld | null;
  readonly random: () => number;
  readonly active: Active[] = [];
  readonly messages = new Map<string, Message>();
  readonly pods = new Map<string, SeenPod>();
  readonly wrongs: string[] = [];
  /** Pods that fit; and Pods that the quota allows. */
  room = Number.POSITIVE_INFINITY;
  quota = Number.POSITIVE_INFINITY;
  /** Nodes that take no Pods. */
  readonly closed = new Set<string>();
  readonly refusals: ((request: KubeRequest) => void)[] = [];
  /** Whether the node of this Pod does not answer. */
  isSilent: (pod: string) => boolean = () => false;
  /** Pods that this history itself deletes. */
  readonly deleted = new Set<string>();
  /** Whether a program of this image fails now. */
  isBroken: (image: string) => boolean = () => false;
  serving: Operator | null = null;
  standby: Operator | null = null;
  /** Whether another Environment follows the deleted one. */
  recreates = false;
  readonly #operators: Operator[] = [];
  /** Sessions that another cluster has served: their files are in two places. */
  readonly #shared = new Set<string>();
  /** By session: its Pods, those of them that are gone and slept until then, and Events about ends of sleeps. */
  readonly #sleepsOver = new Map<string, { pods: number; slept: number; said: number }>();
  readonly #slept = new Set<string>();
  readonly #unsaid: {
    readonly sessionId: string;
    readonly pod: string;
    readonly atMs: number;
    readonly waits: boolean;
    readonly slept: boolean;
  }[] = [];
  readonly #reasons: {
    readonly sessionId: string;
    readonly reason: string;
    isUsed: boolean;
  }[] = [];
  #starts = 0;
  #rivalStarts = 0;
  #told = 0;
  #newWaited = 0;
  #sleepsCounted = 0;
  #isEnding = false;

  constructor(setting: Setting) {
    this.setting = setting;
    this.random = seededRandom(setting.seed + 1);
    const { hasVolumes } = setting;
    this.world = new LoopWorld({
      seed: setting.seed,
      isFull: () => this.#taking((pod) => pod.node !== "") >= this.room,
      nodeOf: () => this.#openNode(),
      fate: (pod) => this.#fate(pod),
      ...setting.options,
      sessions: {
        ...{ lease: setting.lease, maxConcurrent: 8, maxSleeping: 100, warm: 1, template: TEMPLATE },
        workspace: hasVolumes
          ? { type: "PerSession", claimTemplate: { resources: { requests: { storage: "1Gi" } } }, retainSeconds: 60 }
          : { type: "Pod", sleepSeconds: 1_800 },
        ...setting.sessions,
      },
    });
    const { world } = this;
    // The series of an Environment that is deleted, or served elsewhere, are forgotten.
    const { sleepsEnded } = world.metrics;
    sleepsEnded.inc = () => {
      this.#sleepsCounted += 1;
    };
    for (const name of ["node-1", "node-2"]) world.server.create(NODES, { metadata: { name } });
    world.server.subscribe(({ plural, type, object }) => {
      if (plural === PODS.plural) this.#podChanged(object as Pod, type === "DELETED");
      if (plural === PERSISTENT_VOLUME_CLAIMS.plural && type === "DELETED")
        this.#volumeGone(object.metadata.name ?? "");
    });
    this.rival = setting.hasRival
      ? new LoopWorld({ seed: setting.seed + 2, beside: world, sessions: { lease: setting.lease } })
      : null;
  }

  // --- for features -----------------------------------------------------------------------------------------------

  between(from: number, to: number): number {
    return from + (to - from) * this.random();
  }

  pick<T>(all: readonly [T, ...T[]]): T {
    return all[Math.floor(this.random() * all.length)] ?? all[0];
  }

  at(ms: number, act: () => void): void {
    this.world.clock.setTimer(act, ms);
  }

  /** Changes the spec, if the Environment is there. */
  spec(spec: Record<string, unknown>): void {
    const { environment } = this.world;
    if (environment && !environment.metadata.deletionTimestamp) this.world.patchEnvironment({ spec });
  }

  taint(node: string, spec: Record<string, unknown>): void {
    this.world.server.patch(NODES, "", node, { spec });
  }

  startOperator(standby = false): Operator {
    const operator = this.world.startOperator({ standby });
    const { kube } = operator;
    kube.intercept.push((request) => {
      for (const refuse of this.refusals) refuse(request);
      const isPod = request.verb === "create" && request.plural === "pods" && request.dryRun !== true;
      if (isPod && this.#taking() >= this.quota) throw refusedByQuota();
    });
    kube.nodeAnswers = (pod) => !this.isSilent(pod);
    this.#operators.push(operator);
    return operator;
  }

  /** The next operator serves from now on. */
  serve(): void {
    if (this.standby) {
      this.standby.take();
      this.serving = this.standby;
      this.standby = null;
    } else this.serving = this.startOperator();
    if (this.setting.hasStandby) this.standby = this.startOperator(true);
  }

  cutStreams(isOf: (pod: string) => boolean): void {
    for (const { kube } of this.#operators) kube.cutStreams(isOf);
  }

  /** The number of Pods that take room. */
  #taking(counts: (pod: SeenPod) => boolean = () => true): number {
    return [...this.pods.values()].filter((pod) => !pod.hasEnded && counts(pod)).length;
  }

  get podCount(): number {
    return this.#taking();
  }

  #openNode(): string {
    const open = ["node-1", "node-2"].filter((node) => !this.closed.has(node));
    return open[Math.floor(this.random() * open.length)] ?? "node-2";
  }

  #fate(pod: Pod) {
    const isPlain = programOf(pod) === "Operator";
    const servesMs = this.between(4, 12) * SECOND;
    if (this.isBroken(pod.spec.containers[0]?.image ?? ""))
      return { startError: false, program: "crashes", servesMs: 100 } as const;
    return { startError: false, program: isPlain ? "plain" : "stock", servesMs } as const;
  }

  // --- messages ---------------------------------------------------------------------------------------------------

  /** A message of a session, or of a new one. */
  send(sessionId?: string): Message {
    const id = this.world.enqueue(sessionId === undefined ? {} : { sessionId });
    const of = this.world.api.world.item(id).data.id;
    const message = {
      id,
      sessionId: of,
      files: this.filesOf(of),
      sentMs: this.world.clock.monotonic(),
      isServed: false,
      wakes: false,
      waited: 0,
    };
    this.world.say(`message ${id.slice(-4)} of ${of}: ${message.files ?? "no files"}`);
    this.messages.set(id, message);
    return message;
  }

  /** Where the session's files are, if they are kept: its volume, or the Pod in which it sleeps. */
  filesOf(sessionId: string): string | null {
    if (this.#shared.has(sessionId)) return null;
    if (!this.setting.hasVolumes) return this.sleeperOf(sessionId)?.name ?? null;
    const volumes = this.world.server.list(PERSISTENT_VOLUME_CLAIMS, NAMESPACE);
    const own = volumes.find(({ metadata }) => metadata.annotations?.[ANNOTATION_SESSION_ID] === sessionId);
    return own && !own.metadata.deletionTimestamp ? (own.metadata.name ?? null) : null;
  }

  sleeperOf(sessionId: string): SeenPod | undefined {
    const isIts = (pod: SeenPod) =>
      pod.sessionId === sessionId && pod.phase === "sleeping" && !pod.isGoing && !pod.hasEnded;
    return [...this.pods.values()].find(isIts);
  }

  isOver({ id }: Message): boolean {
    return this.#state(id) === "stopped";
  }

  /** Whether a message of the session waits or runs. */
  isBusy(sessionId: string): boolean {
    return [...this.messages.values()].some((message) => message.sessionId === sessionId && !this.isOver(message));
  }

  #state(id: string): string {
    return this.world.api.world.items.get(id)?.state ?? "stopped";
  }

  /** The message that has waited for these files long enough to keep them. */
  #keeping(files: string): Message | undefined {
    const knownMs = this.world.clock.monotonic() - KNOWN_MS;
    return [...this.messages.values()].find(
      (message) => message.files === files && message.sentMs < knownMs && this.#state(message.id) === "queued",
    );
  }

  // --- what must hold ---------------------------------------------------------------------------------------------

  fail(what: string): void {
    if (this.wrongs.length < 20 && !this.wrongs.includes(what)) {
      this.wrongs.push(what);
      this.world.say(`WRONG ${what}`);
    }
  }

  async pass(seconds = 1): Promise<void> {
    for (let second = 0; second < seconds; second += 1) {
      await this.world.pass(SECOND);
      this.#look();
    }
  }

  /** Lets time pass until the condition holds. */
  async until(what: string, condition: () => boolean, limitMs: number): Promise<boolean> {
    for (let ms = 0; !condition(); ms += SECOND) {
      if (ms >= limitMs) {
        this.fail(`not within ${limitMs / SECOND} s: ${what}`);
        return false;
      }
      await this.pass();
    }
    return true;
  }

  /** Everything is served, also the next message of these sessions, and nothing is left of a deleted Environment. */
  async end(sessions: readonly string[]): Promise<void> {
    const { world, rival } = this;
    const isSettled = () => world.isSettled && (rival?.isSettled ?? true);
    if (!(await this.until("all messages are served", isSettled, SETTLES_MS))) {
      this.fail(this.describe());
      return;
    }
    await this.pass(10);
    for (const sessionId of sessions) this.send(sessionId);
    await this.until("the last messages are served", isSettled, 3 * MINUTE);
    await this.pass(5);
    this.#judgeSleeps();
    this.#isEnding = true;
    world.server.delete(ENVIRONMENTS, NAMESPACE, NAME);
    const isGone = () => !world.environment && this.pods.size + world.claims.length + this.#volumes() === 0;
    await this.until("nothing is left of the deleted Environment", isGone, 3 * MINUTE);
    this.#judgeMessages();
    for (const each of [...world.wrongs, ...world.violations, ...(rival?.wrongs ?? [])]) this.fail(each);
    for (const operator of this.#operators) operator.kill();
  }

  describe(): string {
    const waiting = [...this.messages.values()].filter((message) => !this.isOver(message));
    return `${waiting.map(({ id }) => `${id.slice(-4)} ${this.#state(id)}`).join(", ")}; ${this.world.conditionOf("Ready")?.message}`;
  }

  #volumes(): number {
    return this.world.server.list(PERSISTENT_VOLUME_CLAIMS, NAMESPACE).length;
  }

  #look(): void {
    this.#lookAtEvents();
    this.#lookAtStarts();
    this.#lookAtWaiting();
    this.#lookAtLosses();
    const max = Number(
      this.world.environment?.spec?.["sessions"]?.["maxConcurrent" as never] ?? Number.POSITIVE_INFINITY,
    );
    const running = this.world.node.running.size;
    if (running > max) this.fail(`${running} sessions run with maxConcurrent ${max}`);
    if (!this.recreates || this.world.environment) return;
    this.recreates = false;
    this.world.createEnvironment();
  }

  #lookAtStarts(): void {
    const { starts } = this.world;
    for (; this.#starts < starts.length; this.#starts += 1) {
      const { pod: name, workId } = starts[this.#starts] as (typeof starts)[number];
      const message = this.messages.get(workId);
      const pod = this.pods.get(name);
      if (!message) continue;
      message.isServed ||= !this.isBroken(pod?.image ?? "");
      if (!message.wakes) this.#newWaited = 0;
      const place = this.setting.hasVolumes ? pod?.volume : name;
      this.world.say(`message ${workId.slice(-4)} starts in ${place}`);
      if (!message.files || !pod || message.files === place || this.#shared.has(message.sessionId)) continue;
      const why = this.setting.hasVolumes ? this.#may("losesVolumes") : this.#wasEnded(message.sessionId);
      if (!why)
        this.fail(`session ${message.sessionId} starts in ${place} without its files, which were in ${message.files}`);
    }
    for (const each = this.rival?.starts ?? []; this.#rivalStarts < each.length; this.#rivalStarts += 1) {
      const message = this.messages.get(each[this.#rivalStarts]?.workId ?? "");
      if (!message) continue;
      message.isServed = true;
      this.#newWaited = 0;
      this.#shared.add(message.sessionId);
    }
  }

  #may(what: "losesVolumes"): boolean {
    return this.active.some(({ promised }) => promised[what]);
  }

  #allowed(waits: boolean): string[] {
    return this.active.flatMap(({ promised }) => (waits ? promised.endsWaiting : promised.ends) ?? []);
  }

  /** Whether an Event said that this session's sleep has ended. */
  #wasEnded(sessionId: string): boolean {
    return (
      this.#reasons.some((each) => each.sessionId === sessionId) ||
      this.#unsaid.some((each) => each.sessionId === sessionId)
    );
  }

  #lookAtEvents(): void {
    for (const { told } = this.world; this.#told < told.length; this.#told += 1) {
      const [, sessionId, text] = /^SleepEnded: session (\S+) [^:]*: (.*)$/.exec(told[this.#told] ?? "") ?? [];
      if (sessionId === undefined || text === undefined) continue;
      const [reason] = Object.entries(SLEEP_ENDS).find(([, says]) => text.startsWith(says)) ?? [];
      this.world.say(`sleep of ${sessionId} ended: ${text}`);
      this.#countOf(sessionId).said += 1;
      if (!reason) this.fail(`an Event with an unknown reason: ${told[this.#told]}`);
      else this.#reasons.push({ sessionId, reason, isUsed: false });
    }
  }

  #countOf(sessionId: string): { pods: number; slept: number; said: number } {
    const counted = this.#sleepsOver.get(sessionId) ?? { pods: 0, slept: 0, said: 0 };
    this.#sleepsOver.set(sessionId, counted);
    return counted;
  }

  #podChanged(pod: Pod, isGone: boolean): void {
    const { name = "", labels, annotations, deletionTimestamp } = pod.metadata;
    const before = this.pods.get(name);
    const seen: SeenPod = {
      name,
      node: pod.spec.nodeName ?? "",
      phase: labels?.[LABEL_PHASE] ?? "",
      sessionId: annotations?.[ANNOTATION_SESSION_ID],
      volume: annotations?.[ANNOTATION_WORKSPACE],
      image: pod.spec.containers[0]?.image ?? "",
      isGoing: deletionTimestamp !== undefined,
      hasEnded: ["Succeeded", "Failed"].includes(pod.status?.phase ?? ""),
    };
    if (isGone) this.pods.delete(name);
    else this.pods.set(name, seen);
    const { sessionId } = seen;
    if (sessionId === undefined) return;
    if (seen.phase === "sleeping") this.#slept.add(name);
    if (before?.sessionId === undefined) this.#countOf(sessionId).pods += 1;
    if (isGone && seen.phase === "sleeping") this.#countOf(sessionId).slept += 1;
    const isLost = (of: SeenPod) => of.isGoing || of.phase === "ended" || of.hasEnded;
    const wasLost = before !== undefined && isLost(before);
    if (wasLost || !(isLost(seen) || isGone) || !this.#slept.has(name) || this.setting.hasVolumes) return;
    const waits = this.#keeping(name) !== undefined;
    const slept = seen.phase === "sleeping";
    this.#unsaid.push({ sessionId, pod: name, atMs: this.world.clock.monotonic(), waits, slept });
  }

  #volumeGone(name: string): void {
    const waiting = this.#keeping(name);
    if (waiting && !this.#may("losesVolumes"))
      this.fail(`volume ${name} of session ${waiting.sessionId} is deleted while its message waits`);
    // A message that came a moment before finds no volume.
    for (const message of this.messages.values()) if (message.files === name) message.files = null;
  }

  /** Each Pod with a session's files that is gone needs a reason: the history's own, or an Event with one of the allowed. */
  #lookAtLosses(): void {
    if (this.#isEnding) return;
    for (const lost of [...this.#unsaid]) {
      const { sessionId, pod, atMs, waits, slept } = lost;
      const done = () => this.#unsaid.splice(this.#unsaid.indexOf(lost), 1);
      const said = this.#reasons.find((each) => each.sessionId === sessionId && !each.isUsed);
      if (said) {
        said.isUsed = true;
        done();
        // A Pod is kept for a waiting message as long again as for none.
        const isExpiry = said.reason === (waits ? "Unclaimed" : "Expired");
        if (!isExpiry && !this.#allowed(waits).includes(said.reason))
          this.fail(
            `session ${sessionId}, whose message ${waits ? "waits" : "does not wait"}, loses its Pod ${pod}: ${said.reason}`,
          );
      } else if (this.deleted.has(pod) || (!slept && this.#may("losesVolumes"))) done();
      else if (this.world.clock.monotonic() - atMs > SAID_MS) {
        done();
        this.fail(`the Pod ${pod} with the files of session ${sessionId} is lost, and no Event says why`);
      }
    }
  }

  /** Whether a feature holds this message now. */
  #isHeld(message: Message): boolean {
    return this.active.some(({ promised: { holds }, isOn, lingers, holdsOwn }) => {
      if (holds === undefined) return false;
      return (isOn || lingers()) && (holds === "all" || holdsOwn(message));
    });
  }

  /** How long a message may wait although nothing holds it. */
  #bound(seconds: number): number {
    return Math.max(seconds, ...this.active.map(({ promised }) => promised.boundSeconds ?? 0));
  }

  /** What holds wins over what starts: only the time in which nothing holds a message counts. */
  #lookAtWaiting(): void {
    const { world } = this;
    const items = [...world.api.world.items.values()];
    const busy = items.filter(({ state }) => state !== "queued" && state !== "stopped").length;
    const max = Number(this.setting.sessions["maxConcurrent"] ?? 8);
    const hasPlace = busy < max;
    const pods = [...this.pods.values()].filter(({ isGoing, hasEnded }) => !isGoing && !hasEnded);
    const idle = pods.filter(({ phase, sessionId = "" }) => phase === "sleeping" && !this.isBusy(sessionId));
    const taking = this.#taking();
    const hasRoom =
      taking < Math.min(this.room, this.quota) || idle.length > 0 || pods.some(({ phase }) => phase === "warm");
    let newWaits = false;
    for (const message of this.messages.values()) {
      if (this.#state(message.id) !== "queued" || this.#isHeld(message)) {
        message.waited = 0;
        continue;
      }
      message.wakes = this.sleeperOf(message.sessionId) !== undefined;
      if (!message.wakes) {
        newWaits = true;
        continue;
      }
      message.waited = hasPlace ? message.waited + 1 : 0;
      if (message.waited > this.#bound(WAKE_SECONDS))
        this.fail(
          `the message of sleeping session ${message.sessionId} waits ${this.#bound(WAKE_SECONDS)} s though nothing holds it`,
        );
    }
    this.#newWaited = newWaits && hasPlace && hasRoom ? this.#newWaited + 1 : 0;
    if (this.#newWaited > this.#bound(NEW_SECONDS))
      this.fail(`messages wait ${this.#bound(NEW_SECONDS)} s for a new Pod though there is room: ${this.describe()}`);
  }

  #judgeMessages(): void {
    const starts = new Map<string, number>();
    for (const { workId } of [...this.world.starts, ...(this.rival?.starts ?? [])])
      starts.set(workId, (starts.get(workId) ?? 0) + 1);
    const failed: string[] = [];
    for (const { id, isServed } of this.messages.values()) {
      const { generation, state } = this.world.item(id);
      if ((starts.get(id) ?? 0) > generation)
        this.fail(`item ${id} ran ${starts.get(id)} times and was queued ${generation} times`);
      if (state === "stopped" && !isServed) failed.push(id.slice(-4));
    }
    const most = this.active.reduce((sum, { promised }) => sum + (promised.fails ?? 0), 0);
    if (failed.length > most)
      this.fail(
        `${failed.length} of ${this.messages.size} messages ended without having been served, ${most} may: ${failed.join(", ")}`,
      );
  }

  /** Each sleep ends once, with one Event and one count. */
  #judgeSleeps(): void {
    let all = 0;
    for (const [sessionId, { pods, slept, said }] of this.#sleepsOver) {
      all += said;
      // A session whose Pod ends before it can sleep also gets the Event.
      if (said < slept || said > pods)
        this.fail(`${slept} of ${pods} Pods of session ${sessionId} slept when they went, and ${said} Events say so`);
    }
    if (this.#sleepsCounted !== all)
      this.fail(`${this.#sleepsCounted} ends of sleeps are counted, and ${all} Events say so`);
  }
}

function refusedByQuota(): Error {
  return refusal(403, "Forbidden", 'pods "x" is forbidden: exceeded quota: tight');
}
