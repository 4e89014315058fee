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
    "The requests of the operator's own user to the API server, from the audit log. Sessions arrive at a steady rate " +
    "and start in warm Pods. The count for a session includes the replacement of its Pod and the cleanup. Idle " +
    "Environments are counted separately. The gates exclude Events, Leases, and watches, which end after a fixed " +
    "time.",
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
    log(`${kind.name}: ${load.sessions} sessions, ${load.perSecond} per second`);
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
  "The status of an Environment is written at most every 5 s. At a lower rate of sessions, each session has a larger " +
    "share of these writes. If finished Pods are kept, counting begins once 100 of them exist, so " +
    "each session also has a deletion.",
  "Idle replicas compare each watch with a list every ten minutes, and restart each watch after five to ten minutes. " +
    "These are a few requests per replica, whatever the number of Environments.",
];
