/** A simulated operator that performs the steps of `nextStep`, for the property tests of the protocol. */

import { isSomebodyElses } from "../../src/claims/ack-window.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import type { End } from "../../src/pods/pod-state.ts";
import { type Claim, isReacknowledged } from "../../src/protocol/claim.ts";
import { type ItemView, noteWaiting } from "../../src/protocol/claim-observed.ts";
import { noteJournal, noteTouched } from "../../src/protocol/claim-record.ts";
import { newClaim } from "../../src/protocol/claim-table.ts";
import { nextStep } from "../../src/protocol/decide.ts";
import { type Facts, type Limits, remembered } from "../../src/protocol/facts.ts";
import type { Journal, LeaseKind } from "../../src/protocol/journal.ts";
import {
  afterBeat,
  type BeatResult,
  beatIntervalMs,
  type HeldLease,
  leaseEndMs,
  leaseOf,
  maySendStop,
  newestSentMs,
} from "../../src/protocol/lease.ts";
import type { Step } from "../../src/protocol/step.ts";
import { type Heartbeat, NO_HEARTBEAT } from "../../src/work/types.ts";
import { withFields } from "./claims.ts";
import { type Beat, type ItemApi, RefusedError } from "./protocol-api.ts";
import { type Cluster, GRACE_MS } from "./protocol-cluster.ts";
import { type Loss, Process, request, type Script, sleep, type Timeline } from "./protocol-timeline.ts";

const TIMING = DEFAULT_TIMING;
const KUBE_BOUND_MS = 3_000;
const KUBE_MS = 30;
/** The session loop takes this many steps of one claim before it turns to others. */
const MAX_STEPS = 12;
/** The uncertainty about the server's clock. */
const CLOCK_SLACK_MS = 40;
/** The maximum lag of the Pod cache. */
const CACHE_LAG_MS = 450;
const SIGKILL_EXIT = 137;
const NOT_SEEN = { exitCode: null, startedAtMs: null, finishedAtMs: null } as const;

/** The Secret differs from the one that the decision was based on. */
class StaleError extends Error {}

type Acknowledged = "acked" | "refused" | "unanswered" | "late";

/**
 * One operator with one claim. It journals and acknowledges, then performs every step that `nextStep` names as the
 * session loop does, on the item and Pod of these tests. Another `start` is a restart: only the Secret is known.
 */
export class Operator {
  readonly #timeline: Timeline;
  readonly #api: ItemApi;
  readonly #cluster: Cluster;
  readonly #loss: Loss;
  /** The maximum one-way latency of the Work API. */
  readonly #workMs: number;
  readonly #limits: Omit<Limits, "draining" | "drainDeadlineMs">;
  #process: Process | null = null;
  #sweeper: Process | null = null;
  #claim: Claim | null = null;
  #drainDeadlineMs: number | null = null;
  readonly complaints: string[] = [];
  /** lease: Operator: the number of lost leases. */
  losses = 0;
  readonly #lease: LeaseKind;
  #keeper: Process | null = null;
  #beating = false;
  #paused = false;
  /** Steps since the last wait. */
  #hurry = 0;

  constructor(
    world: { timeline: Timeline; api: ItemApi; cluster: Cluster; loss: Loss; workMs: number },
    limits: { firstBeatTimeoutMs: number; maxDurationMs: number; onPodFailure: Limits["onPodFailure"] },
    lease: LeaseKind,
  ) {
    this.#lease = lease;
    this.#timeline = world.timeline;
    this.#api = world.api;
    this.#cluster = world.cluster;
    this.#loss = world.loss;
    this.#workMs = world.workMs;
    this.#limits = { ...limits, graceMs: GRACE_MS };
    world.cluster.onChange = () => {
      this.#timeline.after(CACHE_LAG_MS, () => this.#process?.poke());
    };
  }

  get busy(): boolean {
    return this.#process?.alive ?? false;
  }

