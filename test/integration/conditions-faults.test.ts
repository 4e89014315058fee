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

/** So many tries of the operator make one look at a fault that lasts; those with a backoff of minutes are fewer. */
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
/** The first looks may fall into what the fault still sets off: Pods come and go, counts are written 5 s later. */
const LOOKS = 8;
/** Requests to the API server for each try, at most: the try itself, an Event, a status; nothing that grows. */
const REQUESTS_PER_TRY = 6;
/** A try that is written takes more: a slot, a live look, two deletions; or the finalizer, to and fro. */
const REQUESTS_PER_RESTLESS_TRY = 12;

describe.concurrent("a fault shows, stays quiet while it lasts, and heals without a restart", () => {
  test.each(faults())("$name: $shows.reason", async (fault) => {
    await using world = await startWorld(cluster, { ...fault.world });
    const operator = await makeHappen(fault, world, cluster);

    await untilShown(world, fault);
    await expectQuiet(world, fault, operator.metrics);
    await expectOneEvent(world, fault);

    await fault.mend(world);
    await world.untilCondition(fault.shows.type, fault.heals);
    const ready = await world.until("Ready", () => {
      const found = world.condition("Ready");
      return found?.status === "True" && found;
    });
    expect(ready.message).toBe("work is served");
    await operator.stop();
    await fault.after?.();
  });
});

/**
 * The condition, Ready and the printed columns all say it. The operator may know that something is wrong before it knows why:
 * the first message with the right reason is not always the last.
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
  await world.until(`Ready=${status} ${reason}, in the same words where it is the condition's reason`, () => {
    const found = world.condition("Ready");
    const isSame = reason !== shows.reason || found?.message === world.condition(shows.type)?.message;
    return found?.reason === reason && found.status === status && isSame;
  });
  // Words may change while a fault lasts, as with one more session that did not start.
  const columns = await world.until("the columns and the condition in the same words", async () => {
    const printed = await printedColumns(cluster, world.namespace, world.name);
    return printed.Message === world.condition("Ready")?.message && printed;
  });
  expect(columns).toMatchObject({ Name: world.name, Mode: "Sessions", Ready: status, Reason: reason });
}

/**
 * While the operator goes on trying, it writes nothing: the Environment's version stays, no Event comes, and its requests
 * are about as many as its tries.
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
    // The key is read by the clock, 20 times as often here as in earnest.
    const asked = entries.filter(({ verb, resource }) => tries === "key" || verb !== "get" || resource !== "secrets");
    expect(asked.length, JSON.stringify(asked)).toBeLessThanOrEqual(
      made * (restless ? REQUESTS_PER_RESTLESS_TRY : REQUESTS_PER_TRY),
    );
    const resources = restless ? ["events"] : ["events", "environments"];
    const writes = entries.filter(
      ({ resource, verb }) => resources.includes(resource) && verb !== "get" && verb !== "list",
    );
    // A write that was on its way when the look began changes the version and is none of the look's own.
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
