import type { Deployment, Pod } from "../src/kube/objects.ts";
import type { Change } from "../src/watch/informer.ts";
import type { Board } from "./board.ts";
import { count } from "./text.ts";
import type { Track } from "./track.ts";

/** The current workers of an Environment. */
export interface WorkerCounts {
  /** The replicas that Berth requests of its Deployments. */
  readonly desired: number;
  /** Existing Pods, including terminating ones. */
  readonly replicas: number;
  readonly ready: number;
  /** With a session. */
  readonly busy: number;
}

/** The Deployments of an Environment with always-on workers, and their Pods. */
export class WorkerPods {
  readonly #environment: string;
  readonly #board: Board;
  readonly #pods = new Map<string, Pod>();
  readonly #deployments = new Map<string, Deployment>();
  /** The names of all its Pods so far. */
  readonly #seen = new Set<string>();
  #desired = 0;
  #most = 0;

  constructor(environment: string, board: Board) {
    this.#environment = environment;
    this.#board = board;
  }

  get counts(): WorkerCounts {
    const running = this.#tracks.filter(({ at }) => at.claimed !== undefined && at.stopped === undefined);
    return {
      desired: this.#desired,
      replicas: this.#pods.size,
      ready: [...this.#pods.values()].filter(isReady).length,
      busy: new Set(running.map(({ pod }) => pod)).size,
    };
  }

  /** No worker exists and none is wanted. */
  get isEmpty(): boolean {
    return this.#desired === 0 && this.#pods.size === 0;
  }

  /** The largest number requested so far. */
  get most(): number {
    return this.#most;
  }

  /** Takes in a change of a worker Pod from the API server. */
  pod({ type, object }: Change<Pod>): void {
    const name = object.metadata.name ?? "";
    this.#seen.add(name);
    if (type === "deleted") this.#pods.delete(name);
    else this.#pods.set(name, object);
  }

  /** Takes in a change of a Deployment. Each version of the template has its own. */
  deployment({ type, object }: Change<Deployment>): void {
    const name = object.metadata.name ?? "";
    if (type === "deleted") this.#deployments.delete(name);
    else this.#deployments.set(name, object);
    const desired = [...this.#deployments.values()].reduce((sum, { spec }) => sum + (spec.replicas ?? 1), 0);
    if (desired === this.#desired) return;
    this.#board.announce(`scaled from ${this.#desired} to ${count(desired, "worker")}`, this.#environment);
    this.#desired = desired;
    this.#most = Math.max(this.#most, desired);
  }

  /** Sessions that were claimed by anything but these workers, one per line. */
  strangers(): string[] {
    return this.#tracks
      .filter(({ at, pod }) => at.claimed !== undefined && !this.#seen.has(pod ?? ""))
      .map(
        ({ number, pod }) =>
          `${this.#environment} ${number} was claimed by ${pod ?? "an unknown client"}, not by one of its workers`,
      );
  }

  get #tracks(): Track[] {
    return this.#board.tracksOf(this.#environment);
  }
}

function isReady({ status, metadata }: Pod): boolean {
  if (metadata.deletionTimestamp !== undefined) return false;
  return status?.conditions?.some((condition) => condition.type === "Ready" && condition.status === "True") === true;
}
