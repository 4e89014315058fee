import type { Fault, HiddenStep } from "../../../model/steps.ts";
import type { PointEvent, PointObserver } from "../../../src/core/points.ts";
import { READINGS } from "./mapping.ts";

/** What a trace is made of, in the order in which it happened. */
export type Entry =
  /** What an operator did, at its named points. */
  | { readonly is: "point"; readonly event: PointEvent }
  /** What the test did: from here on such steps may happen, at any time and as often as they can. */
  | { readonly is: "allowed"; readonly steps: readonly (Fault | HiddenStep)[] }
  /** An Environment's operator ended, with nothing of its own under way, or began. */
  | { readonly is: "ended" | "began"; readonly environment: string };

/** Writes down what the operators of one run do, all on one clock. */
export class TraceRecorder {
  readonly entries: Entry[] = [];
  /** Requests under way that may change something, by Environment. */
  readonly #changes = new Map<string, Set<number>>();

  /** For every operator of the run. */
  readonly observer: PointObserver = (event) => {
    this.entries.push({ is: "point", event });
    if (!READINGS[event.point]?.steps.length) return;
    const calls = this.#changes.get(event.environment) ?? new Set();
    this.#changes.set(event.environment, calls);
    if (event.phase === "before") calls.add(event.call);
    else calls.delete(event.call);
  };

  /** Whether a request is under way that changes an item or what is recorded of it. */
  isChanging(environment: string): boolean {
    return (this.#changes.get(environment)?.size ?? 0) > 0;
  }

  allow(...steps: readonly (Fault | HiddenStep)[]): void {
    this.entries.push({ is: "allowed", steps });
  }

  /** @param environment `namespace/name` */
  ended(environment: string): void {
    this.entries.push({ is: "ended", environment });
  }

  began(environment: string): void {
    this.entries.push({ is: "began", environment });
  }

  /** Ids of the items that somebody journaled. */
  get items(): string[] {
    const ids = this.entries.flatMap((entry) =>
      entry.is === "point" && entry.event.point === "claim.journal" ? (entry.event.workId ?? []) : [],
    );
    return [...new Set(ids)];
  }
}
