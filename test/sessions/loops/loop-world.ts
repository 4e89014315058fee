import { setImmediate as macrotask } from "node:timers/promises";
import { seededRandom } from "../../../simulator/ids.ts";
import { type ItemRecord, recordOf } from "../../../simulator/item.ts";
import { violationText } from "../../../simulator/violations.ts";
import { DEFAULT_RUNTIME_CLASSES } from "../../../src/api/isolation.ts";
import {
  ANNOTATION_ASSIGNED_AT,
  ANNOTATION_LEASE,
  ANNOTATION_SESSION_ID,
  ANNOTATION_WORKSPACE,
  API_VERSION,
  KEY_WORK_SECRET,
  KIND,
  LABEL_PHASE,
} from "../../../src/api/names.ts";
import { END_REASONS } from "../../../src/api/reasons.ts";
import { Controller } from "../../../src/controller/controller.ts";
import type { Random } from "../../../src/core/backoff.ts";
import { type PointObserver, pointsOf } from "../../../src/core/points.ts";
import { DEFAULT_TIMING, type Timing } from "../../../src/core/timing.ts";
import { LeadershipLostError } from "../../../src/kube/errors.ts";
import { EventRecorder } from "../../../src/kube/events.ts";
import {
  type KubeObject,
  PERSISTENT_VOLUME_CLAIMS,
  PODS,
  type Pod,
  SECRETS,
  type Secret,
} from "../../../src/kube/resource.ts";
import { createLogger, type Logger, silentLogger } from "../../../src/observe/logger.ts";
import { createMetrics } from "../../../src/observe/metrics.ts";
import { readPodState } from "../../../src/pods/pod-state.ts";
import { podOfSlot, slotName, slotOf, turnNumber } from "../../../src/pods/turns.ts";
import { allowancesFor, policyOf } from "../../../src/policy/pod-policy.ts";
import { CLAIM_SECRET_TYPE, readJournal } from "../../../src/protocol/journal.ts";
import type { Hints } from "../../../src/queue/hints.ts";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import type { Budget } from "../../../src/work/budget.ts";
import { WorkApiClient } from "../../../src/work/client.ts";
import { VirtualClock } from "../../support/virtual-clock.ts";
import { ApiServer } from "./api-server.ts";
import { type AttachWeather, FAIR_ATTACH } from "./attach-stream.ts";
import type { Running } from "./container.ts";
import { type ContainerRef, FakeKube, type WatchWeather } from "./kube.ts";
import type { KubeletPodParts } from "./kubelet-pod.ts";
import { FAIR, Link, ProcessClock, type Weather } from "./network.ts";
import { Node } from "./node.ts";
import { BASE_URL, WorkApi } from "./work-api.ts";

export const NAMESPACE = "agents";
export const NAME = "research";

/** Everything in this world waits only for promises and virtual timers, so one round of the event loop settles it. */
class QuickClock extends VirtualClock {
  override async settle(): Promise<void> {
    await macrotask();
  }
}

/** The network weather of a world. A test changes it while it runs. */
export interface WorldWeather {
  kube: Weather;
  work: Weather;
  worker: Weather;
  watch: WatchWeather;
  attach: AttachWeather;
}

export interface LoopWorldOptions {
  readonly seed?: number;
  readonly sessions?: Record<string, unknown>;
  readonly spec?: Record<string, unknown>;
  readonly switches?: Record<string, unknown>;
  readonly limits?: Record<string, unknown>;
  readonly timing?: Partial<Timing>;
  /** Called with every point that an operator of this world passes. */
  readonly points?: PointObserver;
  readonly fate?: KubeletPodParts["fate"];
  readonly prepareMs?: (pod: Pod) => number;
  readonly isFull?: KubeletPodParts["isFull"];
  readonly nodeOf?: KubeletPodParts["nodeOf"];
  readonly turnFault?: KubeletPodParts["turnFault"];
  /** Puts this world's operators on the queue of that world, as another cluster. */
  readonly beside?: LoopWorld;
  /** Shares the Work API of another Environment, with a separate queue. */
  readonly api?: WorkApi;
  readonly clock?: VirtualClock;
  /** The budget that counts requests. Without one, every request is sent at once. */
  readonly budget?: Budget;
  /** The tenant whose turns in the budget this world takes. Default: the empty tenant. */
  readonly tenant?: string;
  /** Webhook hints for every operator of this world. */
  readonly hints?: Hints;
  /** Namespaces that operators serve. Default: only NAMESPACE. */
  readonly namespaces?: readonly string[];
  /** The number of shards. Each operator serves all of them. */
  readonly shards?: number;
  /** Whether Events are written to the API server, in addition to `told`. */
  readonly writesEvents?: boolean;
}

