import { join } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import type { Environment } from "../../../src/api/environment.ts";
import { API_VERSION, KIND } from "../../../src/api/names.ts";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import { ApiError } from "../../../testbed/cluster/api.ts";
import { startCluster } from "../../../testbed/cluster/cluster.ts";
import { DEPLOY_DIR, installBerth, installCrds } from "../../../testbed/cluster/install.ts";
import { OPERATOR } from "../../../testbed/cluster/users.ts";
import { asTestCluster, takeAnything } from "../../integration/own-cluster.ts";
import { startWorld, TEST_TIME_SCALE } from "../../support/world.ts";
import { PATIENCE_MS } from "../support/patience.ts";
import { readFaultSettings } from "../support/settings.ts";
import { bases, unclear } from "./environments.ts";
import { type HostileSpec, hostileSpecs } from "./spec-arbitrary.ts";
import { WatchedOperator } from "./watched-operator.ts";

const { seed, long } = readFaultSettings();
const SPECS = long ? 600 : 60;
/** Covers a report about each Environment and its deletion. Served Environments need more. */
const MOST_REQUESTS_EACH = 150;

/** After a schema change the API server briefly refuses requests while it rebuilds its storage. */
function whileChangingOver(error: unknown): null {
  if (error instanceof ApiError && error.status === 429) return null;
  throw error;
}

test("specs stored under another schema are reported by a condition or an Event, and can be deleted", async () => {
  await using own = await startCluster();
  await installBerth(own.api);
  const cluster = await asTestCluster(own);
  await using world = await startWorld(cluster);
  await takeAnything(own);
  await own.api.create(`/api/v1/namespaces/${world.namespace}/resourcequotas`, {
    metadata: { name: "few" },
    spec: { hard: { pods: "20" } },
  });
  const stored = new Map<string, HostileSpec>();
  const create = async (name: string, one: HostileSpec) => {
    const metadata = { name, namespace: world.namespace };
    await world.kube.create(ENVIRONMENTS, { apiVersion: API_VERSION, kind: KIND, metadata, spec: one.spec } as never);
    stored.set(name, one);
  };
  const canary = { spec: { anything: true }, changes: ["no field that is known"] };
  await world.until("a schema that takes anything is served", () => {
    return create("hostile-first", canary).then(
      () => true,
      () => false,
    );
  });
  for (const [i, one] of fc.sample(hostileSpecs(bases(world)), { seed, numRuns: SPECS }).entries()) {
    // The API server refuses some under any schema: they are not objects, or are too large.
    await create(`hostile-${i}`, one).catch(() => {});
  }
  await installCrds(own.api, join(DEPLOY_DIR, "crds"));
  await using operator = await WatchedOperator.start(world.flags(), TEST_TIME_SCALE);
  const path = `/apis/${API_VERSION}/namespaces/${world.namespace}/environments`;
  const listOnce = () => own.api.get<{ items: Environment[] }>(path).catch(whileChangingOver);
  const list = async () => (await world.until("Environments are listed", listOnce)).items;
  const messageOf = ({ metadata }: Environment) =>
    world.events("InvalidSpec").find(({ involvedObject }) => involvedObject.name === metadata.name)?.message ?? "";
  const isUnreported = (one: Environment) => unclear(one) !== null && messageOf(one).length < 10;
  let unreported: Environment[] = [];
  const areReported = async () => {
    operator.assertAlive();
    unreported = (await list()).filter(isUnreported);
    return unreported.length === 0;
  };
  await world.until("a report about each", areReported, PATIENCE_MS).catch((error: unknown) => {
    const about = unreported.map(
      ({ metadata }) => `${metadata.name}: ${stored.get(metadata.name)?.changes.join("; ")}`,
    );
    throw new Error(`seed ${seed}:\n${about.join("\n")}`, { cause: error });
  });
  // The Event may appear a moment after the condition.
  const invalid = await world.until("a quarter are reported as invalid", async () => {
    const { length } = (await list()).filter((one) => messageOf(one) !== "");
    return length > SPECS / 4 && length;
  });
  const asked = await cluster.audit.entries({ user: OPERATOR });
  expect(asked.length / stored.size).toBeLessThan(MOST_REQUESTS_EACH);
  for (const name of stored.keys()) await own.api.delete(`${path}/${name}`);
  await world.until("the end of each", async () => (await list()).length === 0, PATIENCE_MS);
  await operator.assertWell();
  console.log(
    `hostile inputs: ${stored.size} tried: specs of another schema, of which at least ${invalid} are invalid now`,
  );
});
