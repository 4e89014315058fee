import type { FateInput } from "../../../../testbed/node/node.ts";
import { BUSY_PORT } from "../../../support/workers-world.ts";
import { FATES_OF_ANY } from "../fates.ts";
import type { Kind } from "./steps.ts";

export type FateKind = Extract<Kind, `fate:${string}`>;

/** Some sessions end before the operator reads the queue, and others span several reads. */
const SERVES_MS = { min: 1_600, max: 32_000 } as const;
/** Long enough for several reads of the queue by the operator. */
const SERVES_WHEN_CALM_MS = 8_000;
/** Longer than a sequence. */
const FOR_EVER_MS = 36_000_000;

/** Sessions on such workers never end. */
export const ENDLESS: ReadonlySet<FateKind> = new Set(["fate:endless", "fate:ignores-sigterm"]);

/** Such workers never report whether they are busy, so the operator never removes them. */
export const SILENT: ReadonlySet<FateKind> = new Set(["fate:silent", "fate:sandbox-error"]);

const poller = { kind: "poller", workMs: SERVES_MS, busyPort: BUSY_PORT } as const;

export const WHEN_CALM: FateInput = { ...poller, workMs: SERVES_WHEN_CALM_MS };

/** The fate of a worker's container; null: it polls and serves. It is the same for each start. */
export function workerFate(kind: FateKind | null): FateInput {
  switch (kind) {
    case null:
      return poller;
    case "fate:slow-start":
      return { ...poller, startDelayMs: 6_000 };
    case "fate:endless":
      return { ...poller, workMs: FOR_EVER_MS };
    case "fate:ignores-sigterm":
      return { ...poller, workMs: FOR_EVER_MS, onTerm: "ignore" };
    case "fate:silent":
      return { kind: "poller", workMs: SERVES_MS };
    default:
      return FATES_OF_ANY[kind];
  }
}
