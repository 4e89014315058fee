import type { Stage } from "./stage.ts";

/** What is recorded on one cluster. */
export interface Act {
  readonly name: string;
  readonly play: (stage: Stage) => Promise<void>;
}