/** One operator: a controller with its own links, which a test can kill or stop. */
export interface Operator {
  readonly kube: FakeKube;
  readonly clock: ProcessClock;
  /** Ends the process in the middle of its work. */
  kill(): void;
  /** Sends SIGTERM. Resolves when everything has ended. */
  stop(): Promise<void>;
  /** Begins to hold all shards, for an operator that started as a standby or that gave them up. */
  take(): void;
  /** Gives up all shards, and runs on. Resolves when everything that acts for them has ended. */
  leave(): Promise<unknown>;
  /** Makes every guarded call throw. */
  loseLeadership(): void;
}

/** The whole controller on fakes: a cluster, a Work API, a node and operators on a virtual clock. */
export class LoopWorld {
  readonly clock: VirtualClock;
  readonly random: Random;
  readonly server: ApiServer;
  readonly api: WorkApi;
  readonly node: Node;
  readonly environmentId: string;
  readonly weather: WorldWeather = {
    kube: FAIR,
    work: FAIR,
    worker: FAIR,
    watch: { lagMs: 30, breaks: 0 },
    attach: FAIR_ATTACH,
  };
  readonly metrics = createMetrics();
  readonly told: string[] = [];
  /** Containers that started, in order. */
  readonly starts: { readonly pod: string; readonly container: string; readonly workId: string }[] = [];
  /** Violations of invariants that the world detected. */
  readonly wrongs: string[] = [];
  readonly log: string[] = [];
  fate: KubeletPodParts["fate"];
  /**
   * lease: Operator: no container may start without a heartbeat from this side. Only true if no process ends and no
   * request is slow.
   */
  startsAreHeld = false;
  allowedOrigin: (url: string) => boolean = () => true;
  readonly #options: LoopWorldOptions;
  readonly #timing: Timing;
  #operators = 0;
  /** Live reads of Pods, by name. */
  readonly #reads = new Map<
    string,
    { readonly atMs: number; readonly uid: string | undefined; readonly isParked: boolean }[]
  >();
  /** The creation times of claim Secrets, by uid. */
  readonly #journaledMs = new Map<string, number>();
  /** Claims that operators deleted. */
  readonly #settled = new Set<string>();
  /** Names of Secrets that were opened. The Pod of a claim that was dropped before may serve another one. */
  readonly #opened = new Set<string>();
  /** The session of each volume, by uid. */
  readonly #volumeSessions = new Map<string, string>();
  /** The sessions that slept in Pods that operators have deleted, by the lock that is left. */
  readonly #ending = new Map<string, string>();
  /** The session of each Pod whose program started. */
  readonly #served = new Map<string, string>();
  /** The prefix of the names of this cluster's operators. */
  readonly #side: string;
  maxLivePods = 0;

