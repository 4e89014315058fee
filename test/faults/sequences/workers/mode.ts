import { sequenceText } from "../draw.ts";
import type { Mode } from "../mode.ts";
import { expectEnd } from "./end.ts";
import { calm, perform } from "./perform.ts";
import { WorkersStage } from "./stage.ts";
import { KINDS, type Kind, type Setting, sequenceWith } from "./steps.ts";

/**
 * Steps through the kinds so that a run with fewer sequences than kinds has one of each family, and more of the larger
 * families.
 */
const STRIDE = 7;

export const WORKERS: Mode<Kind, Setting, WorkersStage> = {
  kinds: KINDS,
  kindOf: (index) => KINDS[(index * STRIDE) % KINDS.length] ?? "work:session",
  sequenceWith,
  text: sequenceText,
  start: WorkersStage.start,
  perform,
  calm,
  expectEnd,
};
