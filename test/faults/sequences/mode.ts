import type fc from "fast-check";
import type { TestCluster } from "../../support/cluster.ts";
import type { Struck } from "./acts/act.ts";
import type { Stage } from "./stage.ts";

/** One thing that befalls an Environment. */
export interface Step<Kind extends string = string> {
  readonly kind: Kind;
  /** Pause before it, in milliseconds. */
  readonly afterMs: number;
  /** Decides whatever a step leaves open: which Pod, which call, which value. */
  readonly choice: number;
}

/** A world as it begins, and what befalls it. */
export interface Sequence<Kind extends string = string, Setting = unknown> {
  readonly setting: Setting;
  readonly steps: readonly Step<Kind>[];
}

/** What sequences of one mode of Environments are made of, and how they are played. */
export interface Mode<Kind extends string, Setting extends object, Played extends Stage> {
  readonly kinds: readonly Kind[];
  /** The kind that the n-th sequence holds a step of, at least. */
  kindOf(index: number): Kind;
  sequenceWith(kind: Kind): fc.Arbitrary<Sequence<Kind, Setting>>;
  /** For people: the setting as far as it matters, then the steps. */
  text(sequence: Sequence<Kind, Setting>): string;
  /** @param onStruck told each kind of step as it takes effect. */
  start(cluster: TestCluster, setting: Setting, seed: number, onStruck: (kind: string) => void): Promise<Played>;
  /** Does what a step says. Resolves with true when it took effect by itself. */
  perform(stage: Played, step: Step<Kind>): Promise<Struck>;
  /** Everything is well again, and stays so. */
  calm(stage: Played): Promise<void>;
  /** What must be true in the end, whatever befell it. */
  expectEnd(stage: Played): Promise<void>;
}
