import { expect, test } from "vitest";
import { ClaimLists, claimSelector, deleteClaimSecrets } from "../../src/claims/claim-lists.ts";
import { NO_POINTS } from "../../src/core/points.ts";
import type { KubeClient } from "../../src/kube/client.ts";
import type { KubeList, Secret } from "../../src/kube/resource.ts";
import { anyClaimSelector, type Journal } from "../../src/protocol/journal.ts";
import { FakeKube, notFound, refusal } from "../reconcile/fake-kube.ts";
import { claimSecret } from "../sessions/fake-context.ts";

type Lister = Pick<KubeClient, "listAll">;

interface Request {
  readonly namespace: string;
  readonly labelSelector: string;
  readonly answer: (...claims: readonly Secret[]) => void;
  readonly refuse: () => void;
}

/** An API server whose lists the test answers by hand. */
function make() {
  const requests: Request[] = [];
  const listAll = (_resource: unknown, { namespace = "", labelSelector = "" } = {}) => {
    const { promise, resolve, reject } = Promise.withResolvers<KubeList<Secret>>();
    const answer = (...items: readonly Secret[]) => resolve({ metadata: {}, items: [...items] });
    requests.push({ namespace, labelSelector, answer, refuse: () => reject(new Error("no leave")) });
    return promise;
  };
  const lists = new ClaimLists({ listAll } as unknown as Lister);
  const names = async (name: string, namespace = "agents", signal?: AbortSignal) =>
    (await lists.list({ namespace, name }, signal)).map(({ metadata }) => metadata.name);
  return { requests, names };
}

function claim(environment: string, name: string): Secret {
  return { metadata: { name, namespace: "agents", labels: { "berth.dev/environment": environment } } };
}

/** Resolves after all promises that can settle have settled. */
const settled = () => new Promise((resolve) => setImmediate(resolve));

test("a single caller gets a list of its own Environment's claims", async () => {
  const { requests, names } = make();
  const own = names("research");
  expect(requests).toMatchObject([{ namespace: "agents", labelSelector: claimSelector("research") }]);
  requests[0]?.answer(claim("research", "one"), claim("research", "two"));
  expect(await own).toEqual(["one", "two"]);
});

test("callers that arrive during a list share the next one, and each gets its own claims", async () => {
  const { requests, names } = make();
  const first = names("research");
  const later = ["support", "research", "sales", "support"].map((name) => names(name));
  expect(requests).toHaveLength(1);
  requests[0]?.answer(claim("research", "old"));
  expect(await first).toEqual(["old"]);
  await settled();
  expect(requests).toHaveLength(2);
  expect(requests[1]?.labelSelector).toBe(anyClaimSelector());
  requests[1]?.answer(claim("support", "a"), claim("research", "b"), claim("other", "c"));
  expect(await Promise.all(later)).toEqual([["a"], ["b"], [], ["a"]]);
});

test("a caller that aborts is released immediately, even during a list", async () => {
  const { requests, names } = make();
  const stop = new AbortController();
  const gone = [names("research", "agents", stop.signal), names("support", "agents", stop.signal)];
  const other = names("sales");
  stop.abort(new Error("stopped"));
  for (const list of gone) await expect(list).rejects.toThrow("stopped");
  await expect(names("research", "agents", stop.signal)).rejects.toThrow("stopped");
  requests[0]?.answer();
  await settled();
  expect(requests[1]?.labelSelector).toBe(claimSelector("sales"));
  requests[1]?.answer(claim("sales", "a"));
  expect(await other).toEqual(["a"]);
});

test("does not make one namespace wait for another", () => {
  const { requests, names } = make();
  void names("research", "agents");
  void names("research", "other");
  expect(requests.map(({ namespace }) => namespace)).toEqual(["agents", "other"]);
});

test("a failed list fails only for its own callers, and the next list is still requested", async () => {
  const { requests, names } = make();
  const first = names("research");
  const later = names("support");
  requests[0]?.refuse();
  await expect(first).rejects.toThrow("no leave");
  await settled();
  requests[1]?.answer(claim("support", "a"));
  expect(await later).toEqual(["a"]);
  const again = names("research");
  requests[2]?.answer();
  expect(await again).toEqual([]);
});

const RESEARCH = { namespace: "agents", name: "research" };
const named = (name: string, environmentUid = "env-uid") =>
  claimSecret({ environmentUid }, { name, uid: `${name}-uid` });

/**
 * Deletes one Environment's claims among these Secrets. Resolves with the name and the preconditions of each deletion.
 */
async function deleted(items: readonly Secret[], answer: unknown = {}, isAny = false): Promise<unknown[]> {
  const kube = new FakeKube(({ verb }) => (verb === "listAll" ? { items } : answer));
  const which = (journal: Journal | null) => isAny || journal?.environmentUid === "env-uid";
  await deleteClaimSecrets(kube.client, RESEARCH, NO_POINTS, which);
  return kube.calls.filter(({ verb }) => verb === "delete").map(({ ref, query }) => [ref.name, query]);
}

test("deletes the claims of this Environment by uid, and no Secret of another type or Environment", async () => {
  const others = [{ ...named("mine"), type: "Opaque" }, named("elsewhere", "another-uid")];
  expect(await deleted([named("claim"), ...others])).toEqual([["claim", { uid: "claim-uid" }]]);
  expect(await deleted([{ ...named("mine"), type: "Opaque" }], {}, true)).toEqual([]);
});

test.each([
  ["gone", notFound("secrets", "a")],
  ["replaced by another", refusal(409, "Conflict", "not this uid")],
])("a Secret that is %s does not prevent other deletions", async (_, answer) => {
  expect(await deleted([named("a"), named("b")], answer)).toHaveLength(2);
});

test("fails when a Secret can't be deleted", async () => {
  await expect(deleted([named("a")], refusal(500, "InternalError", "failed"))).rejects.toThrow("failed");
});
