import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import {
  ANNOTATION_ENDED_TURN,
  ANNOTATION_SESSION_CONTAINER,
  LABEL_MANAGED_BY,
  LABEL_ROLE,
} from "../../src/api/names.ts";
import type { Container, Pod } from "../../src/kube/resource.ts";
import { keeperOf, keeperVolume, MOST_TURNS, renderTurn, turnName, turnPatch } from "../../src/pods/turns.ts";
import { type ApiClient, ApiError } from "../../testbed/cluster/api.ts";
import { applyRights, type ReleaseRights } from "../faults/authority/release-rights.ts";
import { objectPath } from "../support/chart.ts";
import { useCluster } from "../support/cluster.ts";

const cluster = useCluster();

const LABELS: Readonly<Record<string, string>> = { [LABEL_MANAGED_BY]: "berth", [LABEL_ROLE]: "session" };
const ANNOTATIONS: Readonly<Record<string, string>> = {
  [ANNOTATION_ENDED_TURN]: "0",
  [ANNOTATION_SESSION_CONTAINER]: "worker",
};
const WORKER: Container = {
  name: "worker",
  image: "worker:1",
  command: ["node", "main.mjs"],
  securityContext: { runAsUser: 1_000, capabilities: { drop: ["ALL"] } },
};
const SIDECAR: Container = { name: "proxy", image: "proxy:1", securityContext: { runAsUser: 2_000 } };

const WRONG_POD = "Berth's operator may add ephemeral containers only to its session Pods with the annotation";
const WRONG_NAME = "Berth's operator may add only ephemeral containers named berth-turn-NUMBER";
const WRONG_IMAGE = "Berth's operator may add only ephemeral containers with the image and the securityContext of one";

/** The API server learns of a policy by a watch. A longer delay is a fault. */
const IN_FORCE_MS = 60_000;

let rights: ReleaseRights;
let operator: ApiClient;
let count = 0;

beforeAll(async () => {
  rights = await applyRights(cluster);
  operator = await rights.as(rights.operator);
  for (const kind of ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"]) {
    const object = rights.rendered.one(kind, "-turn-policy");
    await cluster.api.apply(objectPath(object), object);
  }
  const pod = await createPod({ labels: {} });
  const isRefused = async () => (await add(pod, [turn(pod)], operator, "?dryRun=All")).includes(WRONG_POD);
  await vi.waitUntil(isRefused, { timeout: IN_FORCE_MS });
});

afterAll(async () => {
  for (const kind of ["ValidatingAdmissionPolicyBinding", "ValidatingAdmissionPolicy"]) {
    await cluster.api.delete(objectPath(rights.rendered.one(kind, "-turn-policy")));
  }
  await rights[Symbol.asyncDispose]();
});

/** A Pod whose session can sleep, as the API server stores it. No scheduler takes it, so nothing else changes it. */
async function createPod({ labels = LABELS, annotations = ANNOTATIONS, worker = WORKER } = {}): Promise<Pod> {
  count += 1;
  return await cluster.api.create<Pod>(`/api/v1/namespaces/${rights.namespace}/pods`, {
    metadata: { name: `berth-research-${count}`, labels, annotations },
    spec: {
      schedulerName: "none",
      containers: [keeperOf(worker), SIDECAR],
      volumes: [keeperVolume()],
    },
  });
}

function pathOf({ metadata: { name } }: Pod): string {
  return `/api/v1/namespaces/${rights.namespace}/pods/${name}`;
}

/** A turn's container, with changes. */
function turn(pod: Pod, changes: Partial<Container> = {}): Container {
  return { ...renderTurn(pod, 1), ...changes };
}

/** Adds ephemeral containers. Returns status and message of the API server's refusal, or `added`. */
async function add(pod: Pod, containers: readonly Container[], client = operator, query = ""): Promise<string> {
  return await patch(pod, { spec: { ephemeralContainers: containers } }, client, query);
}

async function patch(pod: Pod, body: object, client = operator, query = ""): Promise<string> {
  const path = `${pathOf(pod)}/ephemeralcontainers${query}`;
  try {
    await client.request("PATCH", path, { body, contentType: "application/strategic-merge-patch+json" });
    return "added";
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return error.message.slice(`PATCH ${path}: `.length);
  }
}

/** The ephemeral containers of the stored Pod. */
async function stored(pod: Pod): Promise<string[]> {
  const { spec } = await cluster.api.get<Pod>(pathOf(pod));
  return (spec.ephemeralContainers ?? []).map(({ name }) => name).sort();
}

