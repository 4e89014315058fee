import { sequenceText } from "../draw.ts";
import type { Mode } from "../mode.ts";
import { expectEnd } from "./end.ts";
import { calm, perform } from "./perform.ts";
import { SessionsStage } from "./stage.ts";
import { KINDS, type Kind, type Setting, sequenceWith } from "./steps.ts";

export const SESSIONS: Mode<Kind, Setting, SessionsStage> = {
  kinds: KINDS,
  kindOf: (index) => KINDS[index % KINDS.length] ?? "work:session",
  sequenceWith,
  text: sequenceText,
  start: SessionsStage.start,
  perform,
  calm,
  expectEnd,
};
