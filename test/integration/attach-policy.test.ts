import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { newPodName } from "../../src/pods/pod-render.ts";
import { type ApiClient, ApiError } from "../../testbed/cluster/api.ts";
import { applyRights, type ReleaseRights } from "../faults/authority/release-rights.ts";
import { objectPath } from "../support/chart.ts";
import { useCluster } from "../support/cluster.ts";

const cluster = useCluster();

/** A session Pod of an Environment with a long name that contains dots. */
const SESSION_POD = newPodName(`research.${"x".repeat(200)}`);
const OTHER_POD = "database-0";
/** The API server's answer when everything but the Pod's missing node allows an attach. */
const unscheduled = (pod: string) => `400 pod ${pod} does not have a host assigned`;
/** Like a WebSocket, and like SPDY. The admission policy runs before the upgrade, so the test needs none. */
const METHODS = ["GET", "POST"] as const;

/** The API server learns of a policy by a watch. A longer delay is a fault. */
const IN_FORCE_MS = 60_000;

let rights: ReleaseRights;
let operator: ApiClient;

beforeAll(async () => {
  rights = await applyRights(cluster);
  operator = await rights.as(rights.operator);
  for (const kind of ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"]) {
    const object = rights.rendered.one(kind, "-attach-policy");
    await cluster.api.apply(objectPath(object), object);
  }
  for (const name of [SESSION_POD, OTHER_POD]) {
    await cluster.api.create(`/api/v1/namespaces/${rights.namespace}/pods`, {
      metadata: { name },
      spec: { nodeSelector: { nowhere: "at-all" }, containers: [{ name: "worker", image: "worker:1" }] },
    });
  }
  const isRefused = async () => (await attach(operator, "GET", OTHER_POD)).includes("ValidatingAdmissionPolicy");
  await vi.waitUntil(isRefused, { timeout: IN_FORCE_MS });
});

afterAll(async () => {
  for (const kind of ["ValidatingAdmissionPolicyBinding", "ValidatingAdmissionPolicy"]) {
    await cluster.api.delete(objectPath(rights.rendered.one(kind, "-attach-policy")));
  }
  await rights[Symbol.asyncDispose]();
});

/** Status and message of the API server's answer to an attach. */
async function attach(client: ApiClient, method: string, pod: string, user?: string): Promise<string> {
  const path = `/api/v1/namespaces/${rights.namespace}/pods/${pod}/attach?container=worker&stdin=true&stdout=true`;
  const headers = user === undefined ? {} : { "impersonate-user": user, "impersonate-group": "system:masters" };
  try {
    await client.request(method, path, { headers });
    return "attached";
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return error.message.slice(`${method} ${path}: `.length);
  }
}

describe.each(METHODS)("an attach by %s", (method) => {
  test("is allowed to the operator for a session Pod", async () => {
    expect(await attach(operator, method, SESSION_POD)).toBe(unscheduled(SESSION_POD));
  });

  test("is refused to the operator for any other Pod, even one that does not exist", async () => {
    for (const pod of [OTHER_POD, "no-berth-x", "berth"]) {
      const answer = await attach(operator, method, pod);
      expect(answer).toMatch(/^403 .*ValidatingAdmissionPolicy/);
      expect(answer).toContain("Berth's operator may attach only to Pods whose names start with berth-");
    }
  });

  test.each([
    ["an administrator", () => undefined],
    ["another account of the namespace", () => `system:serviceaccount:${rights.namespace}:default`],
    ["an account with the operator's name elsewhere", () => `system:serviceaccount:elsewhere:${rights.operator}`],
  ])("is allowed to %s for any Pod", async (_who, user) => {
    expect(await attach(cluster.api, method, OTHER_POD, user())).toBe(unscheduled(OTHER_POD));
  });
});
