import type fc from "fast-check";
import type { TestCluster } from "../../support/cluster.ts";
import type { Struck } from "./acts/act.ts";
import type { Stage } from "./stage.ts";

/** One thing that happens to an Environment. */
export interface Step<Kind extends string = string> {
  readonly kind: Kind;
  /** Pause before it, in milliseconds. */
  readonly afterMs: number;
  /** Decides everything that a step leaves open: which Pod, which call, which value. */
  readonly choice: number;
}

/** A world's initial setting, and the steps that follow. */
export interface Sequence<Kind extends string = string, Setting = unknown> {
  readonly setting: Setting;
  readonly steps: readonly Step<Kind>[];
}

/** The steps of one mode of Environments, and how to perform them. */
export interface Mode<Kind extends string, Setting extends object, Played extends Stage> {
  readonly kinds: readonly Kind[];
  /** A kind of which the n-th sequence contains at least one step. */
  kindOf(index: number): Kind;
  sequenceWith(kind: Kind): fc.Arbitrary<Sequence<Kind, Setting>>;
  /** The relevant settings, then the steps, for the reader of a failure. */
  text(sequence: Sequence<Kind, Setting>): string;
  /** @param onStruck called with each kind of step that takes effect */
  start(cluster: TestCluster, setting: Setting, seed: number, onStruck: (kind: string) => void): Promise<Played>;
  /** Does what a step says. Resolves with true if it took effect at once. */
  perform(stage: Played, step: Step<Kind>): Promise<Struck>;
  /** Ends all faults permanently. */
  calm(stage: Played): Promise<void>;
  /** Checks what must be true at the end, whatever happened. */
  expectEnd(stage: Played): Promise<void>;
}