  constructor(options: LoopWorldOptions = {}) {
    this.#options = options;
    this.#side = options.beside ? "other" : "operator";
    this.random = seededRandom(options.seed ?? 1);
    this.#timing = { ...DEFAULT_TIMING, ...options.timing };
    this.clock = options.beside?.clock ?? options.clock ?? new QuickClock();
    this.server = new ApiServer(this.clock);
    this.api =
      options.beside?.api ??
      options.api ??
      new WorkApi(this.clock, {
        ...(options.switches ? { switches: options.switches } : {}),
        ...(options.limits ? { limits: options.limits } : {}),
        seed: options.seed ?? 1,
      });
    this.environmentId = options.beside?.environmentId ?? this.api.world.createEnvironment({}).id;
    this.fate =
      options.fate ??
      ((pod) => ({ startError: false, program: programOf(pod) === "Operator" ? "plain" : "stock", servesMs: 5_000 }));
    this.node = new Node({
      server: this.server,
      clock: this.clock,
      random: this.random,
      http: this.api.sender(new Link(this.clock, this.random, () => this.weather.worker), this.clock),
      environmentId: this.environmentId,
      fate: (pod, container) => this.fate(pod, container),
      ...(options.prepareMs ? { prepareMs: options.prepareMs } : {}),
      ...(options.isFull ? { isFull: options.isFull } : {}),
      ...(options.nodeOf ? { nodeOf: options.nodeOf } : {}),
      ...(options.turnFault ? { turnFault: options.turnFault } : {}),
      onStart: (running) => this.#started(running),
      onWrongLine: (pod, { message }) => this.wrongs.push(`I11 ${pod}: ${message}`),
    });
    this.server.subscribe(({ plural, object }) => {
      const isOpened = plural === SECRETS.plural && (object as Secret).data?.[KEY_WORK_SECRET] !== undefined;
      if (isOpened) this.#opened.add(object.metadata.name ?? "");
    });
    this.server.subscribe(({ plural, object, type }) => {
      if (plural === "pods") this.#countPods();
      if (plural === "secrets" && type === "ADDED")
        this.#journaledMs.set(object.metadata.uid ?? "", this.clock.monotonic());
      if (plural === PERSISTENT_VOLUME_CLAIMS.plural) this.#checkVolume(object, type === "DELETED");
    });
    this.api.world.events.on("item", (item, event) => {
      if (item.environmentId !== this.environmentId) return;
      if (event === "acknowledged") this.#acknowledged(item);
      this.say(`item ${item.id.slice(-4)} ${event} -> ${item.state}`);
    });
    this.server.subscribe(({ type, plural, object }) => this.say(`${plural} ${object.metadata.name} ${type}`));
    this.createKey();
  }

  say(what: string): void {
    if (this.log.length < 20_000) this.log.push(`${(this.clock.monotonic() / 1_000).toFixed(3)} ${what}`);
  }

  // --- state ------------------------------------------------------------------------------------------------------

  get pods(): Pod[] {
    return this.server.list(PODS);
  }

  get claims(): Secret[] {
    return this.server.list(SECRETS).filter(({ type }) => type === CLAIM_SECRET_TYPE);
  }

  get items(): ItemRecord[] {
    return [...this.api.world.items.values()].map(recordOf);
  }

  item(id: string): ItemRecord {
    return recordOf(this.api.world.item(id));
  }

  podsOf(phase: string): Pod[] {
    return this.pods.filter(({ metadata }) => metadata.labels?.[LABEL_PHASE] === phase);
  }

  get parked(): Pod[] {
    return this.pods.filter((pod) => readPodState(pod).is === "parked" && !pod.metadata.deletionTimestamp);
  }

  get environment() {
    return this.server.find(ENVIRONMENTS, NAMESPACE, NAME);
  }

  /** A condition in the Environment's status. */
  conditionOf(type: string) {
    return this.environment?.status?.conditions?.find((condition) => condition.type === type);
  }

  /** Reasons of Events about sessions, without duplicates and without those about the APIs. */
  get sessionReasons(): string[] {
    const all = new Set(this.told.map((words) => words.split(":")[0] ?? ""));
    return [...all].filter((reason) => reason === "SessionStarted" || Object.hasOwn(END_REASONS, reason));
  }

  get violations(): string[] {
    return this.api.world.violations.map(violationText);
  }

  // --- actions ----------------------------------------------------------------------------------------------------

  createKey(namespace = NAMESPACE, key = this.api.world.keyOf(this.environmentId)): void {
    this.server.create(SECRETS, {
      metadata: { name: "key", namespace },
      data: { "environment-key": Buffer.from(key).toString("base64") },
    });
  }

