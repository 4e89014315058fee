import { expect, test } from "vitest";
import { NO_POINTS } from "../../src/core/points.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { deleteOrphanedClaims } from "../../src/reconcile/drain.ts";
import { claimSecret } from "../sessions/contexts.ts";
import { FakeKube, notFound, refusal } from "./fake-kube.ts";

/** The claims that are deleted if the read of the Environment gets this answer. */
async function deleted(environment: unknown): Promise<string[]> {
  const items = [claimSecret({}, { name: "own" }), claimSecret({ environmentUid: "another" }, { name: "another" })];
  const kube = new FakeKube(({ verb }) => (verb === "get" ? environment : verb === "listAll" ? { items } : {}));
  const metadata = { namespace: "agents", name: "research" };
  await deleteOrphanedClaims(
    { uid: "env-uid", environment: { metadata } as never, points: NO_POINTS },
    {
      ...{ kube: kube.client, logger: silentLogger },
    },
  );
  return kube.calls.filter(({ verb }) => verb === "delete").map(({ ref }) => ref.name);
}

test("deletes the claims of a deleted Environment, and no others", async () => {
  expect(await deleted(notFound("environments", "research"))).toEqual(["own"]);
});

test.each([
  ["is there", { metadata: { name: "research", uid: "env-uid" } }],
  ["can't be read", refusal(500, "InternalError", "failed")],
])("keeps the claims of an Environment that %s", async (_, environment) => {
  expect(await deleted(environment)).toEqual([]);
});
