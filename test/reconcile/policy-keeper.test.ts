import { beforeEach, describe, expect, test } from "vitest";
import type { Environment } from "../../src/api/environment.ts";
import { NO_POINTS } from "../../src/core/points.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import { LeadershipLostError } from "../../src/kube/errors.ts";
import type { NetworkPolicy } from "../../src/kube/resource.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { renderNetworkPolicy } from "../../src/reconcile/network-policy.ts";
import { PolicyKeeper } from "../../src/reconcile/policy-keeper.ts";
import { type Json, parsed, sessionsSpec, stored } from "../api/environments.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { type Answer, FakeKube, noAnswer, notFound, refusal } from "./fake-kube.ts";

const FACTS = { apiCidrs: ["160.79.104.0/23"], operatorNamespace: "berth-system", dns: { pods: [], cidrs: [] } };
const MINUTE_MS = 60_000;

const environmentOf = (network: Json = {}, metadata: Json = {}): Environment => {
  const raw = stored(sessionsSpec({}, { network }));
  return parsed({ ...raw, metadata: { ...(raw["metadata"] as Json), ...metadata } });
};
const MANAGED = environmentOf();
const NONE = environmentOf({ policy: "None" });
const WIDER = environmentOf({ egress: { cidrs: ["10.0.0.0/8"] } });

/** The policy as the API server stores it. */
function inCluster(environment: Environment, change: (policy: NetworkPolicy) => void = () => {}): NetworkPolicy {
  const policy = structuredClone(renderNetworkPolicy(environment, FACTS));
  if (!policy) throw new Error("no policy");
  Object.assign(policy.metadata, { uid: "p", resourceVersion: "7" });
  change(policy);
  return policy;
}

let clock: VirtualClock;
let kube: FakeKube;
let keeper: PolicyKeeper;
/** The policy in the cluster, which the fake changes with each write. */
let inStore: NetworkPolicy | undefined;
let refused: Answer;

beforeEach(() => {
  clock = new VirtualClock();
  inStore = undefined;
  refused = () => undefined;
  kube = new FakeKube((call) => refused(call) ?? answer(call));
  keeper = new PolicyKeeper({
    kube: kube.client,
    points: NO_POINTS,
    clock,
    logger: silentLogger,
    timing: DEFAULT_TIMING,
    facts: FACTS,
  });
});

const answer: Answer = ({ verb, body }) => {
  if (verb === "get") return inStore ?? notFound("networkpolicies", "berth-research");
  if (verb === "delete") inStore = undefined;
  else if (verb === "create") inStore = Object.assign(structuredClone(body) as NetworkPolicy, {});
  else inStore = merged(inStore, body) as NetworkPolicy;
  return inStore ?? {};
};
const isFields = (value: unknown): value is Json =>
  typeof value === "object" && value !== null && !Array.isArray(value);
/** Applies a merge patch. */
function merged(found: unknown, patch: unknown): unknown {
  if (!isFields(patch)) return patch;
  const kept = isFields(found) ? found : {};
  const parts = Object.entries(patch).map(([name, value]) => [name, merged(kept[name], value)]);
  const all = { ...kept, ...Object.fromEntries(parts) };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== null));
}
const verbs = () => kube.calls.splice(0).map(({ verb }) => verb);
const forbidden = () => refusal(403, "Forbidden", 'networkpolicies is forbidden: User "berth" cannot get resource');

