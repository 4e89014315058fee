import type { Scenario } from "../scenario.ts";
import { attach } from "./attach.ts";
import { budget } from "./budget.ts";
import { manyEnvironments } from "./many-environments.ts";
import { manySessions } from "./many-sessions.ts";
import { manySleeping } from "./many-sleeping.ts";
import { pickup } from "./pickup.ts";
import { requests } from "./requests/requests.ts";
import { restart } from "./restart.ts";
import { scaleDecision } from "./scale-decision.ts";
import { startUp } from "./start-up.ts";
import { starts } from "./starts.ts";
import { throughput } from "./throughput.ts";
import { waiting } from "./waiting.ts";
import { wakes } from "./wakes.ts";
import { workerStart } from "./worker-start.ts";
import { workers } from "./workers.ts";

/** All scenarios, in the order in which they run and appear in the report. */
export const SCENARIOS: readonly Scenario[] = [
  pickup,
  throughput,
  requests,
  manySessions,
  manySleeping,
  manyEnvironments,
  restart,
  scaleDecision,
  workers,
  startUp,
  workerStart,
  budget,
  starts,
  waiting,
  attach,
  wakes,
];
