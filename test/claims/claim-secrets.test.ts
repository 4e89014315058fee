import { expect, test } from "vitest";
import { deleteClaimSecrets } from "../../src/claims/claim-lists.ts";
import { NO_POINTS } from "../../src/core/points.ts";
import type { Secret } from "../../src/kube/resource.ts";
import type { Journal } from "../../src/protocol/journal.ts";
import { FakeKube, notFound, refusal } from "../reconcile/fake-kube.ts";
import { claimSecret } from "../sessions/contexts.ts";

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