describe("the keeper of a NetworkPolicy", () => {
  test("permits no Pods before its first check", () => {
    expect(keeper.isKept).toBe(false);
    expect(keeper.verdict.reason).toBe("PolicyUnchecked");
  });

  test("creates the policy", async () => {
    await keeper.keep(MANAGED);
    expect(verbs()).toEqual(["get", "create"]);
    expect(inStore).toEqual(renderNetworkPolicy(MANAGED, FACTS));
    expect(keeper.isKept).toBe(true);
    expect(keeper.verdict).toEqual({
      reason: "PolicyInPlace",
      message: "NetworkPolicy berth-research exists; the cluster's network plug-in must enforce it",
    });
  });

  test("leaves a correct policy, and checks again only after ten minutes", async () => {
    inStore = inCluster(MANAGED);
    await keeper.keep(MANAGED);
    for (let minute = 0; minute < 9; minute += 1) {
      await clock.advance(MINUTE_MS);
      await keeper.keep(MANAGED);
    }
    expect(verbs()).toEqual(["get"]);
    expect(keeper.nextLookMs(clock.monotonic())).toBe(MINUTE_MS);
    await clock.advance(MINUTE_MS);
    await keeper.keep(MANAGED);
    expect(verbs()).toEqual(["get"]);
  });

  test("applies every field of a changed policy, also empty ones, to the object that it read", async () => {
    inStore = inCluster(MANAGED, ({ spec }) => void spec?.ingress?.push({}));
    await keeper.keep(MANAGED);
    const [, { verb, body, query } = { verb: "", body: {}, query: {} }] = kube.calls;
    expect({ verb, query }).toEqual({ verb: "patch", query: { type: "apply", fieldManager: "berth", force: true } });
    const { metadata, ...wanted } = renderNetworkPolicy(MANAGED, FACTS) ?? { metadata: {} };
    expect(body).toEqual({ ...wanted, metadata: { ...metadata, uid: "p" } });
    expect(wanted).toMatchObject({ spec: { ingress: [] } });
    expect(keeper.isKept).toBe(true);
  });

  test("follows a changed spec at once, and permits no Pods in between", async () => {
    await keeper.keep(MANAGED);
    verbs();
    let keptWhileAsked: boolean | undefined;
    refused = () => {
      keptWhileAsked ??= keeper.isKept;
      return undefined;
    };
    await keeper.keep(WIDER);
    expect(keptWhileAsked).toBe(false);
    expect(verbs()).toEqual(["get", "patch"]);
    expect(JSON.stringify(inStore)).toContain("10.0.0.0/8");
    expect(keeper.isKept).toBe(true);
  });

  test("deletes the policy when the spec wants none, and then sends no more requests", async () => {
    await keeper.keep(MANAGED);
    await keeper.keep(NONE);
    expect(inStore).toBeUndefined();
    expect(keeper.isKept).toBe(true);
    expect(keeper.verdict.reason).toBe("PolicyNotWanted");
    verbs();
    await clock.advance(60 * MINUTE_MS);
    await keeper.keep(NONE);
    expect(verbs()).toEqual([]);
    expect(keeper.nextLookMs(clock.monotonic())).toBe(Number.POSITIVE_INFINITY);
  });

  test("deletes a policy of an earlier process, but not another owner's", async () => {
    inStore = inCluster(MANAGED);
    await keeper.keep(NONE);
    expect(verbs()).toEqual(["get", "delete"]);

    inStore = inCluster(MANAGED, ({ metadata }) => {
      delete metadata.ownerReferences;
      metadata.labels = { app: "theirs" };
    });
    await keeper.keep(MANAGED);
    await keeper.keep(NONE);
    expect(verbs()).not.toContain("delete");
    expect(keeper.isKept).toBe(true);
  });
});

describe("watch events", () => {
  test("recreates a deleted policy at once", async () => {
    await keeper.keep(MANAGED);
    inStore = undefined;
    verbs();
    expect(keeper.seen(undefined)).toBe(true);
    expect(keeper.isKept).toBe(false);
    await keeper.keep(MANAGED);
    expect(verbs()).toEqual(["get", "create"]);
    expect(keeper.isKept).toBe(true);
  });

  test("corrects a changed policy at once; its own writes and irrelevant changes cause no check", async () => {
    await keeper.keep(MANAGED);
    expect(keeper.seen(inCluster(MANAGED))).toBe(false);
    expect(
      keeper.seen(inCluster(MANAGED, ({ metadata }) => Object.assign(metadata, { annotations: { a: "b" } }))),
    ).toBe(false);
    expect(keeper.seen(inCluster(WIDER))).toBe(true);
    await keeper.keep(MANAGED);
    expect(keeper.isKept).toBe(true);
  });

  test("ignores the watch before the first check", () => {
    expect(keeper.seen(undefined)).toBe(false);
    expect(keeper.seen(inCluster(MANAGED))).toBe(false);
  });

  test("checks again if the policy is deleted during a check", async () => {
    inStore = inCluster(MANAGED);
    refused = ({ verb }) => {
      if (verb !== "get" || !inStore) return undefined;
      const answer = inStore;
      inStore = undefined;
      keeper.seen(undefined);
      return answer;
    };
    await keeper.keep(MANAGED);
    expect(keeper.isKept).toBe(false);
    expect(keeper.nextLookMs(clock.monotonic())).toBeLessThan(0);
    await keeper.keep(MANAGED);
    expect(verbs()).toEqual(["get", "get", "create"]);
    expect(keeper.isKept).toBe(true);
  });

  test("backs off if every write is undone, and permits no Pods in between", async () => {
    inStore = inCluster(MANAGED);
    await keeper.keep(MANAGED);
    const at: number[] = [];
    for (let second = 0; second < 600; second += 1) {
      const isFine = inStore && keeper.isKept;
      // A second operator, or a tool that owns the policy, undoes each write at once.
      if (isFine) {
        inStore = inCluster(WIDER);
        keeper.seen(inStore);
      }
      verbs();
      await keeper.keep(MANAGED);
      if (verbs().includes("patch")) at.push(second);
      await clock.advance(1_000);
    }
    expect(at.slice(0, 5)).toEqual([0, 1, 2, 3, 8]);
    expect(at.length).toBeLessThan(20);
  });

  test("reports repeated undoing, but an occasional change is corrected at once", async () => {
    await keeper.keep(MANAGED);
    for (let times = 0; times < 10; times += 1) {
      keeper.seen(undefined);
      inStore = undefined;
      if (times < 3) {
        await keeper.keep(MANAGED);
        expect(keeper.isKept).toBe(true);
      }
    }
    await keeper.keep(MANAGED);
    expect(keeper.verdict).toMatchObject({
      reason: "PolicyFailing",
      message: expect.stringContaining("keeps changing or deleting"),
    });
    await clock.advance(10 * MINUTE_MS);
    await keeper.keep(MANAGED);
    await clock.advance(10 * MINUTE_MS);
    keeper.seen(undefined);
    inStore = undefined;
    await keeper.keep(MANAGED);
    expect(keeper.isKept).toBe(true);
  });

  test("accepts a deletion when the spec wants no policy", async () => {
    await keeper.keep(NONE);
    expect(keeper.seen(undefined)).toBe(false);
    expect(keeper.seen(inCluster(MANAGED))).toBe(true);
  });
});

