import { describe, expect, test } from "vitest";
import { ANNOTATION_NEEDS, LABEL_TEMPLATE_HASH } from "../../src/api/names.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import type { Pod } from "../../src/kube/resource.ts";
import { cachedPod } from "../../src/pods/cached-pod.ts";
import { sessionTemplate } from "../../src/pods/pod-render.ts";
import { Starts } from "../../src/pods/starts.ts";
import { FreePods, freePodOf } from "../../src/pool/free-pods.ts";
import { ClaimTable } from "../../src/protocol/claim-table.ts";
import type { SessionContext } from "../../src/protocol/context.ts";
import { parsed, podTemplate, sessionsSpec, stored } from "../api/environments.ts";
import { pod } from "../pods/pods.ts";
import { claimOf } from "../protocol/claims.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const NEW = "new";
const OLD = "old";
/** A template that has not served, as far as known. */
const UNKNOWN = "unknown";

interface Kind {
  readonly name: string;
  readonly hash?: string;
  readonly ageSeconds?: number;
  readonly node?: string;
}

/** A parked Pod from a cache, whose template needs nothing special from the policy. */
function parked({ name, hash = NEW, ageSeconds = 10, node = "steady" }: Kind): Pod {
  const made = pod({}, { spec: { nodeName: node } });
  const { metadata } = made;
  return {
    ...made,
    metadata: {
      ...metadata,
      name,
      creationTimestamp: new Date(Date.UTC(2030, 0, 1) - 1_000 * ageSeconds).toISOString(),
      labels: { [LABEL_TEMPLATE_HASH]: hash },
      annotations: { ...metadata.annotations, [ANNOTATION_NEEDS]: "[]" },
    },
    status: {
      ...made.status,
      containerStatuses: [
        {
          name: "worker",
          state: {
            waiting: {
              reason: "CreateContainerConfigError",
              message: `couldn't find key work-secret in Secret agents/${name}`,
            },
          },
        },
      ],
    },
  };
}

interface More {
  readonly taken?: string;
  readonly claims?: ClaimTable;
  readonly failures?: number;
  /** The Pod that no attach succeeded to. */
  readonly unattached?: string;
}

const UNREACHABLE_MS = 2_000;

function freePods(
  pods: readonly Pod[],
  { claims = new ClaimTable(), taken = "", failures = 0, unattached = "" }: More = {},
) {
  const outlooks: Record<string, string> = { shaky: "doubtful", going: "leaves" };
  const clock = new VirtualClock();
  const starts = new Starts(DEFAULT_TIMING);
  const context = {
    clock,
    holds: { starts },
    kube: { now: () => clock.now() },
    pods: { warm: () => pods, list: () => pods, get: () => undefined },
    podPolicy: {},
    nodeOutlook: ({ spec }: Pod) => outlooks[spec.nodeName ?? ""] ?? "stays",
    template: () => ({ hash: NEW }),
  } as unknown as SessionContext;
  const streams = {
    isReachable: ({ metadata }: Pod) => metadata.name !== unattached,
    unreachableMs: () => UNREACHABLE_MS,
    isDoubtful: ({ spec }: Pod) => spec.nodeName === "mute",
  };
  starts.watch(OLD, 0);
  starts.succeeded({ hash: OLD, claim: "", session: "", wakes: false, openedMs: 0 });
  starts.watch(NEW, 0, () => [OLD, UNKNOWN]);
  for (let n = 0; n < failures; n += 1)
    starts.failed({ hash: NEW, claim: `${n}`, session: `${n}`, wakes: false, openedMs: n }, "no", n);
  return new FreePods({ context, claims, isTaken: (name) => name === taken, streams });
}

const NONE: ReadonlySet<string> = new Set();
const next = (pods: readonly Pod[], except = NONE, fits: (pod: Pod) => boolean = () => true) =>
  freePods(pods).next(except, fits)?.free.name;

describe("the Pod that the next claim gets", () => {
  test.each<[string, Kind[], string]>([
    ["the oldest", [{ name: "young", ageSeconds: 5 }, { name: "oldest", ageSeconds: 90 }, { name: "b" }], "oldest"],
    [
      "one of the current template rather than an older one",
      [{ name: "a", hash: OLD, ageSeconds: 90 }, { name: "b" }],
      "b",
    ],
    [
      "one on a steady node rather than an older one",
      [{ name: "a", node: "shaky", ageSeconds: 90 }, { name: "b" }],
      "b",
    ],
    [
      "one on a node that answers rather than an older one",
      [{ name: "a", node: "mute", ageSeconds: 90 }, { name: "b" }],
      "b",
    ],
    [
      "one of the current template on a doubtful node rather than an outdated one on a steady node",
      [
        { name: "a", hash: OLD },
        { name: "b", node: "shaky" },
      ],
      "b",
    ],
    [
      "an outdated one if there is no other",
      [
        { name: "a", hash: OLD },
        { name: "b", node: "going" },
      ],
      "a",
    ],
    ["the first of two equal ones", [{ name: "a" }, { name: "b" }], "a"],
  ])("is %s", (_what, kinds, expected) => {
    expect(next(kinds.map(parked))).toBe(expected);
    if (kinds.length === 2 && expected !== "a") expect(next(kinds.toReversed().map(parked))).toBe(expected);
  });

  test("is the best of those that fit and were not tried yet", () => {
    const pods = [parked({ name: "a", ageSeconds: 90 }), parked({ name: "b", ageSeconds: 80 }), parked({ name: "c" })];
    expect(next(pods, new Set(["a"]))).toBe("b");
    expect(next(pods, NONE, ({ metadata }) => metadata.name === "c")).toBe("c");
    expect(next(pods, new Set(["c"]), ({ metadata }) => metadata.name === "c")).toBeUndefined();
  });
});