  createEnvironment(name = NAME, namespace = NAMESPACE): void {
    this.server.create(ENVIRONMENTS, {
      apiVersion: API_VERSION,
      kind: KIND,
      metadata: { name, namespace },
      spec: {
        environmentId: this.environmentId,
        deletionGraceSeconds: 60,
        api: { baseUrl: BASE_URL, keySecretRef: { name: "key" } },
        network: { egress: { cidrs: ["203.0.113.0/24"] } },
        sessions: {
          maxConcurrent: 4,
          warm: 1,
          retainEndedSeconds: 0,
          retainFailedSeconds: 0,
          template: {
            spec: { containers: [{ name: "worker", image: "worker:1" }], terminationGracePeriodSeconds: 30 },
          },
          ...this.#options.sessions,
        },
        ...this.#options.spec,
      },
    } as never);
  }

  patchEnvironment(patch: Record<string, unknown>): void {
    this.server.patch(ENVIRONMENTS, NAMESPACE, NAME, patch);
  }

  enqueue(input: Parameters<WorkApi["world"]["enqueue"]>[1] = {}): string {
    return this.api.world.enqueue(this.environmentId, input).id;
  }

  /** Adds the operators' log lines to the world's log when LOOP_DEBUG is set. */
  #logger(): Logger {
    if (process.env["LOOP_DEBUG"] === undefined) return silentLogger;
    return createLogger("debug", { write: (line) => this.say(line.trim()) });
  }

  startOperator(options: { logger?: Logger; clockAheadMs?: number; standby?: boolean } = {}): Operator {
    this.#operators += 1;
    const workerId = `${this.#side}-${this.#operators}-${this.environmentId}`;
    const clock = new ProcessClock(this.clock, options.clockAheadMs);
    const ending = new AbortController();
    const kubeLink = new Link(this.clock, this.random, () => this.weather.kube);
    const workLink = new Link(this.clock, this.random, () => this.weather.work);
    let lost = false;
    const guard = () => {
      if (lost) throw new LeadershipLostError("not the leader");
    };
    const kube = new FakeKube({
      server: this.server,
      link: kubeLink,
      clock,
      random: this.random,
      weather: () => this.weather.watch,
      attachWeather: () => this.weather.attach,
      fence: guard,
    });
    kube.got = (object) => this.#noteRead(object);
    kube.deleted = ({ plural }, { name }) => {
      if (plural === SECRETS.plural) this.#unlockedByOperator(name);
      if (plural === SECRETS.plural && this.#opened.has(name)) this.#settled.add(name);
      if (plural === PODS.plural) this.#deletedByOperator(this.#pod(name));
    };
    kube.wrote = (ref) => this.#lineSent(ref);
    const http = this.api.sender(workLink, clock);
    const logger = options.logger ?? this.#logger();
    const recorder = this.#options.writesEvents
      ? new EventRecorder({ client: kube.client, clock, logger, metrics: this.metrics, random: this.random })
      : null;
    const events = {
      event: (...args: Parameters<EventRecorder["event"]>) => {
        const [about, , reason, message] = args;
        this.told.push(`${reason}: ${message}`);
        // The API server refuses such an Event.
        if (!about.metadata.namespace) this.wrongs.push(`the Event ${reason} is about an object without a namespace`);
        recorder?.event(...args);
      },
    } as unknown as EventRecorder;
    const controller = new Controller({
      namespaces: this.#options.namespaces ?? [NAMESPACE],
      kube: kube.client,
      clock,
      points: pointsOf(this.#options.points, { operator: workerId, clock }),
      random: this.random,
      timing: this.#timing,
      logger,
      metrics: this.metrics,
      podPolicy: policyOf(allowancesFor(DEFAULT_RUNTIME_CLASSES)),
      runtimeClasses: DEFAULT_RUNTIME_CLASSES,
      hints: this.#options.hints,
      shards: this.#options.shards ?? 1,
      originAllowed: (url) => this.allowedOrigin(url),
      network: { apiCidrs: ["203.0.113.0/24"], operatorNamespace: "berth-system", dns: { pods: [], cidrs: [] } },
      actors: () => ({
        kube: kube.client,
        events,
        workClient: (environment, key) =>
          new WorkApiClient({
            baseUrl: environment.spec.api.baseUrl,
            environmentId: environment.spec.environmentId,
            key,
            workerId,
            http,
            ...(this.#options.budget ? { budget: this.#options.budget } : {}),
            tenant: this.#options.tenant,
            clock,
          }),
      }),
    });
    this.say(`${workerId} starts`);
    const watching = new AbortController();
    let term = new AbortController();
    let serving: Promise<unknown> = Promise.resolve();
    const take = () => {
      term = new AbortController();
      const signal = AbortSignal.any([ending.signal, term.signal]);
      const shards = Array.from({ length: this.#options.shards ?? 1 }, (_, shard) => shard);
      serving = Promise.all(shards.map((shard) => controller.serve(shard, { signal, guard })));
    };
    const leave = () => {
      term.abort();
      return serving;
    };
    if (!options.standby) take();
    const watches = controller.run(watching.signal);
    return {
      kube,
      clock,
      kill: () => {
        this.say(`${workerId} is killed`);
        kubeLink.cut();
        workLink.cut();
        clock.stop();
      },
      stop: async () => {
        ending.abort();
        await serving;
        watching.abort();
        return watches;
      },
      take,
      leave,
      loseLeadership: () => {
        lost = true;
      },
    };
  }

  /** Advances the clock until `condition` holds. @throws when it does not within `limitMs`. */
  async until(what: string, condition: () => boolean, limitMs = 120_000): Promise<void> {
    try {
      await this.clock.advanceUntil(condition, limitMs, STEP_MS);
    } catch (error) {
      throw new Error(`not within ${limitMs} ms: ${what}\n${this.describe()}`, { cause: error });
    }
  }

  /** Stops an operator, and advances the clock until its requests in flight have ended. */
  async stop(operator: Operator, limitMs?: number): Promise<void> {
    let hasStopped = false;
    void operator.stop().then(() => {
      hasStopped = true;
    });
    await this.until("the operator has stopped", () => hasStopped, limitMs);
  }

  async pass(ms: number): Promise<void> {
    await this.clock.advance(ms);
  }

  /** Whether all items are stopped, with no claim, assigned Pod or container left. */
  get isSettled(): boolean {
    const live = [...this.api.world.items.values()].some(({ state }) => state !== "stopped");
    return !live && this.claims.length === 0 && this.node.running.size === 0 && this.podsOf("running").length === 0;
  }

  describe(): string {
    return [
      `claims: ${this.claims.map((claim) => `${claim.metadata.name} ${JSON.stringify(readJournal(claim))}`).join(", ")}`,
      `pods: ${this.pods.map((pod) => `${pod.metadata.name} ${pod.metadata.labels?.[LABEL_PHASE]} ${readPodState(pod).is}${pod.metadata.deletionTimestamp ? " deleting" : ""}`).join(", ")}`,
      `items: ${this.items
        .filter(({ state }) => state !== "stopped")
        .map(({ id, state }) => `${id.slice(-4)} ${state}`)
        .join(", ")}`,
      `running: ${[...this.node.running].map(({ pod }) => pod).join(", ")}`,
      `wrongs: ${[...this.wrongs, ...this.violations].join("; ")}`,
      `told: ${this.told.slice(-10).join(" | ")}`,
    ].join("\n");
  }

  /** When a container starts, its operator must have acknowledged the item, and no other container may hold it. */
  #started({ pod, container, workId }: Running): void {
    this.say(`container ${container} of ${pod} starts for ${workId.slice(-4)}`);
    this.starts.push({ pod, container, workId });
    const sharing = this.#sharing(workspaceOf(this.#pod(pod)));
    // W1
    if (sharing.length > 1) this.wrongs.push(`W1 ${sharing.join(" and ")} run with one volume`);
    // A line may have been on its way. The container of a Pod that was deleted by force can't be seen.
    const slot = slotName(pod, turnNumber(container));
    if (this.#settled.has(slot) && this.#pod(pod)) this.wrongs.push(`D2 ${pod} starts after its claim was settled`);
    const item = this.api.world.items.get(workId);
    if (!item || item.acks.length === 0) this.wrongs.push(`S4 ${pod} starts for an item that was never acknowledged`);
    this.#servesOneSession(pod, item?.data.id);
    this.#startsWithVolume(pod, item?.data.id);
    const isHeld = item?.beat?.side?.startsWith(this.#side) && item.beat.kind === "environment-key";
    const lease = programOf(this.#pod(pod));
    if (this.startsAreHeld && lease === "Operator" && !isHeld && item?.state !== "stopped") {
      this.wrongs.push(`S2o ${pod} starts without its operator's lease`);
    }
    const others = [...this.node.running].filter((other) => other.workId === workId && other.worker.holds);
    if (others.length > 0 && item?.beat && item.state === "active" && item.generation === 1) {
      this.wrongs.push(`S2 ${pod} starts while ${others.map((other) => other.pod).join(", ")} holds the item`);
    }
  }

  /** T1: a Pod runs one program at a time. T2: it serves one session only. */
  #servesOneSession(pod: string, session: string | undefined): void {
    const programs = [...this.node.running].filter((running) => running.pod === pod);
    if (programs.length > 1)
      this.wrongs.push(`T1 ${pod} runs ${programs.map(({ container }) => container).join(", ")}`);
    const served = this.#served.get(pod) ?? session;
    if (served !== session) this.wrongs.push(`T2 ${pod} serves ${session} after ${served}`);
    if (session !== undefined) this.#served.set(pod, session);
  }

  /**
   * D1: a line is sent only when the claim is opened and the Pod is assigned. Otherwise a Pod whose line was sent could
   * look free. A woken one may look asleep: it is free for no other session.
   */
  #lineSent({ name, container }: ContainerRef): void {
    this.say(`line for ${container} of ${name}`);
    const pod = this.#pod(name);
    // Someone has deleted them.
    if (!pod) return;
    const slot = slotName(name, turnNumber(container));
    const secret = this.server.find(SECRETS, pod.metadata.namespace ?? "", slot);
    if (secret && !readJournal(secret)?.opened) this.wrongs.push(`D1 ${name} gets its line before its claim is opened`);
    const { labels, annotations } = pod.metadata;
    const isAssigned = labels?.[LABEL_PHASE] === "running" && annotations?.[ANNOTATION_ASSIGNED_AT] !== undefined;
    const isWoken = turnNumber(container) > 1 && labels?.[LABEL_PHASE] === "sleeping";
    if (!isAssigned && !isWoken) this.wrongs.push(`D1 ${name} gets its line before it is assigned`);
  }

  /** T3: no operator deletes the Pod of a sleeping session without its lock. A woken one may look asleep. */
  #deletedByOperator(pod: Pod | undefined): void {
    const { name, namespace = "", annotations, labels } = pod?.metadata ?? {};
    const sessionId = annotations?.[ANNOTATION_SESSION_ID] ?? "";
    if (!pod || labels?.[LABEL_PHASE] !== "sleeping") return;
    const secret = this.server.find(SECRETS, namespace, slotOf(pod));
    if (secret && readJournal(secret)?.opened) return;
    if (secret && readJournal(secret)?.use === "removal") this.#ending.set(slotOf(pod), sessionId);
    else this.wrongs.push(`T3 ${name} is deleted although session ${sessionId} sleeps in it`);
  }

  /** T4: nor releases the lock without an Event. */
  #unlockedByOperator(slot: string): void {
    const sessionId = this.#ending.get(slot);
    this.#ending.delete(slot);
    if (sessionId === undefined || this.told.some((words) => words.startsWith(`SleepEnded: session ${sessionId} `)))
      return;
    this.wrongs.push(`T4 the sleep of session ${sessionId} ends without an Event`);
  }

  /**
   * Containers whose Pod exists and mounts this volume. Containers of a force-deleted Pod don't count: no operator can
   * know of them.
   */
  #sharing(volume: string | undefined): string[] {
    if (volume === undefined) return [];
    const running = [...this.node.running].map(({ pod }) => pod);
    return running.filter((pod) => workspaceOf(this.#pod(pod)) === volume);
  }

  /** Pod names are random, so they are unique across namespaces. */
  #pod(name: string): Pod | undefined {
    return this.server.find(PODS, NAMESPACE, name) ?? this.pods.find(({ metadata }) => metadata.name === name);
  }

  /**
   * W2: a volume is not deleted while a container uses it. W3: a session has one volume, and a volume keeps its
   * session.
   */
  #checkVolume({ metadata: { name = "", uid = "", annotations } }: KubeObject, isGone: boolean): void {
    const sharing = isGone ? this.#sharing(name) : [];
    if (sharing.length > 0) this.wrongs.push(`W2 volume ${name} is deleted while ${sharing.join(", ")} runs with it`);
    const sessionId = annotations?.[ANNOTATION_SESSION_ID];
    const before = this.#volumeSessions.get(uid) ?? sessionId;
    if (before !== sessionId) this.wrongs.push(`W3 volume ${name} of session ${before} is given to ${sessionId}`);
    if (sessionId === undefined || isGone) return;
    this.#volumeSessions.set(uid, sessionId);
    const own = this.server
      .list(PERSISTENT_VOLUME_CLAIMS)
      .filter(({ metadata }) => metadata.annotations?.[ANNOTATION_SESSION_ID] === sessionId);
    if (own.length > 1) this.wrongs.push(`W3 session ${sessionId} has ${own.map((of) => of.metadata.name).join(", ")}`);
  }

  /** W4: a session's program starts only with the session's volume. */
  #startsWithVolume(pod: string, sessionId: string | undefined): void {
    const volume = workspaceOf(this.#pod(pod));
    const claim = this.server.list(PERSISTENT_VOLUME_CLAIMS).find(({ metadata }) => metadata.name === volume);
    // Someone has deleted the volume.
    if (!claim || claim.metadata.annotations?.[ANNOTATION_SESSION_ID] === sessionId) return;
    this.wrongs.push(`W4 ${pod} starts session ${sessionId} with volume ${volume}, which is not the session's`);
  }

  /**
   * S1: an item is acknowledged only if its Secret is stored and its Pod was parked at the last live read, which
   * happened after the Secret's creation and before the acknowledgement was sent.
   */
  #acknowledged(item: ItemRecord): void {
    if (!item.acks.at(-1)?.workerId?.startsWith(this.#side) || item.type !== "session") return;
    const claim = this.claims.find((secret) => readJournal(secret)?.workId === item.id);
    const journal = claim && readJournal(claim);
    if (!journal) this.wrongs.push(`S1 ${item.id} is acknowledged and no Secret names it`);
    if (journal?.use !== "session") return;
    const { handledSentMs } = this.api;
    const { pod } = podOfSlot(claim?.metadata.name ?? "");
    const read = this.#reads.get(pod)?.findLast(({ atMs }) => atMs <= handledSentMs);
    const journaledMs = this.#journaledMs.get(claim?.metadata.uid ?? "") ?? Number.POSITIVE_INFINITY;
    const isReady = read?.isParked === true && read.uid === journal.podUid && read.atMs >= journaledMs;
    if (!isReady) this.wrongs.push(`S1 ${item.id} is acknowledged without a ready Pod`);
  }

  /** Records live reads of Pods, the only evidence that allows an acknowledgement. */
  #noteRead(object: KubeObject): void {
    const { kind, metadata } = object;
    if (kind !== PODS.kind) return;
    const isParked = !metadata.deletionTimestamp && readPodState(object as Pod).is === "parked";
    const reads = this.#reads.get(metadata.name ?? "") ?? [];
    this.#reads.set(metadata.name ?? "", reads);
    reads.push({ atMs: this.clock.monotonic(), uid: metadata.uid, isParked });
  }

  /** Counts Pods that occupy capacity: not ended and not being deleted. */
  #countPods(): void {
    const live = this.pods.filter(
      (pod) =>
        !pod.metadata.deletionTimestamp &&
        !["ended", "sleeping"].includes(pod.metadata.labels?.[LABEL_PHASE] ?? "") &&
        readPodState(pod).is !== "ended",
    );
    this.maxLivePods = Math.max(this.maxLivePods, live.length);
  }
}

/** The name of the session volume that a Pod mounts. */
function workspaceOf(pod: Pod | undefined): string | undefined {
  return pod?.metadata.annotations?.[ANNOTATION_WORKSPACE];
}

/** The kind of lease that the program in this Pod was created for. */
export function programOf(pod: Pod | undefined): string {
  return pod?.metadata.annotations?.[ANNOTATION_LEASE] ?? "Worker";
}

const STEP_MS = 100;
