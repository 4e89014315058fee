import { LABEL_PHASE } from "../../../src/api/names.ts";
import { EVENTS, PODS, SECRETS } from "../../../src/kube/resource.ts";
import { CLAIM_SECRET_TYPE, type LeaseKind } from "../../../src/protocol/journal.ts";
import type { AuditMark } from "../../../testbed/cluster/audit.ts";
import type { Cell, Gate, Table } from "../../scenario.ts";
import { OwnRequests } from "../../support/requests.ts";
import type { Served, Stand } from "../../support/stand.ts";
import { Touches } from "../../support/touches.ts";
import { until } from "../../support/until.ts";

/** The settings of an Environment that affect the requests of its sessions. */
export interface Kind {
  readonly name: string;
  readonly lease: LeaseKind;
  /** The number of finished Pods to keep, each for longer than the measurement takes. */
  readonly kept: number;
}

export const KINDS: readonly Kind[] = [
  { name: "worker", lease: "Worker", kept: 0 },
  { name: "worker-kept", lease: "Worker", kept: 100 },
  { name: "operator", lease: "Operator", kept: 0 },
  { name: "operator-kept", lease: "Operator", kept: 100 },
];

export interface Load {
  readonly perSecond: number;
  readonly sessions: number;
}

const WARM = 10;
const REQUESTS_AT_MOST = 8;
/** Keeping a Pod costs one more request, eight in total. The rest is for containers that are touched again. */
const KEPT_AT_MOST = 8.5;
const READS_AT_MOST = 1;
const EVENTS_AT_MOST = 2;

/**
 * Serves a load of one kind. It counts all requests between two quiet moments, so that the count includes everything
 * that a session causes.
 */
export async function countSessions(
  stand: Stand,
  kind: Kind,
  { perSecond, sessions }: Load,
): Promise<{ tables: Table[]; gates: Gate[] }> {
  const namespace = await stand.namespace(`sessions-${kind.name}`);
  const simulator = await stand.simulator();
  const { id: environmentId } = simulator.createEnvironment();
  const served: Served = { namespace, name: "bench", simulator, environmentId };
  await using touches = new Touches(stand.kube, namespace);
  await stand.environment(served, specFor(kind));
  await using operator = await stand.operator(simulator.url, ["--leader-elect=false", "--namespace", namespace]);
  const serve = async (count: number) => {
    const atSeconds = Array.from({ length: count }, (_, at) => at / perSecond);
    await simulator.arrivals(environmentId, { kind: "replay", atSeconds }).done;
    await until("all sessions to be served and cleaned up", () => unquiet(stand, served, kind, touches));
  };
  // The first sessions add the finalizer and fill the kept Pods.
  await serve(WARM + kind.kept);
  const told = await eventsOf(stand, namespace);
  const since = await stand.cluster.audit.mark();
  await serve(sessions);
  await operator.stop();
  simulator.assertNoViolations();
  return findings(stand, { kind, sessions, namespace, since, told });
}

async function findings(
  stand: Stand,
  counted: { kind: Kind; sessions: number; namespace: string; since: AuditMark; told: ReadonlyMap<string, number> },
): Promise<{ tables: Table[]; gates: Gate[] }> {
  const { kind, sessions, namespace, since, told } = counted;
  const requests = await OwnRequests.since(stand.cluster.audit, since);
  const title = `lease: ${kind.lease}, ${kind.kept === 0 ? "retainEndedSeconds: 0" : "finished Pods kept"}`;
  const rows = [...(await eventsOf(stand, namespace))].flatMap(([reason, count]): Cell[][] => {
    const more = count - (told.get(reason) ?? 0);
    return more === 0 ? [] : [[reason, more, more / sessions]];
  });
  const gate = (what: string, count: number, atMost: number): Gate => ({
    name: `${title}: ${what} per session`,
    value: count / sessions,
    atMost,
    unit: "",
  });
  return {
    tables: [
      requests.purposes(`${title}: ${sessions} sessions`, sessions),
      { title: `${title}: Events`, columns: ["reason", "count", "per session"], rows },
    ],
    gates: [
      // The number of status requests per session depends on the number of sessions.
      kind.kept === 0
        ? gate("requests", requests.total, REQUESTS_AT_MOST)
        : gate("requests without the status,", requests.total - requests.statuses, KEPT_AT_MOST),
      gate("reads", requests.reads, READS_AT_MOST),
      gate("writes of Events", requests.events, EVENTS_AT_MOST),
    ],
  };
}

function specFor({ lease, kept }: Kind) {
  const template = { spec: { containers: [{ name: "worker", image: "worker:1" }] } };
  const keeping = kept === 0 ? { retainEndedSeconds: 0 } : {};
  return { sessions: { maxConcurrent: 100, warm: WARM, lease, ...keeping, template } };
}

/**
 * Returns null if every item is settled and every Pod is replaced, marked, or deleted as it should be. Otherwise
 * returns the remaining counts.
 */
async function unquiet(stand: Stand, served: Served, { kept }: Kind, touches: Touches): Promise<string | null> {
  const { simulator, environmentId, namespace } = served;
  const live = simulator.items(environmentId).filter(({ state }) => state !== "stopped").length;
  const [secrets, pods] = await Promise.all([
    stand.kube.listAll(SECRETS, { namespace }),
    stand.kube.listAll(PODS, { namespace }),
  ]);
  const claims = secrets.items.filter(({ type }) => type === CLAIM_SECRET_TYPE).length;
  const inPhase = (phase: string) =>
    pods.items.filter(({ metadata }) => metadata.labels?.[LABEL_PHASE] === phase).length;
  const [free, finished, assigned] = [inPhase("warm"), inPhase("ended"), inPhase("running")];
  // The operator may have created another Pod for a waiting item. The Pod stays for 5 minutes.
  const isParked = free >= WARM && touches.parked.length === free;
  if (live === 0 && claims === 0 && isParked && finished === kept && assigned === 0) return null;
  return JSON.stringify({ live, claims, free, parked: touches.parked.length, finished, assigned });
}

/** Counts the operator's Events by reason. */
async function eventsOf(stand: Stand, namespace: string): Promise<Map<string, number>> {
  const counts = new Map<string, number>();
  const { items } = await stand.kube.listAll(EVENTS, { namespace });
  for (const { reason = "", count = 1, source } of items) {
    if (source?.component === "berth") counts.set(reason, (counts.get(reason) ?? 0) + count);
  }
  return counts;
}
