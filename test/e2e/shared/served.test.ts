import { expect, test } from "vitest";
import { bashScript } from "../../../simulator/script.ts";
import { NAMESPACES, type Pod } from "../../../src/kube/resource.ts";
import { IS_GVISOR } from "../support/isolation.ts";
import { OPERATOR_DEPLOYMENT, OPERATOR_NAMESPACE, OPERATOR_REPLICAS } from "../support/provided.ts";
import { podOf, serveOne, untilEnded } from "../support/session-life.ts";
import { startE2eWorld } from "../support/world.ts";

const phases = (history: readonly Pod[]) => [
  ...new Set(history.map(({ metadata }) => metadata.labels?.["berth.dev/phase"])),
];

test("the stock TypeScript worker serves a session to idle, in a Pod that was parked", async () => {
  await using world = await startE2eWorld();
  const served = await serveOne(world, {
    script: bashScript("echo hello > file; cat file", "echo $((6 * 7)); false", "id -u", "uname -r"),
  });
  const { last } = await untilEnded(world, served, "Completed");
  expect(last.stoppedBy?.as).toBe("sessions-token");
  expect(last.acks).toHaveLength(1);
  const { toolCalls } = await world.simulator.session(served.item.sessionId ?? "");
  expect(toolCalls.map(({ output, isError }) => [output, isError])).toEqual([
    ["hello", false],
    ["42", true],
    [expect.stringMatching(/^[1-9]\d*$/), false],
    [IS_GVISOR ? expect.stringMatching(/gvisor/) : expect.not.stringMatching(/gvisor/), false],
  ]);
  expect(served.pod.spec.runtimeClassName).toBe(IS_GVISOR ? "gvisor" : undefined);
  expect(toolCalls.map(({ answeredBy }) => answeredBy)).toEqual(toolCalls.map(() => served.item.id));
  // The kubelet kept the container waiting, and then started it once.
  expect(phases(world.history(served.pod))).toEqual(["warm", "running", "ended"]);
  const [container] = podOf(world, served.item)?.status?.containerStatuses ?? [];
  expect(container).toMatchObject({ restartCount: 0, state: { terminated: { exitCode: 0 } } });
  expect(await world.simulator.excused()).toEqual([]);
  const pollers = new Set((await world.simulator.requests()).map(({ call, workerId }) => call === "poll" && workerId));
  pollers.delete(false);
  expect(pollers.size).toBe(1);
});

test("Berth runs as helm installs it: two replicas, not as root, on a read-only root file system", async () => {
  await using world = await startE2eWorld();
  const pods = await world.until("all replicas are ready", async () => {
    const ready = await world.operators.readyPods();
    return ready.length === OPERATOR_REPLICAS && ready;
  });
  const namespace = await world.kube.get(NAMESPACES, { name: OPERATOR_NAMESPACE });
  expect(namespace.metadata.labels).toMatchObject({ "pod-security.kubernetes.io/enforce": "restricted" });
  for (const { spec } of pods) {
    expect(spec).toMatchObject({
      serviceAccountName: OPERATOR_DEPLOYMENT,
      securityContext: { runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } },
      containers: [
        {
          image: world.cluster.images.operator,
          securityContext: {
            readOnlyRootFilesystem: true,
            allowPrivilegeEscalation: false,
            capabilities: { drop: ["ALL"] },
          },
        },
      ],
    });
  }
});
