import { describe, expect, test } from "vitest";
import { ENVIRONMENTS } from "../../src/reconcile/finalizer.ts";
import type { AuditEntry } from "../../testbed/cluster/audit.ts";
import { OPERATOR } from "../../testbed/cluster/users.ts";
import { useCluster } from "../support/cluster.ts";
import { startWorld, type World } from "../support/world.ts";

const cluster = useCluster();

const SESSIONS = 4;

/** The requests of one session about its Pod and its Secret, in order. */
const CLAIM = "create secrets, get pods, patch secrets, patch pods, delete secrets";
const BUDGETS = [
  ["Worker", 0, `${CLAIM}, delete pods`],
  ["Worker", 1, `${CLAIM}, patch pods, delete pods`],
  ["Operator", 0, `${CLAIM}, delete pods`],
  ["Operator", 1, `${CLAIM}, patch pods, delete pods`],
] as const;

/** The requests of one session in a waiting shell, beside one attach: eight in all. */
const SHELL_REQUESTS = [
  ...["create pods", "create secrets", "get pods", "patch secrets"],
  ...["patch pods", "delete secrets", "delete pods"],
];

describe("the operator's requests to the API server", () => {
  test.each(BUDGETS)("for a session with lease: %s, its Pod retained for %i s: fit the budget", async (...row) => {
    const [lease, retainEndedSeconds, budget] = row;
    await using world = await sessionsWorld({ lease, retainEndedSeconds });
    const own = await requestsOfSessions(world);
    const isBeside = (entry: AuditEntry) => /^create (pods|events)$/.test(requestOf(entry));
    const bySession = Map.groupBy(
      own.filter((entry) => !isBeside(entry)),
      ({ name }) => name,
    );
    expect([...bySession.values()].map(withoutExcuses)).toEqual(Array(SESSIONS).fill(budget));
    expect(countsOf(own.filter(isBeside))).toEqual({ "create pods": SESSIONS, "create events": 2 * SESSIONS });
    world.simulator.assertNoViolations();
  });

  test.each(["Worker", "Operator"])(
    "for a session in a waiting shell with lease: %s: fit the budget",
    async (lease) => {
      const sessions = { lease, parking: "Shell", retainEndedSeconds: 0 };
      await using world = await sessionsWorld(sessions, { command: ["worker"] });
      const all = await requestsOfSessions(world);
      const own = all.filter((entry) => requestOf(entry) !== "create events");
      // The connection to the first Pod was opened before, and that to the last one serves no session yet.
      const attached = own.filter((entry) => requestOf(entry) === "get pods/attach").length;
      expect(attached).toBeLessThanOrEqual(SESSIONS + 1);
      const others = countsOf(own.filter((entry) => entry.subresource === "" && !isDeletedAgain(entry)));
      expect(others).toEqual(Object.fromEntries(SHELL_REQUESTS.map((request) => [request, SESSIONS])));
      world.simulator.assertNoViolations();
    },
  );

  test("for idle Environments without warm Pods: update Leases, and write and list nothing else", async () => {
    await using world = await startWorld(cluster, { sessions: { warm: 0 } });
    await world.createEnvironment();
    const queue = await world.createQueue("other-key");
    await world.kube.create(ENVIRONMENTS, {
      metadata: { namespace: world.namespace, name: "other" },
      spec: world.spec(queue),
    } as never);
    const operator = world.startOperator({ leaderElect: true });
    await world.untilCondition("Ready", "Ready");
    const ids = [world.environmentId, queue.environmentId];
    const isRead = () => ids.every((id) => statsOf(world, id) > 1);
    await world.until("both queues are read", isRead);
    // The status after the start is written with its next update, at most five seconds later.
    const version = () => world.environment?.metadata.resourceVersion;
    const before = new Map(ids.map((id) => [id, statsOf(world, id)]));
    const read = (more: number) => ids.every((id) => statsOf(world, id) >= (before.get(id) ?? 0) + more);
    await world.until("the queue of each Environment is read repeatedly", () => read(LOOKS));
    const since = await cluster.audit.mark();
    const [from, seen] = [ids.map((id) => statsOf(world, id)), version()];
    await world.until("the queue of each Environment is read as often again", () =>
      ids.every((id, at) => statsOf(world, id) >= (from[at] ?? 0) + LOOKS),
    );

    const { namespace } = world;
    const entries = await cluster.audit.entries({ since, namespace, user: OPERATOR });
    await operator.stop();
    expect(countsOf(entries.filter(({ resource }) => resource === "leases"))).not.toEqual({});
    const others = entries.filter(({ resource, verb }) => resource !== "leases" && verb !== "watch");
    expect(countsOf(others.filter(({ verb }) => verb !== "get"))).toEqual({});
    expect(version()).toBe(seen);
  });
});

