/** A simulated Pod, its Secret and its program, for the property tests of the protocol. */
import type { End, PodState } from "../../src/pods/pod-state.ts";
import type { Journal } from "../../src/protocol/journal.ts";
import { NO_HEARTBEAT } from "../../src/work/types.ts";
import { type ItemApi, RefusedError } from "./protocol-api.ts";
import { type Loss, NoAnswerError, Process, request, type Script, sleep, type Timeline } from "./protocol-timeline.ts";

/**
 * How the program in the container behaves. `hangs` stops its heartbeats and never exits; `deaf` continues them and
 * never exits. `plain` does not know the item: it works and exits.
 */
export type Program = "stock" | "silent" | "crashes" | "hangs" | "deaf" | "plain";

interface PodView {
  readonly state: PodState | { readonly is: "gone" };
  readonly assigned: boolean;
  readonly goneByMs: number | null;
}

export const GRACE_MS = 120_000;
const POD_OVERDUE_MS = 30_000;
const SIGKILL_EXIT = 137;
const WORK_BOUND_MS = 10_000;
const STOP_BOUND_MS = 1_500;
const WORK_MS = 300;
/** When a container on a lost node has ended at the latest, together with the node. */
const LOST_MS = 1_200_000;

/** One Pod, the Secret of its name, and the program in it. */
export class Cluster {
  readonly #timeline: Timeline;
  readonly #api: ItemApi;
  readonly #loss: Loss;
  readonly #program: Program;
  readonly #servesMs: number;
  /** Changes with their times. The operator's cache sees them a little later. */
  readonly #history: { readonly atMs: number; readonly view: PodView }[] = [];
  onChange: () => void = () => {};
  secret: { journal: Journal; version: number; key: boolean } | null = null;
  keyPatches = 0;
  #state: PodView["state"] = { is: "parked" };
  #assigned = false;
  #goneByMs: number | null = null;
  #worker: Process | null = null;
  /** Whether the program believes that it holds the lease. */
  #holds = false;

  constructor(timeline: Timeline, api: ItemApi, loss: Loss, program: Program, servesMs: number) {
    this.#timeline = timeline;
    this.#api = api;
    this.#loss = loss;
    this.#program = program;
    this.#servesMs = servesMs;
    this.#note();
    this.#lookLater();
  }

  get live(): PodView {
    return { state: this.#state, assigned: this.#assigned, goneByMs: this.#goneByMs };
  }

  /** The Pod in a cache that lags by `lagMs`. If the cache has no Pod, this is a live read. */
  cached(lagMs: number): PodView {
    const seen = this.#history.findLast(({ atMs }) => atMs <= this.#timeline.nowMs - lagMs);
    return seen && seen.view.state.is !== "gone" ? seen.view : this.live;
  }

  get containerRuns(): boolean {
    return this.#worker?.alive ?? false;
  }

  touch(): void {
    if (this.#state.is === "gone") throw new RefusedError("no Pod to touch");
    this.#assigned = true;
    this.#note();
    this.#timeline.after(this.#timeline.between(20, 150), () => this.#look());
  }

  delete(): void {
    if (this.#goneByMs !== null || this.#state.is === "gone") return;
    this.#goneByMs = this.#timeline.nowMs + GRACE_MS + POD_OVERDUE_MS;
    this.#note();
    this.#timeline.say("Pod deleted");
    if (this.#state.is !== "running") {
      this.#timeline.after(this.#timeline.between(10, 1_000), () => this.#vanish());
      return;
    }
    const heeds = this.#program === "stock" || this.#program === "plain";
    const leavesMs = heeds ? this.#timeline.between(100, 30_000) : GRACE_MS;
    this.#timeline.after(leavesMs, () => {
      // Only a worker that holds its lease stops its item on SIGTERM.
      if (this.#program === "stock" && this.#holds && this.containerRuns) this.#api.stop("worker", true);
      this.end(leavesMs === GRACE_MS ? SIGKILL_EXIT : 0);
      this.#timeline.after(1_000, () => this.#vanish());
    });
  }

  /** Loses the node: the Pod object is deleted, but the container runs on for a while. */
  loseNode(): void {
    if (this.#state.is === "gone") return;
    this.#state = { is: "gone" };
    this.#timeline.say("node lost, Pod object deleted");
    this.#note();
    this.#timeline.after(this.#timeline.between(0, LOST_MS), () => this.#worker?.kill());
  }

  /** Ends the container. */
  end(exitCode: number): void {
    this.#worker?.kill();
    if (this.#state.is !== "running") return;
    const end: End = {
      cause: exitCode === 0 ? "Completed" : "Killed",
      message: "",
      exitCode,
      startedAtMs: this.#state.startedAtMs,
      finishedAtMs: this.#api.epochMs + this.#timeline.nowMs,
    };
    this.#timeline.say(`container ended with ${exitCode}`);
    this.#timeline.after(this.#timeline.between(100, 900), () => {
      if (this.#state.is !== "running") return;
      this.#state = { is: "ended", end };
      this.#note();
    });
  }

  #vanish(): void {
    this.#worker?.kill();
    this.#state = { is: "gone" };
    this.#timeline.say("Pod gone");
    this.#note();
  }

  /** The kubelet syncs on its own every 10-15 s. */
  #lookLater(): void {
    this.#timeline.after(this.#timeline.between(10_000, 15_000), () => {
      this.#look();
      if (this.#state.is === "parked") this.#lookLater();
    });
  }

