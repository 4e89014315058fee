import { SECRETS } from "../../../../../src/kube/resource.ts";
import { hasTurns } from "../../../../../src/pods/turns.ts";
import { type Act, pick } from "../../acts/act.ts";
import { deletePod, evict, unlessGone, withPod } from "../../acts/cluster.ts";
import { enqueue } from "../../acts/work.ts";
import { sessionOf } from "../looks.ts";
import type { SessionsStage } from "../stage.ts";

const EDITED = "testbed.berth.dev/edited";

/** What can happen to parked and sleeping Pods, their sessions, the streams to them, and claims. */
export const PREPARED = {
  "pod:parked-deleted": withPod<SessionsStage>(({ world }) => world.parked, deletePod),
  "work:wakes": async (stage, choice) => {
    const pod = await stage.aim(() => pick(stage.sleepingPods(), choice));
    const sessionId = pod && sessionOf(pod);
    return sessionId !== undefined && enqueue(stage, { sessionId });
  },
  "pod:sleeping-deleted": withPod<SessionsStage>((stage) => stage.sleepingPods(), deletePod),
  "pod:sleeping-evicted": withPod<SessionsStage>((stage) => stage.sleepingPods(), evict),
  // The kubelet then ends the whole Pod.
  "pod:keeper-killed": withPod<SessionsStage>(
    ({ world }) => world.pods.filter(hasTurns),
    ({ world }, { metadata, spec }) => world.node.kill(metadata, { container: spec.containers[0]?.name ?? "" }),
  ),
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