  /** The first process claims the item; later ones recover its claim. */
  start(first: boolean): void {
    const script = first ? this.#claimItem() : this.#recover();
    this.#process = new Process(this.#timeline, script, this.#loss);
    this.#sweeper = new Process(this.#timeline, this.#sweep(), this.#loss);
  }

  crash(): void {
    this.#timeline.say("operator crashes");
    this.#process?.kill();
    this.#sweeper?.kill();
    this.#keeper?.kill();
    this.#beating = false;
    this.#claim = null;
  }

  drain(graceMs: number): void {
    this.#timeline.say("Environment deleted");
    this.#drainDeadlineMs ??= this.#timeline.nowMs + graceMs;
    this.#process?.poke();
  }

  // --- 2 to 4: poll, journal, acknowledge ---------------------------------------------------------------------------

  *#claimItem(): Script {
    const sentMs = this.#timeline.nowMs;
    this.#api.offeredToUsMs = sentMs;
    const acknowledgedBefore = this.#api.acknowledgedAt;
    yield* sleep(this.#timeline.between(5, 600));
    const claim = this.#newClaim(this.#journalOf(sentMs), sentMs + TIMING.othersReclaimMs);
    withFields(claim, { claiming: true, acknowledgedBefore });
    const ackUntilMs = sentMs + TIMING.othersReclaimMs - TIMING.requestBoundMs - TIMING.marginMs;
    while (claim.record.secretVersion === "") {
      const version = yield* this.#try(this.#kube(() => this.#createSecret(claim.record.journal)));
      if (version !== null) withFields(claim, { secretVersion: String(version) });
      // The Secret may exist, or appear later, as after a restart.
      else if (this.#timeline.nowMs >= ackUntilMs) return yield* this.#recover();
    }
    const parked = yield* this.#try(
      this.#kube(() => this.#cluster.live.state.is === "parked" && this.#cluster.live.goneByMs === null),
    );
    let outcome = "late" as Acknowledged;
    while (parked && this.#timeline.nowMs < ackUntilMs && (outcome === "late" || outcome === "unanswered")) {
      outcome = yield* this.#ackOnce(claim, outcome === "unanswered");
    }
    withFields(claim, { claiming: false, memory: { is: outcome === "unanswered" ? "unanswered" : "none" } });
    if (outcome === "refused" || outcome === "late") yield* this.#try(this.#dropSecret(claim));
    if (this.#cluster.secret) yield* this.#loop(claim);
  }

  #journalOf(sentMs: number): Journal {
    return {
      use: "session",
      lease: this.#lease,
      environmentUid: "",
      podUid: "pod",
      workId: "work",
      sessionId: "sesn",
      queuedAt: "",
      polledFromMs: this.#api.epochMs + sentMs - CLOCK_SLACK_MS,
      polledUntilMs: this.#api.epochMs + sentMs + CLOCK_SLACK_MS,
      acknowledgedAt: null,
      opened: false,
    };
  }

  #createSecret(journal: Journal): number {
    // It exists already: this repeats our own request.
    if (this.#cluster.secret) return this.#cluster.secret.version;
    this.#timeline.say("journaled");
    this.#cluster.secret = { journal, version: 1, key: false };
    return 1;
  }

