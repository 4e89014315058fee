import { describe, expect, test } from "vitest";
import type { Metrics } from "../../src/observe/metrics.ts";
import { ENVIRONMENTS } from "../../src/reconcile/finalizer.ts";
import { OPERATOR } from "../../testbed/cluster/users.ts";
import { useCluster } from "../support/cluster.ts";
import { metricValue } from "../support/metric-value.ts";
import { startWorld, type World } from "../support/world.ts";
import { type Fault, faults, makeHappen, type Tries } from "./faults.ts";
import { limitedUser } from "./limited-operator.ts";
import { printedColumns } from "./printed-columns.ts";

const cluster = useCluster();

/**
 * How many tries of the operator one observation of a lasting fault covers; fewer for tries with minutes of backoff.
 */
const TRIES_SEEN = {
  key: 5,
  template: 2,
  create: 2,
  recovery: 3,
  journal: 2,
  policy: 2,
  poll: 20,
  stats: 10,
  ack: 2,
  stop: 2,
  "pod-deletion": 2,
  "secret-deletion": 2,
} as const;
/** The first observations may include aftereffects of the fault: Pods come and go, and counts are written 5 s later. */
const LOOKS = 8;
/** The maximum of API server requests per try: the try itself, an Event, a status. It does not grow. */
const REQUESTS_PER_TRY = 6;
/** A try that writes takes more: a slot, a live read, two deletions; or adding and removing the finalizer. */
const REQUESTS_PER_RESTLESS_TRY = 12;

describe.concurrent("a fault is reported, causes no writes while it lasts, and heals without a restart", () => {
  test.each(faults())("$name: $shows.reason", async (fault) => {
    await using world = await startWorld(cluster, { ...fault.world });
    const operator = await makeHappen(fault, world, cluster);

    await untilShown(world, fault);
    await expectQuiet(world, fault, operator.metrics);
    await expectOneEvent(world, fault);

    await fault.fix(world);
    await world.untilCondition(fault.shows.type, fault.heals);
    const ready = await world.until("Ready", () => {
      const found = world.condition("Ready");
      return found?.status === "True" && found;
    });
    expect(ready.message).toBe("Berth serves work");
    await operator.stop();
    await fault.after?.();
  });
});

/**
 * The condition, Ready and the printed columns report the fault. The operator may detect a fault before it knows the
 * cause, so the first message with the right reason may still change.
 */
async function untilShown(world: World, { shows, ready }: Fault): Promise<void> {
  const { status, reason } = ready ?? { status: "False", reason: shows.reason };
  await world.until(`${shows.type}=${shows.status} ${shows.reason} with ${shows.words.join(" and ")}`, () => {
    const condition = world.condition(shows.type);
    const message = condition?.message ?? "";
    const isSaid = (words: string | RegExp) =>
      typeof words === "string" ? message.includes(words) : words.test(message);
    return condition?.status === shows.status && condition.reason === shows.reason && shows.words.every(isSaid);
  });
  await world.until(`Ready=${status} ${reason}, with the condition's message`, () => {
    const found = world.condition("Ready");
    const isSame = reason !== shows.reason || found?.message === world.condition(shows.type)?.message;
    return found?.reason === reason && found.status === status && isSame;
  });
  // The message may change while a fault lasts, for example when another session fails to start.
  const columns = await world.until("the columns and the condition agree", async () => {
    const printed = await printedColumns(cluster, world.namespace, world.name);
    return printed.Message === world.condition("Ready")?.message && printed;
  });
  expect(columns).toMatchObject({ Name: world.name, Mode: "Sessions", Ready: status, Reason: reason });
}

/**
 * While the operator keeps trying, it writes nothing: the Environment's version stays the same, no Event is created,
 * and the number of requests is proportional to its tries.
 */
async function expectQuiet(world: World, { tries, restless, lack }: Fault, metrics: Metrics): Promise<void> {
  const seen: string[] = [];
  const user = lack ? limitedUser(world) : OPERATOR;
  for (let look = 1; look <= LOOKS; look += 1) {
    const mark = await cluster.audit.mark();
    const before = await triesSoFar(metrics, tries);
    const version = await liveVersion(world);
    await world.until(`${TRIES_SEEN[tries]} more tries (${tries})`, async () => {
      return (await triesSoFar(metrics, tries)) >= before + TRIES_SEEN[tries];
    });
    const after = await liveVersion(world);
    const made = (await triesSoFar(metrics, tries)) - before;
    const entries = await cluster.audit.entries({ since: mark, user, namespace: world.namespace });
    // The key is read periodically, 20 times as often here as in production.
    const asked = entries.filter(({ verb, resource }) => tries === "key" || verb !== "get" || resource !== "secrets");
    expect(asked.length, JSON.stringify(asked)).toBeLessThanOrEqual(
      made * (restless ? REQUESTS_PER_RESTLESS_TRY : REQUESTS_PER_TRY),
    );
    const resources = restless ? ["events"] : ["events", "environments"];
    const writes = entries.filter(
      ({ resource, verb }) => resources.includes(resource) && verb !== "get" && verb !== "list",
    );
    // A write that was under way when the observation began changes the version but does not count.
    if (writes.length === 0 && (restless || after === version)) return;
    seen.push(
      ...writes.map(({ verb, resource, subresource }) => `${verb} ${resource}/${subresource}`),
      `${version} -> ${after}`,
    );
  }
  throw new Error(`it never was quiet: ${seen.join(", ")}\n${world.describe()}`);
}

async function liveVersion(world: World): Promise<string | undefined> {
  const live = await world.kube.get(ENVIRONMENTS, { namespace: world.namespace, name: world.name });
  return live.metadata.resourceVersion;
}

async function expectOneEvent(world: World, { shows, eventPerItem }: Fault): Promise<void> {
  const told = () => {
    const events = world
      .events(shows.reason)
      .filter(({ involvedObject }) => involvedObject.kind === "Environment" && involvedObject.name === world.name);
    return eventPerItem ? events.filter(({ message }) => message === world.condition(shows.type)?.message) : events;
  };
  // Events are written after the status.
  await world.until(`an Event ${shows.reason}`, () => told().length > 0);
  expect(told().map(({ message, count }) => [message, count])).toEqual([[expect.any(String), 1]]);
}

async function triesSoFar(metrics: Metrics, tries: Tries): Promise<number> {
  switch (tries) {
    case "key":
      return metricValue(metrics.kubeRequests, { verb: "get", resource: "secrets" });
    case "template":
    case "create":
      return metricValue(metrics.kubeRequests, { verb: "create", resource: "pods" });
    case "recovery":
      return metricValue(metrics.kubeRequests, { verb: "list", resource: "secrets" });
    case "journal":
      return metricValue(metrics.kubeRequests, { verb: "create", resource: "secrets" });
    case "policy":
      return metricValue(metrics.kubeRequests, { verb: "create", resource: "networkpolicies" });
    case "pod-deletion":
      return metricValue(metrics.kubeRequests, { verb: "delete", resource: "pods" });
    case "secret-deletion":
      return metricValue(metrics.kubeRequests, { verb: "delete", resource: "secrets" });
    default:
      return metricValue(metrics.workRequests, { call: tries });
  }
}