  #look(): void {
    if (this.#state.is !== "parked" || this.#goneByMs !== null || !this.secret?.key) return;
    if (this.#api.ours === 0)
      this.#api.violations.push("S4 a container starts for an item that was never acknowledged");
    this.#state = { is: "running", startedAtMs: this.#api.epochMs + this.#timeline.nowMs };
    this.#timeline.say("container starts");
    this.#note();
    this.#worker = new Process(this.#timeline, this.#run(), this.#loss);
  }

  #note(): void {
    this.#history.push({ atMs: this.#timeline.nowMs, view: this.live });
    this.onChange();
  }

  *#beat(expected: string): Script<ReturnType<ItemApi["beat"]> | null> {
    try {
      return yield* request(() => this.#api.beat("worker", expected), WORK_BOUND_MS, WORK_MS);
    } catch (error) {
      if (error instanceof RefusedError) return { kind: "refused", state: "queued", last: null };
      if (error instanceof NoAnswerError) return null;
      throw error;
    }
  }

  *#run(): Script {
    if (this.#program === "silent") return yield* sleep(Number.MAX_SAFE_INTEGER);
    if (this.#program === "crashes") {
      yield* sleep(this.#timeline.between(50, 500));
      return this.end(1);
    }
    if (this.#program === "plain") {
      yield* sleep(this.#servesMs);
      return this.end(0);
    }
    yield* this.#serve();
    this.#holds = false;
    this.end(0);
  }

  /**
   * A stock worker sends heartbeats. It exits without a stop when its lease is lost, and with one when it is done or
   * told to stop.
   */
  *#serve(): Script {
    const timeline = this.#timeline;
    const { ttlMs } = this.#api.variant;
    yield* sleep(timeline.between(200, 3_000));
    const doneMs = timeline.nowMs + this.#servesMs;
    let expected: string = NO_HEARTBEAT;
    let boughtMs = timeline.nowMs;
    for (;;) {
      const sentMs = timeline.nowMs;
      const answer = yield* this.#beat(expected);
      if (answer?.kind === "refused") return;
      if (answer && answer.state !== "active") {
        if (this.#program === "deaf") yield* sleep(Number.MAX_SAFE_INTEGER);
        return yield* this.#stopItem();
      }
      if (answer?.last) {
        expected = answer.last;
        boughtMs = sentMs;
        this.#holds = true;
      }
      if (this.#program === "hangs") yield* sleep(Number.MAX_SAFE_INTEGER);
      // A whole TTL without a success, less the time that the next answer may take, loses the lease.
      if (timeline.nowMs - boughtMs > ttlMs - WORK_BOUND_MS && ttlMs > WORK_BOUND_MS) return;
      const leftMs = this.#program === "deaf" ? Number.POSITIVE_INFINITY : doneMs - timeline.nowMs;
      if (leftMs <= 0) return yield* this.#stopItem();
      const beatMs = Math.min(ttlMs / 2, 30_000) - (timeline.nowMs - sentMs);
      yield* sleep(answer ? Math.max(100, Math.min(beatMs, leftMs)) : 1_000);
    }
  }

  *#stopItem(): Script {
    this.#holds = false;
    try {
      yield* request(() => this.#api.stop("worker", true), STOP_BOUND_MS, WORK_MS);
    } catch {
      // The worker still exits, and the operator settles the item.
    }
  }
}
