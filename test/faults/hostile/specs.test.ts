import fc from "fast-check";
import { expect, test } from "vitest";
import type { Environment } from "../../../src/api/environment.ts";
import { API_VERSION, KIND } from "../../../src/api/names.ts";
import { ApiError } from "../../../testbed/cluster/api.ts";
import { OPERATOR } from "../../../testbed/cluster/users.ts";
import { useCluster } from "../../support/cluster.ts";
import { startWorld, TEST_TIME_SCALE, type World } from "../../support/world.ts";
import { PATIENCE_MS } from "../support/patience.ts";
import { readFaultSettings } from "../support/settings.ts";
import { bases, unclear } from "./environments.ts";
import { type HostileSpec, hostileSpecs } from "./spec-arbitrary.ts";
import { WatchedOperator } from "./watched-operator.ts";

const cluster = useCluster();
const { seed, long } = readFaultSettings();

const SPECS = long ? 5_000 : 400;
/** Environments that exist at the same time. */
const BATCH = 25;
/** Requests for an Environment's whole life, with its key, template, policy, status, Events and a few Pods. */
const MOST_REQUESTS_EACH = 150;
const MOST_IN_A_SECOND = 500;
const PODS = 20;

const path = (world: World, name = "") =>
  `/apis/${API_VERSION}/namespaces/${world.namespace}/environments${name && `/${name}`}`;

/** Whether the API server accepts the spec. Any error other than a refusal of the input fails the test. */
async function create(world: World, name: string, { spec, changes }: HostileSpec): Promise<boolean> {
  try {
    const metadata = { name, namespace: world.namespace };
    await cluster.api.create(path(world), { apiVersion: API_VERSION, kind: KIND, metadata, spec });
    return true;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (![400, 413, 422].includes(error.status))
      throw new Error(`${error.status} for ${changes.join("; ")}`, { cause: error });
    return false;
  }
}

test("every spec that the API server accepts gets a clear condition, and can be deleted", async () => {
  await using world = await startWorld(cluster);
  await cluster.api.create(`/api/v1/namespaces/${world.namespace}/resourcequotas`, {
    metadata: { name: "few" },
    spec: { hard: { pods: String(PODS) } },
  });
  await using operator = await WatchedOperator.start(world.flags(), TEST_TIME_SCALE);
  const mark = await cluster.audit.mark();
  const specs = fc.sample(hostileSpecs(bases(world)), { seed, numRuns: SPECS });
  const reasons = new Map<string, number>();
  const list = async () => (await cluster.api.get<{ items: Environment[] }>(path(world))).items;
  let taken = 0;
  for (let from = 0; from < specs.length; from += BATCH) {
    const here = new Map<string, HostileSpec>();
    for (const [i, spec] of specs.slice(from, from + BATCH).entries()) {
      const name = `hostile-${from + i}`;
      if (await create(world, name, spec)) here.set(name, spec);
    }
    taken += here.size;
    const describeUnclear = (items: readonly Environment[]) =>
      items.map((one) => `${one.metadata.name}: ${unclear(one)}: ${here.get(one.metadata.name)?.changes.join("; ")}`);
    let last: Environment[] = [];
    const look = async () => {
      operator.assertAlive();
      last = await list();
    };
    const areClear = async () => {
      await look();
      return last.every((one) => unclear(one) === null);
    };
    const areGone = async () => {
      await look();
      return last.length === 0;
    };
    await world.until("a clear condition of each", areClear, PATIENCE_MS).catch((error: unknown) => {
      throw new Error(`seed ${seed}:\n${describeUnclear(last.filter((one) => unclear(one))).join("\n")}`, {
        cause: error,
      });
    });
    for (const { status } of last) {
      const reason = status?.conditions?.find(({ type }) => type === "Ready")?.reason ?? "";
      reasons.set(reason, (reasons.get(reason) ?? 0) + 1);
    }
    await Promise.all([...here.keys()].map((name) => cluster.api.delete(path(world, name))));
    await world.until("the end of each", areGone, PATIENCE_MS).catch((error: unknown) => {
      throw new Error(`seed ${seed}, not gone:\n${describeUnclear(last).join("\n")}`, { cause: error });
    });
  }
  await operator.assertWell();
  const asked = await cluster.audit.entries({ since: mark, user: OPERATOR });
  const perSecond = new Map<number, number>();
  for (const { completedAt } of asked) {
    const second = Math.floor(completedAt / 1_000);
    perSecond.set(second, (perSecond.get(second) ?? 0) + 1);
  }
  expect(Math.max(...perSecond.values())).toBeLessThan(MOST_IN_A_SECOND);
  expect(asked.length / taken).toBeLessThan(MOST_REQUESTS_EACH);
  expect(taken).toBeGreaterThan(SPECS / 8);
  console.log(
    `hostile inputs: ${SPECS} tried: specs, of which the API server took ${taken}: ${JSON.stringify(Object.fromEntries(reasons))};`,
    `${Math.round(asked.length / taken)} requests for each, at most ${Math.max(...perSecond.values())} in a second`,
  );
});
