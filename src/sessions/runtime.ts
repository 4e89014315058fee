import type { SessionsStatus } from "../api/environment.ts";
import type { Permissions, RuntimeReport } from "../api/runtime.ts";
import { PodStreams } from "../attach/pod-streams.ts";
import { deleteClaimSecrets } from "../claims/claim-lists.ts";
import { ClaimLoop } from "../claims/claim-loop.ts";
import { RefusedItems } from "../claims/refused-items.ts";
import { Releases } from "../claims/releases.ts";
import { SECOND_MS } from "../core/clock.ts";
import { errorText } from "../core/errors.ts";
import { IdleRelease } from "../core/idle-release.ts";
import { keepRunning } from "../core/keep-running.ts";
import { Notifier } from "../core/notifier.ts";
import { ServerTime } from "../core/server-time.ts";
import type { Secret } from "../kube/resource.ts";
import { failedRow, readEnded, servedLately } from "../pods/finished.ts";
import { templateHashOf } from "../pods/own-pods.ts";
import { isAsleep } from "../pods/turns.ts";
import { DisruptionBudget } from "../pool/disruption-budget.ts";
import { Retention } from "../pool/finished-retention.ts";
import { Pool } from "../pool/pool.ts";
import { capacityVerdict } from "../protocol/capacity-problem.ts";
import type { Claim } from "../protocol/claim.ts";
import { ClaimTable } from "../protocol/claim-table.ts";
import type { RuntimeContext, SessionContext } from "../protocol/context.ts";
import { isStepFailure } from "../protocol/failing-steps.ts";
import { Holds } from "../protocol/holds.ts";
import { liveView, phaseOf, type SessionView } from "../protocol/session-view.ts";
import { STEP_NAMES } from "../protocol/tracked-steps.ts";
import { PollPace } from "../queue/poll-pace.ts";
import { QueueWatch } from "../queue/queue-watch.ts";
import { WaitingSessions } from "../queue/waiting-sessions.ts";
import { DepartingPods } from "../sleep/departing-pods.ts";
import { Removals } from "../sleep/removal.ts";
import { SessionVolumes } from "../sleep/session-volumes.ts";
import { SleepReport } from "../sleep/sleep-report.ts";
import { SleepingPods } from "../sleep/sleeping-pods.ts";
import { TurnAdding } from "../sleep/turn-adding.ts";
import { Workspaces } from "../sleep/workspaces.ts";
import { ClaimGate, type Finalizer } from "./claim-gate.ts";
import { ClaimReport } from "./claim-report.ts";
import { ItemObserver } from "./item-observer.ts";
import { ItemSweep } from "./item-sweep.ts";
import { Recovery } from "./recovery.ts";
import { SessionLoop } from "./session-loop.ts";

/**
 * Runs the loops of one Environment in `sessions` mode, from recovery to drain: claim loop, session loop, pool, queue
 * watch, item sweep, retention. The reconciler starts, updates and stops it. All of its state can be recovered from the
 * cluster and the Work API.
 */
export class SessionsRuntime {
  readonly #context: SessionContext;
  readonly #claims: ClaimTable;
  readonly #serverTime: ServerTime;
  readonly #changed = new Notifier();
  readonly #holds: Holds;
  readonly #removals: Removals;
  readonly #streams: PodStreams;
  readonly #pool: Pool;
  readonly #sleeping: SleepingPods;
  readonly #sessions: SessionLoop;
  readonly #recovery: Recovery;
  readonly #claimLoop: ClaimLoop;
  readonly #refused: RefusedItems;
  readonly #queue: QueueWatch;
  readonly #waiting: WaitingSessions;
  readonly #pace: PollPace;
  readonly #sweep: ItemSweep;
  readonly #retention: Retention;
  readonly #workspaces: Workspaces;
  readonly #budget: DisruptionBudget;
  readonly #finalizer: Finalizer;
  readonly #gate: ClaimGate;
  readonly #report: ClaimReport;
  readonly #idleRelease: IdleRelease;
  readonly #onChange: () => void;
  readonly #stop = new AbortController();
  #running: Promise<void> = Promise.resolve();
  #recovered = false;

