import { SECRETS } from "../../../../../src/kube/resource.ts";
import { type Act, pick } from "../../acts/act.ts";
import { deletePod, unlessGone, withPod } from "../../acts/cluster.ts";
import type { SessionsStage } from "../stage.ts";

const EDITED = "testbed.berth.dev/edited";

/** What can happen to parked Pods, the streams to them, and claims. */
export const PREPARED = {
  "pod:parked-deleted": withPod<SessionsStage>(({ world }) => world.parked, deletePod),
  "stream:dropped": async ({ replicas }) => replicas.reduce((open, { proxy }) => open + proxy.dropStreams(), 0) > 0,
  "claim:edited": async (stage, choice) => {
    const { world } = stage;
    const claim = await stage.aim(() => (world.claims.length > 0 ? pick(world.claims, choice) : undefined));
    if (!claim) return false;
    const ref = { namespace: world.namespace, name: claim.metadata.name ?? "" };
    const patch = { metadata: { labels: { [EDITED]: String(choice) } } };
    return await unlessGone(world.kube.patch(SECRETS, ref, patch, { type: "merge" }));
  },
} as const satisfies Record<string, Act<SessionsStage>>;
