import type { Fault, HiddenStep } from "../../../model/steps.ts";
import type { PointEvent, PointObserver } from "../../../src/core/points.ts";
import { READINGS } from "./mapping.ts";

/** A Pod of an Environment, which is `namespace/name`. */
export interface PodName {
  readonly environment: string;
  readonly pod: string;
}

/** The entries of a trace, in the order in which they happened. */
export type Entry =
  /** An operator reached one of its named points. */
  | { readonly is: "point"; readonly event: PointEvent }
  /** The test allowed these steps: from here on they may happen at any time and any number of times, to any Pod or to this one. */
  | { readonly is: "allowed"; readonly steps: readonly (Fault | HiddenStep)[]; readonly of?: PodName }
  /** An Environment's operator started, or ended with none of its own requests in flight. */
  | { readonly is: "ended" | "began"; readonly environment: string }
  /** The API server shows that the container of an Environment's Pod, or of a turn, has ended, or that the Pod is gone. */
  | { readonly is: "over"; readonly environment: string; readonly pod: string; readonly turn?: number }
  /** A user deleted an Environment's volume, which is gone. */
  | { readonly is: "lost"; readonly environment: string; readonly volume: string };

/** Records what the operators of one run do, on one clock. */
export class TraceRecorder {
  readonly entries: Entry[] = [];
  /** Requests in flight that may change something, by Environment. */
  readonly #changes = new Map<string, Set<number>>();

  /** The observer for every operator of the run. */
  readonly observer: PointObserver = (event) => {
    this.entries.push({ is: "point", event });
    if (!READINGS[event.point]?.steps.length) return;
    const calls = this.#changes.get(event.environment) ?? new Set();
    this.#changes.set(event.environment, calls);
    if (event.phase === "before") calls.add(event.call);
    else calls.delete(event.call);
  };

  /** Whether a request is in flight that changes an item or its record. */
  isChanging(environment: string): boolean {
    return (this.#changes.get(environment)?.size ?? 0) > 0;
  }

  allow(...steps: readonly (Fault | HiddenStep)[]): void {
    this.entries.push({ is: "allowed", steps });
  }

  /** Allows steps that hit this Pod only. */
  allowFor(of: PodName, ...steps: readonly (Fault | HiddenStep)[]): void {
    this.entries.push({ is: "allowed", steps, of });
  }

  /** @param environment `namespace/name` */
  ended(environment: string): void {
    this.entries.push({ is: "ended", environment });
  }

  began(environment: string): void {
    this.entries.push({ is: "began", environment });
  }

  over(environment: string, pod: string, turn = 1): void {
    this.entries.push({ is: "over", environment, pod, turn });
  }

  lost(environment: string, volume: string): void {
    this.entries.push({ is: "lost", environment, volume });
  }

  /** Ids of the items that any operator journaled. */
  get items(): string[] {
    const ids = this.entries.flatMap((entry) =>
      entry.is === "point" && entry.event.point === "claim.journal" ? (entry.event.workId ?? []) : [],
    );
    return [...new Set(ids)];
  }
}
