import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { KubeClient } from "../../../src/kube/client.ts";
import type { KubeObject } from "../../../src/kube/resource.ts";
import { connectNodeControl } from "../../../testbed/real-node/control-client.ts";
import type { Place } from "../../support/leak-search.ts";
import { recordedCredentials } from "./credentials-seen.ts";
import { OPERATOR_LOGS } from "./log-follower.ts";
import { filesBelow, POD_LOGS } from "./pod-log-keeper.ts";
import { processPlaces, seenProcesses } from "./process-watch.ts";
import { SIMULATOR_NAMESPACE } from "./simulator-pod.ts";
import type { E2eWorld } from "./world.ts";

/** Every credential that was issued in this run: keys, work secrets, sessions tokens. */
export async function everyCredential(world: E2eWorld): Promise<ReadonlySet<string>> {
  const recorded = await recordedCredentials(world.cluster.dir);
  return new Set([...recorded, ...(await world.simulator.credentials())]);
}

/** The kinds of places to which a credential may leak. */
export const PLACES = ["logs", "containers", "objects", "metrics", "processes"] as const;
export type PlaceKind = (typeof PLACES)[number];

/** Every place to which a credential may have leaked in this run, as far as it still exists. */
export async function everyPlace(world: E2eWorld): Promise<Record<PlaceKind, Place[]>> {
  const { dir } = world.cluster;
  const [logs, containers, objects, metrics, processes] = await Promise.all([
    programLogs(world),
    containerLogs(dir),
    apiObjects(world),
    metricPages(world),
    seenProcesses(dir).then(processPlaces),
  ]);
  return { logs, containers, objects, metrics, processes };
}

/**
 * The operators' logs. On our own node also those of the node and the control plane, including the API server's audit
 * log.
 */
async function programLogs({ cluster }: E2eWorld): Promise<Place[]> {
  const operators = await textsBelow(join(cluster.dir, OPERATOR_LOGS));
  if (cluster.nodeControl === undefined) return operators;
  const { logs, auditLog } = await connectNodeControl(cluster.nodeControl).state();
  const audit = { where: auditLog, text: await readFile(auditLog, "latin1") };
  const controlPlane = await textsBelow(join(dirname(auditLog), "logs"));
  return [...operators, ...(await textsBelow(logs)), ...controlPlane, audit];
}

/** The output of all Pods' containers except the simulator's, which prints its environment key at its start. */
async function containerLogs(dir: string): Promise<Place[]> {
  const texts = await textsBelow(join(dir, POD_LOGS));
  return texts.filter(({ where }) => !where.includes(`/${POD_LOGS}/${SIMULATOR_NAMESPACE}_`));
}

async function textsBelow(folder: string): Promise<Place[]> {
  const files = (await filesBelow(folder)).map((file) => join(folder, file));
  // Binary files are searched too.
  return await Promise.all(files.map(async (where) => ({ where, text: await readFile(where, "latin1") })));
}

interface ApiResource {
  readonly name: string;
  readonly kind: string;
  readonly verbs: readonly string[];
}

/** All objects of all kinds except Secrets, including Events. */
async function apiObjects({ kube }: E2eWorld): Promise<Place[]> {
  const objects = (await everyObject(kube)).filter(({ kind }) => kind !== "Secret");
  return objects.map(({ kind, object }) => {
    const { namespace = "", name } = object.metadata;
    return { where: `${kind} ${namespace}/${name}`, text: JSON.stringify(object) };
  });
}

/** Every object of every kind on the API server. */
export async function everyObject(kube: KubeClient): Promise<{ readonly kind: string; readonly object: KubeObject }[]> {
  const get = async <T>(path: string) => (await kube.raw("GET", path)) as T;
  const { groups } = await get<{ groups: { preferredVersion: { groupVersion: string } }[] }>("/apis");
  const bases = ["/api/v1", ...groups.map(({ preferredVersion }) => `/apis/${preferredVersion.groupVersion}`)];
  const lists = bases.map(async (base) => {
    const { resources } = await get<{ resources: ApiResource[] }>(base);
    const listed = resources.filter(({ name, verbs }) => verbs.includes("list") && !name.includes("/"));
    return await Promise.all(
      listed.map(async ({ name, kind }) => {
        const { items } = await get<{ items: KubeObject[] | null }>(`${base}/${name}`);
        return (items ?? []).map((object) => ({ kind, object }));
      }),
    );
  });
  return (await Promise.all(lists)).flat(2);
}

async function metricPages(world: E2eWorld): Promise<Place[]> {
  return [{ where: "metrics", text: JSON.stringify(await world.operators.samples()) }];
}
