import { ANNOTATION_LEASE } from "../../../../src/api/names.ts";
import type { Pod } from "../../../../src/kube/resource.ts";
import type { FateInput } from "../../../../testbed/node/node.ts";
import { FATES_OF_ANY, SOON_MS } from "../fates.ts";
import type { Kind } from "./steps.ts";

export type FateKind = Extract<Kind, `fate:${string}`>;

const SERVES_MS = 1_600;

/**
 * The fate of the session's container; null: it serves. With `lease: Operator` the program does not know about work
 * items.
 */
export function sessionFate(kind: FateKind | null, pod: Pod): FateInput {
  const isPlain = pod.metadata.annotations?.[ANNOTATION_LEASE] === "Operator";
  return kind ? fateOf(kind, isPlain) : serves(isPlain);
}

/** Sessions of these Pods never end. A container that starts after its sandbox failed runs until it is told to stop. */
export const ENDLESS: ReadonlySet<FateKind> = new Set([
  "fate:endless",
  "fate:ignores-sigterm",
  "fate:never-beats",
  "fate:sandbox-error",
]);

function serves(isPlain: boolean): FateInput {
  return isPlain ? { kind: "exit", code: 0, afterMs: SERVES_MS } : { kind: "worker", workMs: SERVES_MS };
}

function fateOf(kind: FateKind, isPlain: boolean): FateInput {
  switch (kind) {
    case "fate:oom":
      return isPlain ? { kind: "oom", afterMs: SOON_MS } : { kind: "worker", workMs: SOON_MS, end: "oom" };
    case "fate:killed":
      return isPlain ? { kind: "killed", afterMs: SOON_MS } : { kind: "worker", workMs: SOON_MS, end: "killed" };
    case "fate:silent-exit":
      return isPlain ? { kind: "exit", code: 0 } : { kind: "worker", workMs: SOON_MS, end: "exit-without-stop" };
    case "fate:endless":
      return isPlain ? { kind: "run" } : { kind: "worker", end: "hang" };
    case "fate:ignores-sigterm":
      return isPlain ? { kind: "run", onTerm: "ignore" } : { kind: "worker", end: "hang", onTerm: "ignore" };
    case "fate:never-beats":
      return isPlain ? { kind: "run" } : { kind: "worker", end: "hang", neverBeats: true };
    case "fate:slow-start":
      return { ...serves(isPlain), startDelayMs: 6_000 };
    default:
      return FATES_OF_ANY[kind];
  }
}