describe("ownership", () => {
  const ownedBy = (owner: Json) =>
    inCluster(MANAGED, ({ metadata }) => Object.assign(metadata.ownerReferences?.[0] ?? {}, owner));

  test("replaces the policy of an earlier Environment of the same name", async () => {
    inStore = ownedBy({ uid: "earlier" });
    await keeper.keep(MANAGED);
    expect(kube.calls.map(({ verb }) => verb)).toEqual(["get", "delete", "create"]);
    expect(kube.calls[1]?.query).toEqual({ uid: "p" });
    expect(keeper.isKept).toBe(true);
  });

  test("adopts a policy without an owner, as an orphaning deletion leaves it", async () => {
    inStore = inCluster(MANAGED, ({ metadata }) => void delete metadata.ownerReferences);
    await keeper.keep(MANAGED);
    expect(kube.calls[1]).toMatchObject({
      verb: "patch",
      body: { metadata: { ownerReferences: [{ controller: true }] } },
    });
    expect(keeper.isKept).toBe(true);
  });

  test.each([
    { kind: "Tenant", name: "blue", uid: "t" },
    // Another API group may have a kind with this name.
    { apiVersion: "apiextensions.crossplane.io/v1beta1", uid: "c" },
  ])("never touches another owner's policy: permits no Pods and reports it (%j)", async (owner) => {
    inStore = ownedBy(owner);
    await keeper.keep(MANAGED);
    expect(verbs()).toEqual(["get"]);
    expect(keeper.isKept).toBe(false);
    expect(keeper.verdict).toMatchObject({
      reason: "PolicyFailing",
      message: expect.stringContaining("has another owner; delete or rename it"),
    });
  });
});