test.each<[string, Pod[], More]>([
  ["a claim has it", [parked({ name: "a" })], { claims: claimed("a") }],
  ["another client holds its slot", [parked({ name: "a" })], { taken: "a" }],
  ["its node is being removed", [parked({ name: "a", node: "going" })], {}],
  ["it is being deleted", [deleted(parked({ name: "a" }))], {}],
  ["its template was replaced before it served", [parked({ name: "a", hash: UNKNOWN })], {}],
  ["it is still being prepared", [preparing(parked({ name: "a" }))], {}],
  ["the policy forbids what it needs", [asking(parked({ name: "a" }), "privileged")], {}],
  ["three consecutive sessions of its template failed to start", [parked({ name: "a" })], { failures: 3 }],
  ["no attach to it succeeded yet", [parked({ name: "a" })], { unattached: "a" }],
  ["there are none", [], {}],
])("finds no claimable Pod if %s", (_what, pods, more) => {
  const free = freePods(pods, more);
  expect([free.hasClaimable, free.next(NONE, () => true)]).toEqual([false, null]);
});

test("finds a claimable Pod behind others that are not", () => {
  const pods = [parked({ name: "a", node: "going" }), parked({ name: "b" }), parked({ name: "c" })];
  expect(freePods(pods, { taken: "b" }).hasClaimable).toBe(true);
});

test("lists waiting Pods in the order in which they are claimed", () => {
  const old = { name: "old", ageSeconds: 90, hash: "another" };
  const free = freePods([parked(old), parked({ name: "young" }), parked({ name: "older", ageSeconds: 30 })]);
  expect(free.waiting().map(({ metadata }) => metadata.name)).toEqual(["older", "young", "old"]);
  expect(free.next(NONE, () => true)?.free.name).toBe("older");
});

test("counts a Pod as being prepared while it can't be attached to, and still lists it as waiting", () => {
  const pods = [parked({ name: "a" }), parked({ name: "b", ageSeconds: 90 }), preparing(parked({ name: "c" }))];
  const free = freePods(pods, { unattached: "b" });
  const listed = free.list().map(({ free }) => free);
  expect(listed.map(({ name, state, unreachable }) => [name, state, unreachable])).toEqual([
    ["a", "warm", undefined],
    ["b", "preparing", true],
    ["c", "preparing", undefined],
  ]);
  // Its time to prepare begins again, because it may have waited for long.
  expect(listed[1]?.scheduledAtMs).toBe(new VirtualClock().now() - UNREACHABLE_MS);
  expect(free.waiting().map(({ metadata }) => metadata.name)).toEqual(["b", "a"]);
  expect(free.next(NONE, () => true)?.free.name).toBe("a");
});

function claimed(name: string): ClaimTable {
  const claims = new ClaimTable();
  claims.add(claimOf({ name }));
  return claims;
}

function deleted(each: Pod): Pod {
  return { ...each, metadata: { ...each.metadata, deletionTimestamp: "2030-01-01T00:00:00Z" } };
}

function preparing(each: Pod): Pod {
  return { ...each, status: { ...each.status, containerStatuses: [] } };
}

function asking(each: Pod, need: string): Pod {
  const annotations = { ...each.metadata.annotations, [ANNOTATION_NEEDS]: JSON.stringify([need]) };
  return { ...each, metadata: { ...each.metadata, annotations } };
}

const POLICY = { capabilities: ["NET_ADMIN"] };

/** A rendered Pod from a cache, with these added capabilities. */
function podOf(add: readonly string[], annotations: Record<string, string> = {}): Pod {
  const containers = [{ name: "worker", image: "worker:1", securityContext: { capabilities: { add } } }];
  const made = sessionTemplate(parsed(stored(sessionsSpec({ template: podTemplate({ containers }) })))).render("p");
  return cachedPod({
    ...made,
    metadata: { ...made.metadata, annotations: { ...made.metadata.annotations, ...annotations } },
  });
}

describe("the policy and a free Pod", () => {
  test.each<[string, Pod, boolean]>([
    ["allows a Pod without needs", podOf([]), false],
    ["allows a Pod whose needs are allowed", podOf(["NET_ADMIN"]), false],
    ["forbids a Pod with other needs", podOf(["NET_ADMIN", "SYS_ADMIN"]), true],
    ["forbids a Pod with unknown needs", podOf([], { [ANNOTATION_NEEDS]: '["teleport"]' }), true],
    ["forbids a Pod whose annotation can't be parsed", podOf([], { [ANNOTATION_NEEDS]: "all" }), true],
    ["forbids a Pod whose annotation is no list", podOf([], { [ANNOTATION_NEEDS]: "{}" }), true],
    ["forbids a Pod whose annotation is null", podOf([], { [ANNOTATION_NEEDS]: "null" }), true],
  ])("%s", (_what, pod, forbidden) => {
    expect(freePodOf(pod, "stays", POLICY)).toMatchObject({ forbidden });
  });
});