function expectRefused(answer: string, message: string): void {
  expect(answer).toMatch(/^403 .*ValidatingAdmissionPolicy/);
  expect(answer).toContain(message);
}

describe("the operator", () => {
  test("can add turns to a session Pod, one after another", async () => {
    const pod = await createPod();
    expect(await patch(pod, turnPatch(pod, 1))).toBe("added");
    const live = await cluster.api.get<Pod>(pathOf(pod));
    expect(await patch(pod, turnPatch(live, 12))).toBe("added");
    expect(await stored(pod)).toEqual(["berth-turn-1", "berth-turn-12"]);
  });

  test("can add the last turn of a Pod", async () => {
    const pod = await createPod();
    const earlier = Array.from({ length: MOST_TURNS - 1 }, (_, at) => turn(pod, { name: turnName(at + 1) }));
    expect(await add(pod, earlier)).toBe("added");
    expect(await add(pod, [turn(pod, { name: turnName(MOST_TURNS) })])).toBe("added");
    expect(await stored(pod)).toHaveLength(MOST_TURNS);
  });

  test("can add a turn where the container has no securityContext, or an empty one", async () => {
    const { securityContext: _, ...without } = WORKER;
    for (const worker of [without, { ...without, securityContext: {} }]) {
      const pod = await createPod({ worker });
      expect(await patch(pod, turnPatch(pod, 1))).toBe("added");
    }
  });

  test("can add a turn to a session Pod that an administrator debugs", async () => {
    const pod = await createPod();
    expect(await add(pod, [turn(pod, { name: "debugger", image: "busybox:1" })], cluster.api)).toBe("added");
    const live = await cluster.api.get<Pod>(pathOf(pod));
    expect(await patch(pod, turnPatch(live, 1))).toBe("added");
    expect(await stored(pod)).toEqual(["berth-turn-1", "debugger"]);
  });

  test.each<[string, Parameters<typeof createPod>[0]]>([
    ["of another manager", { labels: { ...LABELS, [LABEL_MANAGED_BY]: "Helm" } }],
    ["of a worker", { labels: { ...LABELS, [LABEL_ROLE]: "worker" } }],
    ["without labels", { labels: {} }],
    ["whose session can't sleep", { annotations: { [ANNOTATION_SESSION_CONTAINER]: "worker" } }],
  ])("can't add a turn to a Pod %s", async (_which, given) => {
    const pod = await createPod(given);
    expectRefused(await patch(pod, turnPatch(pod, 1)), WRONG_POD);
  });

  test("can't make another Pod a session Pod in the patch that adds the turn", async () => {
    const pod = await createPod({ labels: {} });
    expectRefused(await patch(pod, { ...turnPatch(pod, 1), metadata: { labels: LABELS } }), WRONG_POD);
  });

  test.each(["debugger", "berth-turn-", "berth-turn-0", "berth-turn-01", "berth-turn-1a", "my-berth-turn-1"])(
    "can't add a container named %s",
    async (name) => {
      const pod = await createPod();
      const answer = await add(pod, [turn(pod, { name })]);
      // The API server refuses some of these names before the policy.
      if (name.endsWith("-")) expect(answer).toMatch(/^422 /);
      else expectRefused(answer, WRONG_NAME);
      expect(await stored(pod)).toEqual([]);
    },
  );

  test.each<[string, Partial<Container>]>([
    ["another image", { image: "worker:2" }],
    ["the image of another container", { image: SIDECAR.image as string }],
    ["the securityContext of another container", { securityContext: SIDECAR["securityContext"] }],
    ["added capabilities", { securityContext: { runAsUser: 1_000, capabilities: { add: ["NET_ADMIN"] } } }],
    ["no securityContext", { securityContext: undefined }],
  ])("can't add a turn with %s", async (_what, changes) => {
    const pod = await createPod();
    expectRefused(await add(pod, [turn(pod, changes)]), WRONG_IMAGE);
  });

  test("can't add another container together with a turn", async () => {
    const pod = await createPod();
    expectRefused(await add(pod, [turn(pod), turn(pod, { name: "debugger" })]), WRONG_NAME);
    expectRefused(await add(pod, [turn(pod), turn(pod, { name: "berth-turn-2", image: "worker:2" })]), WRONG_IMAGE);
    expect(await stored(pod)).toEqual([]);
  });
});

test("an administrator can add any container to any Pod", async () => {
  const pod = await createPod({ labels: {} });
  expect(await add(pod, [turn(pod, { name: "debugger", image: "busybox:1" })], cluster.api)).toBe("added");
});
