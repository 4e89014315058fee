import { randomBytes } from "node:crypto";
import { afterAll, beforeEach, expect, test } from "vitest";
import { API_VERSION, KIND } from "../../../src/api/names.ts";
import type { KubeClient } from "../../../src/kube/client.ts";
import { isForbidden, isInvalid, KubeApiError } from "../../../src/kube/errors.ts";
import {
  DEPLOYMENTS,
  LEASES,
  type OwnerReference,
  POD_DISRUPTION_BUDGETS,
  PODS,
  type Pod,
  SECRETS,
} from "../../../src/kube/resource.ts";
import { type Journal, renderJournal } from "../../../src/protocol/journal.ts";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import { useCluster } from "../../support/cluster.ts";
import type { World } from "../../support/world.ts";
import { raw } from "../../work/strict-server.ts";
import { readFaultSettings } from "../support/settings.ts";
import { Tenancy } from "./tenancy.ts";

const cluster = useCluster();
const { long } = readFaultSettings();

/** The number of attacks that were tried. If a test fails, its attacks do not count as without effect. */
const attacks = { tried: 0, ofTest: 0, withoutEffect: 0 };
beforeEach(() => {
  attacks.ofTest = 0;
});
afterAll(() => console.log(`attacks of tenants: ${attacks.tried} tried, ${attacks.withoutEffect} without effect`));

function tried(count = 1): void {
  attacks.tried += count;
  attacks.ofTest += count;
}

function allWithoutEffect(): void {
  attacks.withoutEffect += attacks.ofTest;
}

/**
 * The number of objects of each kind that a tenant creates to overload the operator. A control plane can store them
 * within minutes.
 */
const FLOOD = long
  ? { environments: 1_000, pods: 10_000, secrets: 10_000 }
  : { environments: 60, pods: 400, secrets: 400 };
const CONCURRENCY = 32;

/** A tenant's plain Environment. */
function environment(of: World, name: string, spec: Record<string, unknown>) {
  const metadata = { name, namespace: of.namespace };
  return { apiVersion: API_VERSION, kind: KIND, metadata, spec: of.spec(spec) } as never;
}

/** A claim record that no operator wrote. */
function madeUpClaim(namespace: string, name: string, over: Partial<Journal>, opened = false) {
  const now = Date.now();
  const { acknowledgedAt, ...journal } = {
    use: "session" as const,
    lease: "Worker" as const,
    environmentUid: "",
    podUid: "",
    workId: "work_made_up",
    sessionId: "sesn_made_up",
    queuedAt: "",
    polledFromMs: now,
    polledUntilMs: now,
    acknowledgedAt: opened ? new Date(now).toISOString() : null,
    ...over,
  };
  const secret = renderJournal({ name, namespace, environment: "served" }, journal, "c2VjcmV0");
  const more = {
    ...(acknowledgedAt ? { "acknowledged-at": acknowledgedAt } : {}),
    ...(opened ? { "work-secret": "x" } : {}),
  };
  return { ...secret, stringData: { ...secret.stringData, ...more } };
}

async function refused(act: Promise<unknown>): Promise<KubeApiError> {
  tried();
  const error = await act.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof KubeApiError) return error;
  throw error ?? new Error("it was let through");
}

async function forEach<T>(items: readonly T[], act: (item: T) => Promise<unknown>): Promise<void> {
  const rest = items.values();
  const worker = async () => {
    for (const item of rest) await act(item);
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, worker));
}

/** The parts of a namespace's Pods that no other tenant may change. */
function podsOf(world: World) {
  return world.pods
    .map(({ metadata: { name, uid, labels, annotations, deletionTimestamp } }) => ({
      ...{ name, uid, labels, deletionTimestamp },
      session: annotations?.["berth.dev/session-id"],
    }))
    .sort((a, b) => String(a.name).localeCompare(String(b.name)));
}