  constructor(from: RuntimeContext, finalizer: Finalizer, onChange: () => void) {
    this.#onChange = onChange;
    this.#claims = new ClaimTable((claim) => {
      from.hinted?.over(claim.record.journal.sessionId);
      this.#waiting.served(claim.record.journal.sessionId);
      this.#holds.forget(claim);
      if (claim.record.journal.opened) this.#pool.settled(claim.name);
    });
    const changed = () => this.#noteChange();
    this.#holds = new Holds(from, this.#claims, changed);
    const context: SessionContext = { ...from, holds: this.#holds };
    this.#context = context;
    const { clock } = context;
    this.#serverTime = new ServerTime((ms) => clock.now() + ms - clock.monotonic());
    this.#waiting = new WaitingSessions({ context, health: this.#holds.health, onChange: changed });
    const observer = new ItemObserver({
      ...context,
      isTracked: (workId) => this.#claims.ofWork(workId) !== undefined,
      signal: this.#stop.signal,
      onAnswer: ({ sentAtMs, serverDateMs }) => this.#serverTime.observe(sentAtMs, clock.monotonic(), serverDateMs),
      onUnreadable: (error) => this.#holds.health.unreadable(error),
      judged: (walk) => this.#holds.health.judge("list", undefined, walk),
    });
    const shared = { context, claims: this.#claims };
    const adopt = (secret: Secret) => this.#recovery.takeUp(secret);
    const sleeps = new SleepReport(context);
    this.#removals = new Removals({ context, onForeignSlot: adopt, report: sleeps });
    const volumes = new SessionVolumes(context, changed);
    this.#workspaces = new Workspaces({
      ...{ context, volumes, claims: this.#claims, items: this.#waiting, onChange: changed },
      awaited: (sessionId) => this.#pool.awaits(sessionId),
      expected: (pod) => this.#pool.expects(pod),
    });
    this.#streams = new PodStreams(context, () => {
      this.#pool.poke();
      this.#sleeping.poke();
      this.#changed.notify();
    });
    const turns = new TurnAdding(context, () => {
      this.#pool.poke();
      this.#sleeping.poke();
    });
    const leave = (name: string) => {
      const pod = context.pods.get(name);
      if (pod && isAsleep(pod)) this.#sleeping.leave(name);
      else this.#pool.leave(name);
    };
    const departing = new DepartingPods({
      ...{ context, removals: this.#removals, onChange: changed },
      onStays: (name, why) => {
        const pod = context.pods.get(name);
        // A sleeping Pod that has changed is checked again, because its session waits for it.
        const isLookedAt = this.#claims.has(name) || (why === "kept" && pod !== undefined && isAsleep(pod));
        if (!isLookedAt) leave(name);
      },
    });
    this.#pool = new Pool({
      ...shared,
      turns,
      departing,
      streams: this.#streams,
      volumes,
      onChange: changed,
    });
    this.#sleeping = new SleepingPods({
      ...{ ...shared, turns, streams: this.#streams, departing, onChange: changed },
      ...{ report: sleeps, items: this.#waiting, waitingForRoom: () => this.#pool.waitingForRoom() },
    });
    this.#budget = new DisruptionBudget(shared);
    this.#retention = new Retention({ context, claims: this.#claims, onForeignSlot: adopt });
    this.#pace = new PollPace({ ...context, intervalMs: () => context.work().idleIntervalMs });
    this.#queue = new QueueWatch({
      ...{ context, health: this.#holds.health, pace: this.#pace },
      expectedPollers: () => context.environment().spec.api.otherPollers,
      onStats: (stats) => {
        this.#waiting.noteStats(stats, this.#queue.readMs);
        this.#report.noteStats();
        onChange();
      },
      unacknowledged: () =>
        [...this.#claims].filter(({ record: { acknowledgedAt } }) => acknowledgedAt === null).length,
      // The Date header of a long poll is written at the end of its wait. Statistics answer at once, so they tell more.
      onAnswer: ({ sentAtMs, answeredAtMs, serverDateMs }) =>
        this.#serverTime.observe(sentAtMs, answeredAtMs, serverDateMs),
    });
    const planning = { context, pool: this.#pool, queue: this.#queue };
    this.#gate = new ClaimGate({
      ...planning,
      sleeping: this.#sleeping,
      finalizer,
      claims: this.#claims,
      pace: this.#pace,
      changed: this.#changed,
    });
    this.#report = new ClaimReport({ ...planning, gate: this.#gate, onChange: changed });
    const releases = new Releases(context);
    this.#sessions = new SessionLoop({
      ...shared,
      releases,
      turns,
      sleeps,
      streams: this.#streams,
      observer,
      gate: this.#gate,
      retention: this.#retention,
      onChange: changed,
    });
    this.#recovery = new Recovery({
      context,
      into: { claims: this.#claims, removals: this.#removals, serverTime: this.#serverTime },
      sessions: this.#sessions,
      pool: { poke: () => this.#pool.poke(), leave },
    });
    this.#sweep = new ItemSweep({
      context,
      claims: this.#claims,
      observer,
      sessions: this.#sessions,
    });
    this.#finalizer = finalizer;
    this.#idleRelease = new IdleRelease({
      clock,
      lingerMs: context.timing.finalizerLingerMs,
      hold: finalizer,
      isIdle: () => this.#recovered && this.#claims.size === 0,
      onFailure: (error) => context.logger.warn({ error: errorText(error) }, "cannot remove the finalizer yet"),
    });
    this.#refused = new RefusedItems(context);
    this.#claimLoop = new ClaimLoop({
      ...shared,
      pool: this.#pool,
      sessionPods: this.#sleeping,
      volumes,
      streams: this.#streams,
      gate: this.#gate,
      report: this.#report,
      handOver: {
        claimed: (claim) => {
          this.#sessions.poke(claim.name);
          this.#changed.notify();
        },
        reoffered: (claim, view) => {
          this.#recovery.reoffered(claim);
          this.#sessions.reoffered(claim, view);
        },
        foreignSlot: adopt,
      },
      refused: this.#refused,
      releases,
      serverTime: this.#serverTime,
      pace: this.#pace,
      changed: this.#changed,
    });
  }

  /** Recovers the claims of an earlier process, then runs all loops until `stop`. */
  start(): void {
    this.#running = this.#run(this.#stop.signal).catch((error: unknown) => this.#broken(error));
  }

  /**
   * Stops all loops, waits for requests in flight, and starts the sessions that were acknowledged. Leaves Pods, Secrets
   * and items to the next process.
   */
  async stop(): Promise<void> {
    this.#stop.abort();
    this.#idleRelease.end();
    this.#holds.end();
    this.#changed.notify();
    const ended = [
      this.#running,
      this.#pool.ended(),
      this.#sleeping.ended(),
      this.#retention.ended(),
      this.#budget.ended(),
      this.#workspaces.ended(),
    ];
    await Promise.all(ended).finally(() => this.#streams.close());
  }

  /** Applies changed permissions or a changed spec. */
  update(permissions: Permissions): void {
    const couldAsk = this.#gate.mayAsk;
    this.#gate.update(permissions);
    if (!couldAsk && this.#gate.mayAsk) this.#sessions.pokeAll();
    this.#pool.allowCreation(permissions.mayPrepare);
    this.#watchTemplate();
    this.#watchCredential();
    this.#report.setDemand();
    this.#pool.poke();
    this.#sleeping.poke();
    this.#retention.poke();
    this.#budget.poke();
    this.#workspaces.poke();
    this.#changed.notify();
  }

  /** The environment key changed: tries it at once. */
  keyChanged(): void {
    this.#holds.keyChanged();
    this.#sessions.pokeAll();
    this.#changed.notify();
    this.#queue.nudge();
  }

  get keyRejected(): boolean {
    return this.#holds.health.keyRejected;
  }

  get isStranded(): boolean {
    const hasEnded = ({ record: { claiming }, observed: { end } }: Claim) => !claiming && end !== null;
    // A retry of a rejected key changes nothing before its answer.
    const canSettle = this.#gate.mayAsk && this.#holds.health.key.reason !== "KeyRejected";
    return this.#recovered && !canSettle && [...this.#claims].every(hasEnded);
  }

  /** Tries a rejected key again if its retry is due. */
  retryKey(): void {
    if (!this.#holds.health.retryKey()) return;
    this.#sessions.pokeAll();
    this.#changed.notify();
  }

  /** A Pod of this Environment changed in the cache. */
  podChanged(name: string): void {
    if (this.#claims.has(name)) this.#sessions.poke(name);
    this.#pool.poke();
    this.#sleeping.poke();
    this.#retention.poke();
    this.#noteChange();
  }

  /** There may be work: polls or reads the statistics soon, whichever is in use now. */
  look(): void {
    if (this.#pace.isPolling) this.#pace.look();
    else this.#queue.look();
  }

  runs(sessionId: string): boolean {
    return this.#gate.runs(sessionId);
  }

  /**
   * The Environment is being deleted: claims nothing, deletes free and finished Pods, and stops running sessions at
   * `deadlineMs` (monotonic).
   */
  drain(deadlineMs: number): void {
    this.#gate.drain();
    this.#pool.drain();
    this.#sleeping.drain();
    this.#retention.drain();
    this.#sessions.drain(deadlineMs);
    this.#changed.notify();
  }

  /** No claim and no Pod of a session is left. */
  get isDrained(): boolean {
    const isEmpty = this.#pool.isEmpty && this.#sleeping.isEmpty && this.#retention.isEmpty;
    return this.#recovered && this.#claims.size === 0 && isEmpty;
  }

  /** Describes what is left, for the Event of a drain that was given up. */
  get leftovers(): string {
    return `${this.#claims.size} work items were not settled`;
  }

  /**
   * The time for the drain has ended: deletes unsettled Secrets, leaves Pods to the garbage collector and lets leases
   * lapse. Releases the finalizer even if that fails. Returns whether all Secrets are deleted.
   */
  async abandon(): Promise<boolean> {
    const { kube, points, namespace, name, logger } = this.#context;
    await this.stop();
    const isClean = await deleteClaimSecrets(kube, { namespace, name }, points).then(
      () => true,
      (error: unknown) => {
        logger.warn({ error: errorText(error) }, "cannot delete claim Secrets yet");
        return false;
      },
    );
    await this.#release(() => true);
    return isClean;
  }

  async #release(isUnused: () => boolean): Promise<void> {
    try {
      await this.#finalizer.release(isUnused);
      this.#holds.succeeded("release");
    } catch (error) {
      if (isStepFailure(error)) this.#holds.failed("release", { error });
      throw error;
    }
  }

  /** Releases the finalizer if no claim is left. Call it once nothing more will be claimed. */
  async releaseHold(): Promise<void> {
    await this.#release(() => this.#claims.size === 0);
  }

  report(): RuntimeReport {
    const stats = this.#queue.stats;
    const sessions = this.#counts();
    const failing = this.#holds.failing(STEP_NAMES);
    return {
      queue: this.#queue.status,
      sessions,
      ...(this.#workspaces.volumes === null ? {} : { workspaces: { volumes: this.#workspaces.volumes } }),
      verdicts: [
        ...this.#holds.verdicts(),
        capacityVerdict(this.#pool.problem(), {
          busy: this.#pool.busy,
          max: this.#context.environment().spec.sessions?.maxConcurrent ?? 0,
          depth: stats?.depth ?? 0,
          failing: failing?.message ?? null,
          wasReady: this.#pool.wasReady,
        }),
        this.#queue.pollers,
      ],
      firstPod: this.#pool.firstPod,
      blocked: failing,
    };
  }

  /** Views of the sessions that are claimed or asleep now. */
  sessions(): SessionView[] {
    const { pods } = this.#context;
    const claimed = [...this.#claims].filter(({ record: { journal } }) => journal.use === "session");
    return [...claimed.map((claim) => liveView(claim, pods.get(claim.name))), ...this.#sleeping.views()];
  }

  async #run(signal: AbortSignal): Promise<void> {
    this.#watchTemplate();
    this.#watchCredential();
    // Claim, create and delete nothing before every Secret of an earlier process is in the table.
    if (!(await this.#recovery.run(signal))) return;
    this.#recovered = true;
    const sessions = this.#sessions.run(signal);
    for (const claim of this.#claims) this.#sessions.poke(claim.name);
    if (this.#claims.size > 0) void this.#holdAgain();
    this.#pool.start(signal);
    this.#sleeping.start(signal);
    this.#retention.start(signal);
    this.#budget.start(signal);
    this.#workspaces.start(signal);
    this.#noteChange();
    const mayRead = (until: AbortSignal) => this.#changed.until(() => this.#gate.mayRead, until);
    const serves = (until: AbortSignal) => this.#changed.until(() => this.#gate.mayAsk && this.#gate.isServed, until);
    await Promise.all([
      sessions,
      this.#recovery.findLate(signal),
      this.#kept(signal, () => this.#claimLoop.run(signal)),
      this.#kept(signal, () => this.#queue.run(signal, mayRead)),
      // Start this after the statistics, which are needed first: if a thousand Environments start at once, each call
      // waits for its turn in the budget.
      this.#kept(signal, () => this.#refused.run(signal, serves)),
      this.#kept(signal, () => this.#sweep.run(signal, () => this.#gate.mayAsk, this.#changed)),
      this.#kept(signal, () => this.#waiting.run(signal, serves)),
    ]);
    await this.#sessions.finishStarts();
  }

  #kept(signal: AbortSignal, loop: () => Promise<void>): Promise<void> {
    const { timing, random, clock } = this.#context;
    const backoff = { baseMs: timing.retryBaseMs, maxMs: timing.retryMaxMs };
    return keepRunning(loop, { clock, random, backoff, onError: (error) => this.#broken(error) }, signal);
  }

  #broken(error: unknown): void {
    const stack = error instanceof Error ? error.stack : undefined;
    this.#context.logger.error({ error: errorText(error), stack }, "a loop of an Environment failed");
  }

  #noteChange(): void {
    this.#changed.notify();
    this.#pool.poke();
    this.#sleeping.poke();
    this.#budget.poke();
    this.#workspaces.poke();
    this.#idleRelease.noteChange();
    this.#onChange();
  }

  /** Adds the finalizer again: an uninstall removes it but leaves claims to the next operator. */
  async #holdAgain(): Promise<void> {
    try {
      await this.#finalizer.hold();
    } catch (error) {
      this.#context.logger.warn({ error: errorText(error) }, "cannot restore the finalizer yet");
    }
  }

  /** If the template is new to this process, learns from its finished Pods whether its containers start. */
  #watchTemplate(): void {
    const { clock, kube, pods, timing, environment, template } = this.#context;
    const nowMs = clock.monotonic();
    const found = this.#holds.starts.watch(template().hash, nowMs, () => pods.list().map(templateHashOf));
    if (found.length === 0) return;
    const finished = pods.list().flatMap((pod) => readEnded(pod) ?? []);
    const clusterMs = kube.now();
    const retainMs = (environment().spec.sessions?.retainEndedSeconds ?? 0) * SECOND_MS;
    // For this long after the failure that began the hold, no probe was due, so nothing can have served.
    const keptMs = Math.max(retainMs, timing.probeFirstMs);
    // Pods that the kubelet could not start are already deleted, so read from the status whether starts failed.
    const wasOpen = environment().status?.conditions?.some(({ reason }) => reason === "StartsFailing") ?? false;
    for (const hash of found) {
      const row = failedRow(finished, hash, { nowMs: clusterMs, keptMs });
      const openedMs = nowMs - (clusterMs - (row?.sinceMs ?? 0));
      const hasServed = !wasOpen && servedLately(finished, hash);
      this.#holds.starts.resume(hash, { row: row && { ...row, openedMs }, hasServed }, nowMs);
    }
  }

  #watchCredential(): void {
    this.#holds.watchCredential(this.#context.environment().spec.sessions?.credential ?? "");
  }

  #counts(): SessionsStatus {
    const kept = { sleeping: this.#sleeping.count, ended: this.#retention.finished };
    const counts = { ...this.#pool.counts(), running: 0, stopping: 0, ...kept };
    for (const claim of this.#claims) {
      if (claim.record.journal.use !== "session") continue;
      counts[phaseOf(claim, this.#context.pods.get(claim.name))] += 1;
    }
    return counts;
  }
}
