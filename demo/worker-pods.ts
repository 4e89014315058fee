import type { Deployment, Pod } from "../src/kube/objects.ts";
import type { Change } from "../src/watch/informer.ts";
import type { Board } from "./board.ts";
import { count } from "./text.ts";
import type { Track } from "./track.ts";

/** The workers of an Environment at this moment. */
export interface WorkerCounts {
  /** What Berth asks its Deployments for. */
  readonly desired: number;
  /** Pods that exist, those on their way out included. */
  readonly replicas: number;
  readonly ready: number;
  /** With a session in hand. */
  readonly busy: number;
}

/** The Deployments of an Environment with always-on workers, and their Pods. */
export class WorkerPods {
  readonly #environment: string;
  readonly #board: Board;
  readonly #pods = new Map<string, Pod>();
  readonly #deployments = new Map<string, Deployment>();
  /** Names of all that there ever were. */
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

  /** No worker is there, and none is wanted. */
  get isEmpty(): boolean {
    return this.#desired === 0 && this.#pods.size === 0;
  }

  /** The largest number that was asked for. */
  get most(): number {
    return this.#most;
  }

  /** A change of a worker's Pod, as the API server shows it. */
  pod({ type, object }: Change<Pod>): void {
    const name = object.metadata.name ?? "";
    this.#seen.add(name);
    if (type === "deleted") this.#pods.delete(name);
    else this.#pods.set(name, object);
  }

  /** A change of a Deployment; there is one for each version of the template. */
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

  /** Sessions that were taken by somebody who is none of these workers, a line each. */
  strangers(): string[] {
    return this.#tracks
      .filter(({ at, pod }) => at.claimed !== undefined && !this.#seen.has(pod ?? ""))
      .map(
        ({ number, pod }) => `${this.#environment} ${number} was taken by ${pod ?? "nobody"}, which is no worker of it`,
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
