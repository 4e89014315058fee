import type { Random } from "../../../src/core/backoff.ts";
import type { Clock } from "../../../src/core/clock.ts";
import { apiTime } from "../../../src/kube/objects.ts";
import type { Container, ContainerState, Pod } from "../../../src/kube/resource.ts";
import type { HttpSender } from "../../../src/work/http.ts";
import { type Fate, parseFate } from "../../../testbed/node/fate.ts";
import { Keeper } from "../../../testbed/node/keeper.ts";
import { Latency } from "../../../testbed/node/latency.ts";
import type { LiveContainer, StartRequest } from "../../../testbed/node/runtime.ts";
import type { Parking } from "../../../testbed/node/session-frame.ts";
import { WaitingContainer } from "../../../testbed/node/waiting-container.ts";
import type { RunningContainer } from "./api-server.ts";
import { BASE_URL } from "./work-api.ts";
import { type Program, Worker } from "./worker.ts";

/** How a container behaves once it gets its key. */
export interface ContainerFate {
  /** The kubelet cannot start it. */
  readonly startError: boolean;
  readonly program: Program;
  readonly servesMs: number;
}

/** A running container, whatever the API says about its Pod. */
export interface Running {
  readonly pod: string;
  readonly container: string;
  readonly workId: string;
  readonly worker: Worker;
}

export interface ContainerParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly http: HttpSender;
  readonly environmentId: string;
  readonly fate: (pod: Pod, container: string) => ContainerFate;
  /** Called when a container starts. */
  readonly onStart?: (running: Running) => void;
  /** Called when a waiting container gets a line that an operator must never send. */
  readonly onWrongLine?: (pod: string, error: Error) => void;
}

/**
 * One container of a Pod, from its start to its end: a keeper, or a program that gets its work item at once or from a
 * line.
 */
export class LoopContainer {
  /** `waiting`: for a line. */
  is: "waiting" | "running" | "ended" = "running";
  readonly startedAt: string;
  readonly #parts: ContainerParts;
  readonly #pod: () => Pod;
  readonly #spec: Container;
  readonly #running: Set<Running>;
  readonly #onEnd: (exitCode: number) => void;
  readonly #over = Promise.withResolvers<void>();
  readonly #killed = new AbortController();
  #waiting: WaitingContainer | null = null;
  #keeper: LiveContainer | null = null;
  #worker: Worker | null = null;
  /** The node is out of reach. */
  isLost = false;

  /**
   * @param pod the Pod as its node knows it now
   * @param running the node's running programs
   */
  constructor(
    parts: ContainerParts,
    pod: () => Pod,
    spec: Container,
    running: Set<Running>,
    onEnd: (exitCode: number) => void,
  ) {
    this.#parts = parts;
    this.#pod = pod;
    this.#spec = spec;
    this.#running = running;
    this.#onEnd = onEnd;
    this.startedAt = apiTime(parts.clock.now());
  }

  /** Waits for its line. What it is drawn to do is drawn when the line arrives. */
  wait(parking: Parking): void {
    const { clock, random, fate, onWrongLine } = this.#parts;
    let drawn: ContainerFate | undefined;
    const request: StartRequest = {
      ...{ pod: this.#pod(), container: this.#spec, fate: undefined, runsToCompletion: false, restartCount: 0 },
      ...{ env: this.#environment, latency: new Latency(random), evict: () => {} },
      fateNow: () => {
        drawn = fate(this.#pod(), this.#spec.name);
        return drawn.startError ? START_ERROR : undefined;
      },
      onFault: (error) => onWrongLine?.(this.#podName, error),
      onExit: ({ exitCode }) => this.#end(exitCode),
    };
    this.is = "waiting";
    this.#waiting = new WaitingContainer(clock, parking, request, ({ env }) => {
      const secret = env["ANTHROPIC_WORK_SECRET"];
      if (drawn) this.run(drawn, env["ANTHROPIC_WORK_ID"] ?? "", secret ?? env["ANTHROPIC_ENVIRONMENT_KEY"] ?? "");
      // This container signals its worker itself.
      return { signal: () => {} };
    });
  }

  keep(): void {
    this.#keeper = new Keeper(this.#parts.clock, this.#pod, ({ exitCode }) => this.#end(exitCode));
  }

  run(fate: ContainerFate, workId: string, secret: string): void {
    const { clock, http, environmentId, onStart } = this.#parts;
    this.is = "running";
    const baseUrl = this.#environment["ANTHROPIC_BASE_URL"] ?? BASE_URL;
    this.#worker = new Worker(clock, http, { baseUrl, environmentId, workId, secret });
    const running = { pod: this.#podName, container: this.#spec.name, workId, worker: this.#worker };
    this.#running.add(running);
    onStart?.(running);
    const killed = new Promise<number>((resolve) =>
      this.#killed.signal.addEventListener("abort", () => resolve(137), { once: true }),
    );
    void Promise.race([this.#worker.run(fate.program, fate.servesMs, this.#killed.signal), killed]).then((exitCode) => {
      this.#running.delete(running);
      this.#killed.abort();
      this.#end(exitCode);
    });
  }

  /** Sends SIGTERM. */
  terminate(): void {
    this.#keeper?.signal("SIGTERM");
    if (this.is === "waiting") this.#waiting?.signal("SIGTERM");
    else this.#worker?.terminate();
  }

  kill(): void {
    this.#killed.abort();
    this.#keeper?.signal("SIGKILL");
    this.#waiting?.signal("SIGKILL");
  }

  /** The streams of the container while it runs. A lost node hears and says nothing. */
  get attached(): RunningContainer | null {
    const streams = this.#waiting?.streams;
    if (!streams || this.is === "ended") return null;
    return {
      write: (text) => {
        if (!this.isLost) streams.write(Buffer.from(text));
      },
      follow: (fn) =>
        streams.follow((bytes) => {
          if (!this.isLost) fn(bytes.toString());
        }),
      ended: this.#over.promise,
    };
  }

  async log(): Promise<string> {
    return (await this.#waiting?.streams.log())?.toString() ?? "";
  }

  /** The state of a container that ended now. */
  ended(exitCode: number): ContainerState {
    const reason = exitCode === 0 ? "Completed" : "Error";
    const finishedAt = apiTime(this.#parts.clock.now());
    return { terminated: { exitCode, reason, startedAt: this.startedAt, finishedAt } };
  }

  #end(exitCode: number): void {
    if (this.is === "ended") return;
    this.is = "ended";
    this.#over.resolve();
    this.#onEnd(exitCode);
  }

  /** The variables whose values the Pod contains. */
  get #environment(): Record<string, string> {
    const env = this.#spec.env ?? [];
    return Object.fromEntries(env.flatMap(({ name, value }) => (value === undefined ? [] : [[name, value]])));
  }

  get #podName(): string {
    return this.#pod().metadata.name ?? "";
  }
}

/** The command is not in the image. */
const START_ERROR: Fate = parseFate({ kind: "start-error" });