describe("failures", () => {
  test.each(["create", "patch"])("detects that admission changes the policy at the %s", async (verb) => {
    if (verb === "patch") inStore = inCluster(WIDER);
    const altered = inCluster(MANAGED, ({ spec }) => void spec?.egress?.push({}));
    refused = (call) => (call.verb === verb ? altered : undefined);
    await keeper.keep(MANAGED);
    expect(keeper.isKept).toBe(false);
    expect(keeper.verdict).toMatchObject({
      reason: "PolicyFailing",
      message: expect.stringContaining(
        "the cluster's admission changed it; exclude it from the admission webhook or policy",
      ),
    });
  });

  test("permits no Pods if it may not write the policy, reports the fix, and retries with backoff", async () => {
    refused = ({ verb }) => (verb === "create" ? forbidden() : undefined);
    await keeper.keep(MANAGED);
    expect(keeper.isKept).toBe(false);
    expect(keeper.verdict).toMatchObject({
      reason: "PolicyFailing",
      message: expect.stringMatching(
        /no Pod is made and nothing is claimed.*give the operator permission to get, create/,
      ),
    });
    const told = keeper.verdict;
    const looks: number[] = [];
    for (let second = 0; second < 120; second += 1) {
      await clock.advance(1_000);
      await keeper.keep(MANAGED);
      if (verbs().length > 0) looks.push(second);
    }
    expect(looks.length).toBeGreaterThan(2);
    expect(looks.length).toBeLessThan(8);
    expect(keeper.verdict).toEqual(told);
    refused = () => undefined;
    await clock.advance(DEFAULT_TIMING.templateRetryMaxMs);
    await keeper.keep(MANAGED);
    expect(keeper.isKept).toBe(true);
  });

  test.each([
    [
      "a quota",
      refusal(403, "Forbidden", 'networkpolicies "x" is forbidden: exceeded quota: tight, requested: count=1'),
      "raise the quota",
    ],
    [
      "an admission policy",
      refusal(403, "Forbidden", "ValidatingAdmissionPolicy 'no-policies' denied request: ask the network's people"),
      "ask the cluster's administrator to change the policy",
    ],
    ["what egress says", refusal(422, "Invalid", "spec.egress[2].to[0]: Invalid value"), "correct spec.network.egress"],
    ["an API server that is away", noAnswer("create networkpolicies"), "Berth tries again"],
  ])("reports %s with the matching fix", async (_, error, fix) => {
    refused = ({ verb }) => (verb === "create" ? error : undefined);
    await keeper.keep(MANAGED);
    expect(keeper.verdict.message).toContain(fix);
    expect(keeper.verdict.message).not.toContain("leave to");
  });

  test("follows a changed spec at once, whatever failed before", async () => {
    refused = () => forbidden();
    await keeper.keep(MANAGED);
    refused = () => undefined;
    await keeper.keep(WIDER);
    expect(keeper.isKept).toBe(true);
  });

  test("keeps a policy in place if a check gets no answer", async () => {
    await keeper.keep(MANAGED);
    refused = () => noAnswer("get networkpolicies");
    await clock.advance(DEFAULT_TIMING.policyCheckMs);
    await keeper.keep(MANAGED);
    expect(keeper.isKept).toBe(true);
    expect(keeper.verdict.reason).toBe("PolicyInPlace");
    expect(keeper.nextLookMs(clock.monotonic())).toBe(DEFAULT_TIMING.templateRetryBaseMs);
  });

  test("permits no Pods if it can't recreate a lost policy", async () => {
    await keeper.keep(MANAGED);
    inStore = undefined;
    keeper.seen(undefined);
    refused = ({ verb }) => (verb === "create" ? noAnswer("create networkpolicies") : undefined);
    await keeper.keep(MANAGED);
    expect(keeper.isKept).toBe(false);
    expect(keeper.verdict.reason).toBe("PolicyFailing");
  });

  test("needs no permission to read policies if the spec wants none", async () => {
    refused = () => forbidden();
    await keeper.keep(NONE);
    expect(keeper.isKept).toBe(true);
    expect(keeper.verdict.reason).toBe("PolicyNotWanted");
  });

  test("reports a policy that it may not delete, even if the spec wants none", async () => {
    await keeper.keep(MANAGED);
    refused = ({ verb }) => (verb === "delete" ? forbidden() : undefined);
    await keeper.keep(NONE);
    expect(keeper.verdict).toMatchObject({
      reason: "PolicyFailing",
      message: expect.stringContaining("could not be taken away"),
    });
    refused = () => undefined;
    await clock.advance(MINUTE_MS);
    await keeper.keep(NONE);
    expect([inStore, keeper.verdict.reason]).toEqual([undefined, "PolicyNotWanted"]);
  });

  test("checks again if another client created the policy first", async () => {
    let creations = 0;
    refused = ({ verb }) => {
      if (verb !== "create" || creations > 0) return undefined;
      creations += 1;
      inStore = inCluster(MANAGED);
      return refusal(409, "AlreadyExists", "it is there");
    };
    await keeper.keep(MANAGED);
    expect(verbs()).toEqual(["get", "create", "get"]);
    expect(keeper.isKept).toBe(true);
  });

  test("ends an endless race as a failure", async () => {
    refused = ({ verb }) => (verb === "create" ? refusal(409, "AlreadyExists", "it is there") : undefined);
    await keeper.keep(MANAGED);
    expect(verbs().length).toBeLessThan(10);
    expect(keeper.isKept).toBe(false);
  });

  test("throws on lost leadership and reports nothing", async () => {
    refused = ({ verb }) => (verb === "create" ? new LeadershipLostError("not the leader") : undefined);
    await expect(keeper.keep(MANAGED)).rejects.toThrow(LeadershipLostError);
  });
});

test("creates no policy during a foreground deletion, which it would block", async () => {
  const deletionTimestamp = "2026-01-02T03:04:05Z";
  await keeper.keep(environmentOf({}, { deletionTimestamp, finalizers: ["foregroundDeletion"] }));
  expect(verbs()).toEqual([]);
  await keeper.keep(environmentOf({}, { deletionTimestamp, finalizers: ["berth.dev/drain"] }));
});

test("keeps the policy while the Environment drains in a background deletion", async () => {
  await keeper.keep(MANAGED);
  inStore = undefined;
  keeper.seen(undefined);
  verbs();
  await keeper.keep(environmentOf({}, { deletionTimestamp: "2026-01-02T03:04:05Z", finalizers: ["berth.dev/drain"] }));
  expect(verbs()).toEqual(["get", "create"]);
});