/**
 * Statistics are read every five seconds, or every quarter of a second at the tests' pace. This is longer than a status
 * update waits.
 */
const LOOKS = 30;

function statsOf({ simulator }: World, id: string): number {
  return simulator.requests(id).filter(({ call }) => call === "stats").length;
}

/** A world whose programs end soon. */
function sessionsWorld(sessions: Record<string, unknown>, container: Record<string, unknown> = {}): Promise<World> {
  return startWorld(cluster, {
    // At the real pace. Otherwise the operator would repeat touches before a node could react.
    timeScale: 1,
    container,
    // One Pod at a time, so that a waiting item causes no other Pod.
    sessions: { maxConcurrent: 1, ...sessions },
    node: {
      fates: () =>
        sessions["lease"] === "Operator" ? { kind: "exit", code: 0, afterMs: 300 } : { kind: "worker", workMs: 300 },
    },
  });
}

/** Serves `SESSIONS` items after a first one, and returns the operator's requests for them. */
async function requestsOfSessions(world: World): Promise<AuditEntry[]> {
  await world.createEnvironment();
  const operator = world.startOperator();
  // The first session adds the finalizer.
  await serveOne(world);
  await untilTold(world, 1);
  const since = await cluster.audit.mark();
  for (let served = 0; served < SESSIONS; served += 1) await serveOne(world);
  await untilTold(world, 1 + SESSIONS);
  await operator.stop();
  const all = await cluster.audit.entries({ since, namespace: world.namespace, user: OPERATOR });
  return all.filter((entry) => !isByTheClock(entry));
}

/** Serves one item, from its arrival until it is cleaned up and a Pod is parked. */
async function serveOne(world: World): Promise<void> {
  await world.untilParked(1);
  const item = world.simulator.enqueue(world.environmentId);
  await world.until("the item is stopped and its claim is settled", () => {
    return world.simulator.item(item.id).state === "stopped" && world.claims.length === 0;
  });
  await world.until("the Pod is replaced and gone", () => world.pods.length === 1 && world.parked.length === 1);
}

/** Events are written independently of the sessions. */
function untilTold(world: World, sessions: number): Promise<boolean> {
  return world.until("an Event reports every end", () => world.events("Completed").length === sessions);
}

/**
 * Periodic requests: the operator reads the environment key and the NetworkPolicy, and writes counts, regardless of
 * sessions.
 */
function isByTheClock({ verb, resource, subresource, name }: AuditEntry): boolean {
  if (verb === "watch" || (resource === "environments" && subresource === "status")) return true;
  // Secrets are listed again a minute after the start.
  if (verb === "list" && resource === "secrets") return true;
  return verb === "get" && ((resource === "secrets" && name === "key") || resource === "networkpolicies");
}

/**
 * Removes requests that only a busy machine causes. A late claim is dropped and begun again. A late container is
 * touched again. A Pod whose node wrote its status just before its deletion is deleted again.
 */
function withoutExcuses(entries: readonly AuditEntry[]): string {
  const requests = entries.map((entry) => `${requestOf(entry)}${entry.code < 300 ? "" : ` ${entry.code}`}`);
  return requests
    .join(", ")
    .replace(/^(create secrets, (get pods, )?delete secrets, )+(?=create secrets)/, "")
    .replace(/(patch pods, )+(?=delete secrets)/, "patch pods, ")
    .replace(/delete pods 409, (get pods, )?/, "");
}

/** The node wrote a Pod's status just before its deletion, so the Pod is deleted again. */
function isDeletedAgain(entry: AuditEntry): boolean {
  return entry.code === 409 && requestOf(entry) === "delete pods";
}

function requestOf({ verb, resource, subresource }: AuditEntry): string {
  return `${verb} ${resource}${subresource === "" ? "" : `/${subresource}`}`;
}

function countsOf(entries: readonly AuditEntry[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const entry of entries) counts[requestOf(entry)] = (counts[requestOf(entry)] ?? 0) + 1;
  return counts;
}