  *#ackOnce(claim: Claim, repeated: boolean): Script<Acknowledged> {
    const sentMs = this.#timeline.nowMs;
    try {
      const { state, acknowledgedAt } = yield* this.#work(() => this.#api.ack("operator"));
      // A time before our request, even if cut to its second, is another client's. After a repeat, it may be that of
      // our first request.
      const { polledFromMs: polledMs } = claim.record.journal;
      const earliest = { polledMs, sentMs: repeated ? polledMs : this.#api.epochMs + sentMs - CLOCK_SLACK_MS };
      if (acknowledgedAt !== null && isSomebodyElses(acknowledgedAt, claim.record.acknowledgedBefore, earliest)) {
        return repeated ? "unanswered" : "refused";
      }
      withFields(claim, { acknowledgedAt, item: { ...this.#listed(sentMs), state, acknowledgedAt } });
      return "acked";
    } catch (error) {
      return error instanceof RefusedError && !repeated ? "refused" : "unanswered";
    }
  }

  // --- recovery -----------------------------------------------------------------------------------------------------

  *#recover(): Script {
    yield* sleep(this.#timeline.between(10, this.#timeline.pick([20, 1_000])));
    // A dead process's journal may appear after the Secrets were listed: the next claim of the Pod finds it.
    const untilMs = this.#timeline.nowMs + KUBE_BOUND_MS;
    while (!this.#cluster.secret && this.#timeline.nowMs < untilMs) yield* sleep(untilMs - this.#timeline.nowMs);
    const { secret } = this.#cluster;
    if (!secret) {
      // A Pod that is marked as claimed but has no Secret was settled before.
      if (this.#cluster.live.assigned) this.#cluster.delete();
      return;
    }
    const { journal } = secret;
    const windowMs = TIMING.othersReclaimMs + TIMING.marginMs;
    const overMs = journal.polledUntilMs + TIMING.othersReclaimMs - (this.#wallMs() - CLOCK_SLACK_MS);
    const lateAckUntilMs = this.#timeline.nowMs + Math.min(windowMs, Math.max(0, overMs));
    const claim = this.#newClaim(journal, lateAckUntilMs, this.#timeline.nowMs);
    withFields(claim, { secretVersion: String(secret.version) });
    noteJournal(claim, journal, this.#timeline.nowMs);
    yield* this.#loop(claim);
  }

  #newClaim(journal: Journal, lateAckUntilMs: number, othersUntilMs?: number): Claim {
    const claim = newClaim({
      name: "pod",
      journal,
      secretVersion: "",
      secretUid: "",
      lateAckUntilMs,
      templateHash: "",
      ...(othersUntilMs === undefined ? {} : { othersUntilMs }),
    });
    this.#claim = claim;
    return claim;
  }

  // --- the session loop ---------------------------------------------------------------------------------------------

  *#loop(claim: Claim): Script {
    let failures = 0;
    for (let steps = 0; ; steps += 1) {
      const facts = this.#facts(claim);
      const step = nextStep(facts);
      if (step.do === "wait") {
        this.#checkWait(facts, step.untilMs);
        this.#hurry = 0;
        steps = 0;
        yield* sleep((step.untilMs ?? Number.POSITIVE_INFINITY) - this.#timeline.nowMs);
        continue;
      }
      this.#noteStep(facts, step);
      try {
        if (yield* this.#perform(claim, step)) return;
        failures = 0;
      } catch (error) {
        if (error instanceof StaleError) {
          this.#reread(claim);
          continue;
        }
        this.#timeline.say(`${step.do} failed: ${String(error)}`);
        this.#hurry = 0;
        const backoffMs = Math.min(TIMING.retryMaxMs, TIMING.retryBaseMs * 2 ** failures);
        failures += 1;
        yield* sleep(this.#timeline.between(backoffMs / 2, backoffMs));
      }
      if (steps % MAX_STEPS === MAX_STEPS - 1) yield* sleep(TIMING.retryBaseMs);
    }
  }

  #noteStep({ claim, pod }: Facts, step: Step): void {
    this.#timeline.say(
      `step ${step.do} (item ${claim.observed.item?.state ?? "-"}, memory ${claim.lease.memory.is}, pod ${pod.is})`,
    );
    this.#hurry += 1;
    if (this.#hurry === 3 * MAX_STEPS) {
      this.complaints.push(`${this.#hurry} steps without a wait, the last: ${step.do}`);
    }
  }

  #checkWait({ nowMs }: Facts, untilMs: number | null): void {
    if (untilMs === null || !Number.isFinite(untilMs)) this.complaints.push("a wait without an end");
    else if (untilMs <= nowMs) this.complaints.push(`a wait that is over already: ${untilMs} at ${nowMs}`);
  }

  #facts(claim: Claim): Facts {
    const { state, assigned, goneByMs } = this.#cluster.cached(this.#timeline.pick([0, 0, 50, CACHE_LAG_MS]));
    let pod = state;
    if (goneByMs !== null && this.#timeline.nowMs >= goneByMs && pod.is !== "ended" && pod.is !== "gone") {
      pod = { is: "ended", end: { ...NOT_SEEN, cause: "NodeLost", message: "" } };
    }
    if ((pod.is === "running" || pod.is === "ended") && claim.record.journal.opened) {
      withFields(claim, {
        startedAtMs: claim.observed.startedAtMs ?? (pod.is === "running" ? pod.startedAtMs : pod.end.startedAtMs),
      });
    }
    noteWaiting(claim, pod, this.#timeline.nowMs);
    if (pod.is === "ended") this.#noteEnd(claim, pod.end);
    if (pod.is === "gone" && claim.record.journal.opened) {
      this.#noteEnd(claim, { ...NOT_SEEN, cause: "PodDeleted", message: "" });
    }
    return {
      claim,
      pod,
      podGoneByMs: pod.is === "gone" ? null : goneByMs,
      podAssigned: assigned,
      waitsForLine: false,
      nowMs: this.#timeline.nowMs,
      wallMs: this.#wallMs(),
      clusterMs: this.#wallMs(),
      limits: {
        ...this.#limits,
        draining: this.#drainDeadlineMs !== null,
        drainDeadlineMs: this.#drainDeadlineMs ?? Number.POSITIVE_INFINITY,
      },
      timing: TIMING,
    };
  }

  #noteEnd(claim: Claim, end: End): void {
    if (claim.observed.end !== null) return;
    withFields(claim, { end, endedMs: this.#timeline.nowMs });
  }

  #wallMs(): number {
    return this.#api.epochMs + this.#timeline.nowMs;
  }

  /** Performs a step. Returns true when the claim has ended. */
  *#perform(claim: Claim, step: Exclude<Step, { do: "wait" }>): Script<boolean> {
    switch (step.do) {
      case "look":
        this.#saw(claim, yield* this.#look());
        return false;
      case "own":
        withFields(claim, { acknowledgedAt: step.acknowledgedAt, lateAck: step.late ?? false, memory: { is: "none" } });
        return false;
      case "take":
        yield* this.#take(claim, step.expected);
        return false;
      case "lose":
        this.losses += 1;
        withFields(claim, {
          lease: { is: "lost", by: "refusal", message: step.message, lapsedMs: this.#timeline.nowMs },
        });
        return false;
      case "let-go":
        yield* this.#letGo(claim);
        return false;
      case "open":
        yield* this.#open(claim, step.acknowledgedAt);
        return false;
      case "touch":
        yield* this.#touch(claim);
        return false;
      case "deliver":
      case "read-log":
      case "delivered":
        throw new Error("this Pod waits for a key");
      case "snapshot":
        withFields(claim, { memory: remembered(step, claim, this.#timeline.nowMs) });
        return false;
      case "fence":
        yield* this.#fence(claim, step.expected);
        return false;
      case "stop":
        yield* this.#stop(claim, step.force);
        return false;
      case "delete-pod":
        yield* this.#deletePod(claim, step);
        return false;
      case "drop":
      case "settled":
        yield* this.#dropSecret(claim);
        this.#timeline.say(`${step.do}: ${step.because}`);
        this.#claim = null;
        return true;
      default:
        return step satisfies never;
    }
  }

  *#look(): Script<ItemView> {
    const askedMs = this.#timeline.nowMs;
    return yield* this.#work(() => this.#listed(askedMs));
  }

  #listed(askedMs: number): ItemView {
    const { state, acknowledgedAt, last } = this.#api;
    return { state, acknowledgedAt, latestHeartbeatAt: last, startedAt: null, askedMs };
  }

  #saw(claim: Claim, view: ItemView): void {
    withFields(claim, { item: view });
    if (view.state === "active" && claim.record.journal.lease === "Worker") withFields(claim, { firstBeatSeen: true });
    if (view.state === "stopping")
      withFields(claim, { stoppingSinceMs: claim.observed.stoppingSinceMs ?? this.#timeline.nowMs });
    const lost = view.state === "queued" || view.state === "stopped" || isReacknowledged(claim, view);
    withFields(claim, { lostSinceMs: lost ? (claim.observed.lostSinceMs ?? this.#timeline.nowMs) : null });
  }

  /** Reads the Secret first: an earlier opening may have taken effect. */
  *#open(claim: Claim, acknowledgedAt: string): Script {
    // With its key, the container may have started: the opening is repeated for its answer only.
    const starts = this.#cluster.secret?.key === false;
    const believes = this.#lease === "Operator" && claim.lease.own?.is === "held";
    if (starts && believes && this.#api.holder !== "operator") {
      this.complaints.push("S2o a container is opened without its operator's lease");
    }
    const found = yield* this.#kube(() => this.#cluster.secret);
    if (!found) throw new StaleError();
    withFields(claim, { secretVersion: String(found.version), openingSent: true });
    if (!found.key)
      withFields(claim, {
        secretVersion: String(yield* this.#kube(() => this.#addKey(found.version, acknowledgedAt))),
      });
    withFields(claim, {
      journal: { ...claim.record.journal, acknowledgedAt, opened: true },
      openedMs: this.#timeline.nowMs,
    });
    yield* this.#touch(claim);
  }

  #addKey(version: number, acknowledgedAt: string): number {
    const { secret } = this.#cluster;
    if (secret?.version !== version) throw new StaleError();
    this.#cluster.keyPatches += 1;
    const journal = { ...secret.journal, acknowledgedAt, opened: true };
    this.#cluster.secret = { journal, version: version + 1, key: true };
    this.#timeline.say("key is in the Secret");
    return version + 1;
  }

  *#touch(claim: Claim): Script {
    yield* this.#kube(() => this.#cluster.touch());
    noteTouched(claim, this.#timeline.nowMs, true);
  }

  *#fence(claim: Claim, expected: string): Script {
    const ended = claim.observed.end !== null;
    withFields(claim, { memory: { is: "none" } });
    const beatSentMs = this.#timeline.nowMs;
    const answer = yield* this.#work(() => this.#api.beat("operator", expected));
    withFields(claim, { item: null });
    if (answer.kind === "refused" || answer.state !== "active") {
      withFields(claim, { memory: { is: "refused", atMs: beatSentMs } });
      return;
    }
    withFields(claim, {
      memory: { is: "fenced", beatSentMs, ttlMs: this.#api.variant.ttlMs, value: answer.last ?? "" },
    });
    if (expected === NO_HEARTBEAT && claim.record.journal.opened && !ended)
      withFields(claim, { ending: { why: "NoFirstBeat", message: "" } });
  }

  // --- lease: Operator ----------------------------------------------------------------------------------------------

  *#take(claim: Claim, expected: string): Script {
    withFields(claim, { memory: { is: "none" }, item: null });
    const sentMs = this.#timeline.nowMs;
    const sentWallMs = this.#wallMs();
    const answer = yield* this.#work(() => this.#api.beat("operator", expected));
    const taken = answer.kind === "refused" ? null : leaseOf(this.#heartbeat(answer), sentMs, sentWallMs);
    if (taken) {
      withFields(claim, { lease: taken });
      this.#paused = false;
      if (taken.is === "held") this.#keeper = new Process(this.#timeline, this.#keep(claim), this.#loss);
    } else if (claim.record.journal.opened) {
      this.losses += 1;
      withFields(claim, { lease: { is: "lost", by: "refusal", message: "moved", lapsedMs: this.#timeline.nowMs } });
    } else {
      withFields(claim, { memory: { is: "refused", atMs: this.#timeline.nowMs } });
    }
  }

  #heartbeat({ state, last }: Beat): Heartbeat {
    const ttlSeconds = this.#api.variant.ttlMs / 1_000;
    return { state, last_heartbeat: last ?? "", lease_extended: state === "active", ttl_seconds: ttlSeconds };
  }

  /** Does the lease keeper's work for one claim. */
  *#keep(claim: Claim): Script {
    let failures = 0;
    let dueMs = this.#timeline.nowMs + this.#intervalOf(claim) * this.#timeline.between(0.5, 1);
    while (claim.lease.own?.is === "held") {
      yield* sleep(Math.max(0, dueMs - this.#timeline.nowMs));
      const lease: Claim["lease"]["own"] = claim.lease.own;
      if (this.#paused || lease?.is !== "held") return;
      this.#beating = true;
      const result: BeatResult =
        this.#timeline.nowMs >= leaseEndMs(lease) ? { is: "failed" } : yield* this.#beat(lease.echo);
      this.#beating = false;
      const before: Claim["lease"]["own"] = claim.lease.own;
      if (before?.is !== "held") return;
      const now = { nowMs: this.#timeline.nowMs, wallMs: this.#wallMs() };
      const after = afterBeat(before, result, now, TIMING);
      withFields(claim, { lease: after });
      if (after.is === "lost") {
        this.losses += 1;
        this.#timeline.say(`lease lost: ${after.message}`);
      }
      if (after.is !== "held") return this.#process?.poke();
      const adopted = result.is === "refused";
      failures = result.is === "answered" || adopted ? 0 : failures + 1;
      const retryMs = Math.min(this.#intervalOf(claim) / 2, TIMING.retryBaseMs * 2 ** failures);
      if (adopted) dueMs = now.nowMs;
      else if (failures > 0) dueMs = Math.min(now.nowMs + retryMs, leaseEndMs(after));
      else dueMs = after.sentMs + this.#intervalOf(claim) * this.#timeline.between(0.85, 1);
      this.#process?.poke();
    }
  }

  #intervalOf({ lease: { own: lease } }: Claim): number {
    return beatIntervalMs(lease as HeldLease, TIMING);
  }

  *#beat(expected: string): Script<BeatResult> {
    const sentMs = this.#timeline.nowMs;
    const sentWallMs = this.#wallMs();
    try {
      const answer = yield* this.#work(() => this.#api.beat("operator", expected));
      if (answer.kind === "beat") return { is: "answered", beat: this.#heartbeat(answer), sentMs, sentWallMs };
      return { is: "refused", current: { state: answer.state, last_heartbeat: answer.last, ttl_seconds: null } };
    } catch (error) {
      return error instanceof RefusedError ? { is: "failed" } : { is: "unanswered", sentMs };
    }
  }

  *#quietKeeper(): Script {
    this.#paused = true;
    while (this.#beating) yield* sleep(10);
  }

  #resumeKeeper(claim: Claim): void {
    this.#paused = false;
    this.#keeper?.kill();
    if (claim.lease.own?.is === "held") this.#keeper = new Process(this.#timeline, this.#keep(claim), this.#loss);
  }

  *#letGo(claim: Claim): Script {
    yield* this.#quietKeeper();
    const { own: lease } = claim.lease;
    if (lease?.is !== "held") return;
    withFields(claim, {
      lease: null,
      item: null,
      memory: { is: "fenced", beatSentMs: newestSentMs(lease), ttlMs: lease.ttlMs },
    });
    // The last heartbeat is meant to shorten the lease; this server grants the same TTL as before.
    const sentMs = this.#timeline.nowMs;
    const result = yield* this.#beat(lease.echo);
    if (result.is !== "refused")
      withFields(claim, { memory: { is: "fenced", beatSentMs: sentMs, ttlMs: lease.ttlMs } });
  }

  *#stop(claim: Claim, force: boolean): Script {
    const held = claim.lease.own?.is === "held";
    if (force) yield* this.#quietKeeper();
    const { own: lease } = claim.lease;
    const now = { nowMs: this.#timeline.nowMs, wallMs: this.#wallMs() };
    if (held && !(lease?.is === "held" && maySendStop(lease, now, TIMING))) return this.#resumeKeeper(claim);
    const sentMs = this.#timeline.nowMs;
    const { state, goneByMs } = this.#cluster.live;
    if (
      force &&
      claim.record.ending === null &&
      state.is === "running" &&
      goneByMs === null &&
      this.#cluster.containerRuns
    ) {
      this.complaints.push("a session is stopped under its running container");
    }
    if (
      force &&
      claim.observed.end?.exitCode === SIGKILL_EXIT &&
      claim.record.ending === null &&
      this.#api.state === "active"
    ) {
      if (this.#limits.onPodFailure === "Release") this.complaints.push("a session to be released is stopped");
    }
    try {
      yield* this.#work(() => this.#api.stop("operator", force));
    } catch (error) {
      if (force) this.#resumeKeeper(claim);
      throw error;
    }
    const seen = claim.observed.item ?? this.#listed(sentMs);
    withFields(claim, {
      item: { ...seen, state: force ? "stopped" : "stopping", askedMs: Math.max(seen.askedMs, sentMs) },
    });
    if (force && claim.lease.own !== null) withFields(claim, { lease: { is: "over" } });
    if (force) return;
    withFields(claim, { gracefulStopMs: this.#timeline.nowMs });
    withFields(claim, { stoppingSinceMs: claim.lease.gracefulStopMs });
    if (claim.lease.own?.is === "held") withFields(claim, { lease: { ...claim.lease.own, state: "stopping" } });
    withFields(claim, { ending: { why: "MaxDuration", message: "" } });
  }

  *#deletePod(claim: Claim, step: Step & { do: "delete-pod" }): Script {
    yield* this.#kube(() => {
      const { state } = this.#cluster.live;
      const fits = step.why === "StartFailed" ? state.is === "parked" : state.is !== "ended";
      if (!fits && state.is !== "gone") throw new RefusedError(`the Pod is ${state.is}`);
      this.#cluster.delete();
    });
    withFields(claim, { ending: claim.record.ending ?? { why: step.why, message: step.message } });
    if (step.why === "StartFailed") this.#noteEnd(claim, { ...NOT_SEEN, cause: "StartFailed", message: "" });
  }

  *#dropSecret(claim: Claim): Script {
    yield* this.#kube(() => {
      const { secret } = this.#cluster;
      if (!secret) return;
      if (String(secret.version) !== claim.record.secretVersion) throw new StaleError();
      this.#cluster.secret = null;
    });
  }

  /** Reads the Secret again after a conflict. */
  #reread(claim: Claim): void {
    const { secret } = this.#cluster;
    if (!secret) {
      withFields(claim, { gone: true });
      return;
    }
    noteJournal(claim, secret.journal, this.#timeline.nowMs);
    withFields(claim, {
      secretVersion: String(secret.version),
      acknowledgedAt: secret.journal.acknowledgedAt ?? claim.record.acknowledgedAt,
    });
  }

  /** Lists the item of a running session every 5 s before its first heartbeat, then every 30 s. */
  *#sweep(): Script {
    for (;;) {
      const slow = this.#claim?.observed.firstBeatSeen ?? false;
      yield* sleep(slow ? TIMING.observeMs : TIMING.observeFirstBeatMs);
      const claim = this.#claim;
      if (
        !claim ||
        claim.record.journal.lease === "Operator" ||
        claim.observed.startedAtMs === null ||
        claim.observed.end !== null ||
        claim.record.claiming
      )
        continue;
      const view = yield* this.#try(this.#look());
      if (!view || this.#claim !== claim) continue;
      this.#saw(claim, view);
      this.#process?.poke();
    }
  }

  *#try<T>(script: Script<T>): Script<T | null> {
    try {
      return yield* script;
    } catch {
      return null;
    }
  }

  #kube<T>(effect: () => T): Script<T> {
    return request(effect, KUBE_BOUND_MS, KUBE_MS);
  }

  #work<T>(effect: () => T): Script<T> {
    return request(
      () => {
        this.#api.calls += 1;
        return effect();
      },
      TIMING.requestBoundMs,
      this.#workMs,
    );
  }
}