test("a user who may edit one namespace reaches nothing in another one, and nothing of the operator", async () => {
  await using stage = await Tenancy.start(cluster);
  const { victim, own } = stage;
  const tenant = await stage.tenant("editor", own.namespace, "edit");
  const there = { namespace: victim.namespace };
  const isRefused = async (act: Promise<unknown>) => expect(isForbidden(await refused(act))).toBe(true);
  await isRefused(tenant.get(SECRETS, { ...there, name: "key" }));
  await isRefused(tenant.list(SECRETS, there));
  await isRefused(tenant.list(PODS, there));
  await isRefused(tenant.create(ENVIRONMENTS, environment(victim, "mine", {})));
  await isRefused(
    tenant.patch(ENVIRONMENTS, { ...there, name: "served" }, { spec: { paused: true } }, { type: "merge" }),
  );
  await isRefused(tenant.create(SECRETS, madeUpClaim(victim.namespace, "claim", {})));
  await isRefused(tenant.list(LEASES, { namespace: "berth-system" }));
  // People and tools trust the status, so only the operator may write it.
  const status = { status: { max: 987_654 } };
  const served = { namespace: own.namespace, name: "served" };
  await isRefused(tenant.patch(ENVIRONMENTS, served, status, { type: "merge", subresource: "status" }));
  await tenant.patch(ENVIRONMENTS, served, status, { type: "merge" });
  expect(own.environment?.status?.max).not.toBe(status.status.max);
  await tenant.create(ENVIRONMENTS, {
    ...(environment(own, "second", { paused: true }) as object),
    ...status,
  } as never);
  await own.until("the second one exists", async () => {
    const { status: found } = await tenant.get(ENVIRONMENTS, { namespace: own.namespace, name: "second" });
    return (found as { conditions?: unknown } | undefined)?.conditions !== undefined;
  });
  const second = await tenant.get(ENVIRONMENTS, { namespace: own.namespace, name: "second" });
  expect(JSON.stringify(second.status)).not.toContain(String(status.status.max));
  await stage.expectVictimUnharmed();
  allWithoutEffect();
});

test("no Secret name leads into another namespace", async () => {
  await using stage = await Tenancy.start(cluster);
  const { victim, own } = stage;
  const tenant = await stage.tenant("environments", own.namespace, [
    { apiGroups: ["berth.dev"], resources: ["environments"], verbs: ["get", "create", "patch", "delete"] },
  ]);
  const names = [
    ...[
      `${victim.namespace}/key`,
      `../${victim.namespace}/key`,
      `../../${victim.namespace}/secrets/key`,
      "/key",
      "key/",
    ],
    ...[
      `..%2f${victim.namespace}%2fsecrets%2fkey`,
      `key?namespace=${victim.namespace}`,
      `key#${victim.namespace}`,
      ".",
    ],
    ...[
      "..",
      "key\n",
      " key",
      "KEY",
      "key\u0000",
      `key@${victim.namespace}`,
      "*",
      "key,other",
      "ｋey",
      "k".repeat(254),
    ],
  ];
  for (const name of names) {
    const spec = { api: { baseUrl: own.simulator.url, keySecretRef: { name } } };
    const error = await refused(tenant.create(ENVIRONMENTS, environment(own, "tricks", spec)));
    expect(isInvalid(error) || error.status === 400, `${JSON.stringify(name)}: ${error.message}`).toBe(true);
  }
  for (const key of ["../key", "a/b", "key\n", "*", ""]) {
    const spec = { api: { baseUrl: own.simulator.url, keySecretRef: { name: "key", key } } };
    const error = await refused(tenant.create(ENVIRONMENTS, environment(own, "tricks", spec)));
    expect(isInvalid(error) || error.status === 400, JSON.stringify(key)).toBe(true);
  }
  // A valid name of a Secret that exists only in the other namespace, with that namespace's environment id.
  await victim.createKey(undefined, "victims-key");
  tried();
  const api = { baseUrl: victim.simulator.url, keySecretRef: { name: "victims-key" } };
  await tenant.create(ENVIRONMENTS, environment(own, "borrower", { environmentId: victim.environmentId, api }));
  const said = await own.until("the missing Secret is reported", async () => {
    const { status } = await tenant.get(ENVIRONMENTS, { namespace: own.namespace, name: "borrower" });
    const { conditions = [] } = (status ?? {}) as { conditions?: { reason: string; message: string }[] };
    return conditions.find(({ reason }) => reason === "KeySecretMissing");
  });
  expect(said.message).toContain(`does not exist in namespace ${own.namespace}`);
  await stage.expectVictimUnharmed();
  allWithoutEffect();
});

