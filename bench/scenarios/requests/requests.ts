import { ANNOTATION_LEASE } from "../../../src/api/names.ts";
import type { Pod } from "../../../src/kube/resource.ts";
import type { FateInput } from "../../../testbed/node/fate.ts";
import type { Context, Findings, Gate, Scenario, Table } from "../../scenario.ts";
import { Stand } from "../../support/stand.ts";
import { countIdle } from "./idle.ts";
import { countSessions, KINDS } from "./sessions.ts";

const WORK_MS = 1_000;

export const requests: Scenario = {
  name: "requests",
  title: "Requests to the API server",
  about:
    "What the operator's own user asks of the API server, by the audit log: for a session that is served from a warm Pod at " +
    "a steady rate, its replacement and its clean-up included, and for Environments that have nothing to do. " +
    "The gates leave Events and Leases apart, and watches, which end by the clock.",
  run,
};

async function run({ options, log }: Context): Promise<Findings> {
  await using stand = await Stand.start();
  await stand.node({ seed: options.seed, fates });
  const tables: Table[] = [];
  const gates: Gate[] = [];
  const add = (found: { tables: Table[]; gates: Gate[] }) => {
    tables.push(...found.tables);
    gates.push(...found.gates);
    for (const { name, value } of found.gates) log(`  ${name}: ${value.toFixed(2)}`);
  };
  const load = options.quick ? { perSecond: 4, sessions: 12 } : { perSecond: 5, sessions: 150 };
  for (const kind of KINDS) {
    log(`${kind.name}: ${load.sessions} sessions, ${load.perSecond} a second`);
    add(await countSessions(stand, kind, load));
  }
  const environments = options.quick ? 3 : 20;
  const times = options.quick ? { settleSeconds: 6, seconds: 5 } : { settleSeconds: 75, seconds: 120 };
  log(`${environments} idle Environments for ${times.seconds} s`);
  add(await countIdle(stand, environments, times));
  return { tables, gates, notes: NOTES };
}

/** Chooses a worker that sends heartbeats itself, or a program that knows nothing of its lease. */
function fates({ metadata }: Pod): FateInput {
  const isBeaten = metadata.annotations?.[ANNOTATION_LEASE] === "Operator";
  return isBeaten ? { kind: "exit", code: 0, afterMs: WORK_MS } : { kind: "worker", workMs: WORK_MS };
}

const NOTES = [
  "The status of an Environment is written at most every 5 s however many sessions come: at a lower rate each has more of it. " +
    "Where finished Pods are kept, counting begins when as many are kept as `retainFinishedLimit` allows, so that each " +
    "session has a deletion, too.",
  "Idle replicas compare what each watch has shown with a list every ten minutes, and begin each watch anew after five to " +
    "ten: that is a few requests a replica, however many Environments there are.",
];
