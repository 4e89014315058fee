import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { bashScript } from "../../../simulator/script.ts";
import { NODES } from "../../../src/kube/resource.ts";
import {
  allowVolumes,
  perSession,
  provideVolume,
  sessionVolumes,
  VOLUMES,
  volumeOf,
} from "../../support/session-volumes.ts";
import { operatorUser } from "../support/operators.ts";
import { hasNodeControl, OPERATOR_NAMESPACE } from "../support/provided.ts";
import { enqueueOne, podOf, sayMore, untilAnswered, untilAssigned, untilState } from "../support/session-life.ts";
import { type E2eWorld, startE2eWorld } from "../support/world.ts";

/** The user of the worker images, and the group of files in its volumes if the template names none. */
const WORKER_USER = "10001";
const FILES_GROUP = "65532";

/** Directories of the node as volumes of the world's own storage class. Dispose the result to remove them. */
async function provideDirectories(world: E2eWorld, count: number): Promise<AsyncDisposable> {
  const { kube, namespace, cluster } = world;
  await using stack = new AsyncDisposableStack();
  const [node] = (await kube.list(NODES, {})).items;
  const isThere = { key: "kubernetes.io/hostname", operator: "In", values: [node?.metadata.name] };
  const nodeAffinity = { required: { nodeSelectorTerms: [{ matchExpressions: [isThere] }] } };
  for (let n = 0; n < count; n += 1) {
    const path = join(cluster.dir, "volumes", namespace, String(n));
    await mkdir(path, { recursive: true });
    const name = `${namespace}-${n}`;
    await provideVolume(world, name, { local: { path }, nodeAffinity });
    stack.defer(() => kube.delete(VOLUMES, { name }).then(() => {}));
  }
  return stack.move();
}

describe.skipIf(!hasNodeControl())("workspace: PerSession, with volumes that the kubelet mounts", () => {
  test("a session finds the files of its earlier Pod, and the volumes end with the Environment", async () => {
    await using world = await startE2eWorld();
    await using _volumes = await provideDirectories(world, 2);
    await allowVolumes(world, await operatorUser(world.kube, OPERATOR_NAMESPACE));
    const { sessions } = world.spec() as { sessions: Record<string, unknown> };
    await world.createEnvironment({ sessions: { ...sessions, ...perSession(world, { mountPath: "/workspace" }) } });

    const first = await enqueueOne(world, {
      script: bashScript("id -u; stat -c %g /workspace; ls -A /workspace | wc -l", "echo kept >/workspace/note; pwd"),
    });
    await untilState(world, first.item, "stopped");
    const again = await sayMore(world, first, bashScript("cat /workspace/note"));
    const second = await untilAssigned(world, again);
    await untilState(world, again, "stopped");
    expect(await untilAnswered(world, first.item, 3)).toEqual([
      [`${WORKER_USER}\n${FILES_GROUP}\n0`, false],
      ["/workspace", false],
      ["kept", false],
    ]);

    const other = await enqueueOne(world, { script: bashScript("ls -A /workspace | wc -l") });
    await untilState(world, other.item, "stopped");
    expect(await untilAnswered(world, other.item, 1)).toEqual([["0", false]]);
    await world.untilServed(3);
    expect(volumeOf(second)).toBe(volumeOf(first.pod));
    expect(volumeOf(podOf(world, other.item))).not.toBe(volumeOf(first.pod));
    expect(await sessionVolumes(world)).toHaveLength(2);
    await world.simulator.assertNoViolations();

    await world.removeEnvironment();
    await world.until("the volumes are gone", async () => (await sessionVolumes(world)).length === 0);
  });
});