test("forged owners, labels and records change nothing in another namespace, even after a restart", async () => {
  await using stage = await Tenancy.start(cluster);
  const { victim, own } = stage;
  const tenant = await stage.tenant("editor", own.namespace, "edit");
  const { namespace } = own;
  const owner: OwnerReference = {
    apiVersion: API_VERSION,
    kind: KIND,
    name: "served",
    uid: victim.environment?.metadata.uid ?? "",
    controller: true,
    blockOwnerDeletion: true,
  };
  const before = podsOf(victim);
  const named = victim.pods.map(({ metadata }) => metadata);
  const forged: Promise<unknown>[] = [];
  for (const { name = "", uid = "", labels = {} } of named) {
    const claims = { environmentUid: owner.uid, podUid: uid, workId: stage.running };
    const pod = {
      metadata: { namespace, name: `${name}-pod`, labels, ownerReferences: [owner] },
      spec: { containers: [{ name: "worker", image: "worker:1" }] },
    };
    forged.push(
      tenant.create(PODS, pod as Pod),
      tenant.create(SECRETS, madeUpClaim(namespace, name, claims, true)),
      tenant.create(SECRETS, madeUpClaim(namespace, `${name}-a`, claims)),
      tenant.create(SECRETS, madeUpClaim(namespace, `${name}-c`, { ...claims, use: "removal" })),
      tenant.create(SECRETS, madeUpClaim(namespace, `${name}-d`, { ...claims, use: "refusal" })),
    );
  }
  const labels = {
    "berth.dev/environment": "served",
    "berth.dev/role": "worker",
    "app.kubernetes.io/managed-by": "berth",
  };
  forged.push(
    tenant.create(POD_DISRUPTION_BUDGETS, {
      metadata: { namespace, name: "berth-served", ownerReferences: [owner], labels },
      spec: { minAvailable: 1_000, selector: { matchLabels: {} } },
    } as never),
    tenant.create(DEPLOYMENTS, {
      metadata: { namespace, name: "workers", ownerReferences: [owner], labels },
      spec: {
        replicas: 0,
        selector: { matchLabels: { a: "b" } },
        template: { metadata: { labels: { a: "b", ...labels } }, spec: { containers: [{ name: "w", image: "w" }] } },
      },
    } as never),
  );
  await Promise.all(forged);
  tried(forged.length);
  await stage.restartOperator();
  await stage.expectVictimUnharmed();
  // The operator looked for the forged claims' items, and deleted the claims.
  await own.until("the tenant's own Berth serves work beside it", async () => {
    const { id } = own.simulator.items(own.environmentId)[0] ?? own.simulator.enqueue(own.environmentId);
    return own.simulator.items(own.environmentId).find((item) => item.id === id)?.state === "stopped";
  });
  // Other Pods are parked, claimed and finished meanwhile; the Pod of the running session is unchanged.
  const runs = (pod: (typeof before)[number]) => pod.labels?.["berth.dev/work-id"] === stage.running;
  expect(before.filter(runs)).toHaveLength(1);
  expect(podsOf(victim).filter(runs)).toEqual(before.filter(runs));
  expect(stage.listener.seen).toEqual([]);
  await stage.expectVictimUnharmed();
  allWithoutEffect();
});

test("a user who may create Secrets in a namespace gets no key of it, and changes none of its Pods", async () => {
  await using stage = await Tenancy.start(cluster);
  const { victim } = stage;
  const { namespace } = victim;
  const tenant = await stage.tenant("secret-maker", namespace, [
    { apiGroups: [""], resources: ["secrets"], verbs: ["create"] },
  ]);
  const database = await victim.kube.create(PODS, {
    metadata: { namespace, name: "database-0", labels: { app: "database", "berth.dev/phase": "warm" } },
    spec: { containers: [{ name: "worker", image: "database:1" }], nodeName: victim.node.name },
  } as Pod);
  const podUid = database.metadata.uid ?? "";
  const environmentUid = victim.environment?.metadata.uid ?? "";
  const about = (workId: string) => ({ environmentUid, workId });
  const claims = [
    madeUpClaim(namespace, "berth-served-one", about("work_one")),
    madeUpClaim(namespace, "berth-served-two", about("work_two"), true),
    madeUpClaim(namespace, "berth-served-three", { ...about("work_three"), lease: "Operator" }, true),
    madeUpClaim(namespace, "berth-served-four", { ...about(stage.running), use: "refusal" }),
    madeUpClaim(namespace, "database-0", { ...about("work_database"), podUid }, true),
    madeUpClaim(namespace, "database-1", { ...about("work_database_1"), podUid, use: "removal" }),
  ];
  for (const claim of claims) await tenant.create(SECRETS, claim);
  tried(claims.length);
  await stage.restartOperator();
  await stage.expectVictimUnharmed();
  expect(stage.listener.seen).toEqual([]);
  const live = await victim.kube.get(PODS, { namespace, name: "database-0" });
  expect(live.metadata).toMatchObject({ uid: podUid, labels: database.metadata.labels });
  expect(live.metadata.deletionTimestamp).toBeUndefined();
  expect(live.spec.activeDeadlineSeconds).toBeUndefined();
  allWithoutEffect();
});

test("a tenant's address receives only the tenant's own key, and cannot inject text into messages", async () => {
  await using stage = await Tenancy.start(cluster);
  const { own, listener } = stage;
  const tenant = await stage.tenant("editor", own.namespace, "edit");
  const forgedLine = '{"level":"error","msg":"FORGED"}';
  const words = `x"\n${forgedLine}\n\u001b[2J\u001b]0;owned\u0007\r\u2028 berth_forged_metric{a="b"} 1\n`;
  listener.fallback = raw(400, JSON.stringify({ type: "error", error: { type: words, message: words.repeat(40) } }), {
    "content-type": "application/json",
    "request-id": "r".repeat(5_000),
  });
  for (const group of ["a", "b", "c"]) {
    tried();
    const api = { baseUrl: listener.origin, keySecretRef: { name: "key" }, budgetGroup: `group-${group}` };
    await tenant.create(ENVIRONMENTS, environment(own, `liar-${group}`, { api }));
    const message = await own.until("its message is shown", async () => {
      const { status } = await tenant.get(ENVIRONMENTS, { namespace: own.namespace, name: `liar-${group}` });
      const { conditions = [] } = (status ?? {}) as { conditions?: { reason: string; message: string }[] };
      return conditions.find(({ reason }) => reason === "BadReply")?.message;
    });
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
    expect(message).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/);
    expect(message.length).toBeLessThan(2_000);
  }
  const sent = JSON.stringify(listener.seen);
  expect(listener.seen.length).toBeGreaterThan(0);
  for (const secret of stage.secrets) expect(sent).not.toContain(secret);
  expect(stage.operator.log.filter(({ msg }) => msg === "FORGED")).toEqual([]);
  const metrics = await (await fetch(`http://${stage.operator.addresses.metrics}/metrics`)).text();
  expect(metrics).not.toMatch(/^berth_forged/m);
  for (const secret of stage.secrets) {
    expect(metrics).not.toContain(secret);
    expect(JSON.stringify(stage.operator.log)).not.toContain(secret);
  }
  await stage.expectVictimUnharmed();
  allWithoutEffect();
});

test("a namespace full of objects with Berth's labels does not stop the operator from serving others", async () => {
  await using stage = await Tenancy.start(cluster);
  const { own, victim } = stage;
  const { namespace } = own;
  const tenant = await stage.tenant("editor", namespace, "edit");
  const hashes = victim.pods[0]?.metadata.labels ?? {};
  const numbers = (count: number) => Array.from({ length: count }, (_, i) => i);
  const filler = randomBytes(4_000).toString("hex");
  await forEach(numbers(FLOOD.pods), (i) =>
    tenant.create(PODS, {
      metadata: {
        namespace,
        name: `berth-served-${i}`,
        labels: { ...hashes, "berth.dev/phase": i % 2 ? "warm" : "running" },
      },
      spec: {
        nodeSelector: { nowhere: "at-all" },
        containers: [{ name: "worker", image: "worker:1", env: [{ name: "FILLER", value: filler }] }],
      },
    } as Pod),
  );
  await forEach(numbers(FLOOD.secrets), (i) =>
    tenant.create(SECRETS, madeUpClaim(namespace, `made-up-${i}`, { workId: `work_${i}` }, i % 2 === 0)),
  );
  await forEach(numbers(FLOOD.environments), (i) => createEnvironment(tenant, own, i));
  tried(3);
  await stage.restartOperator();
  await victim.untilParked(1);
  for (let i = 0; i < 3; i += 1) await stage.expectVictimUnharmed();
  const metrics = await (await fetch(`http://${stage.operator.addresses.metrics}/metrics`)).text();
  const resident = Number(/^process_resident_memory_bytes (\S+)$/m.exec(metrics)?.[1]);
  const what = Object.entries(FLOOD).map(([kind, count]) => `${count} ${kind}`);
  console.log(`a flood of ${what.join(", ")}: the operator takes ${Math.round(resident / 2 ** 20)} MiB`);
  // The memory limit that the chart sets for the operator.
  expect(resident).toBeLessThan(512 * 2 ** 20);
  allWithoutEffect();
});

async function createEnvironment(tenant: KubeClient, own: World, i: number): Promise<void> {
  const spec = { environmentId: `env_flood${i}`, api: { baseUrl: own.simulator.url, keySecretRef: { name: "key" } } };
  await tenant.create(ENVIRONMENTS, environment(own, `flood-${i}`, spec));
}
