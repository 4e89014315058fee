import { describe, expect, test } from "vitest";
import type { ItemRecord } from "../../../simulator/item.ts";
import { bashScript } from "../../../simulator/script.ts";
import { PODS, type Pod } from "../../../src/kube/resource.ts";
import { STARTED_MARKER } from "../../../src/pods/frame.ts";
import { EXIT_DEADLINE, turnName } from "../../../src/pods/turns.ts";
import type { NodeProcess } from "../../../testbed/real-node/control-protocol.ts";
import { execIn, kubectl } from "../support/kubectl.ts";
import { kill, PAUSE, processesOf } from "../support/node-state.ts";
import { nodeControl, restoreDeployment } from "../support/operator-process.ts";
import { memoryOf } from "../support/pod-usage.ts";
import { latest } from "../support/pods.ts";
import { hasNodeControl } from "../support/provided.ts";
import { RESTARTS } from "../support/restarts.ts";
import { enqueueOne, sayMore, untilAnswered, untilGone, untilSettled, untilState } from "../support/session-life.ts";
import { SLEEPS, sayAndSleep, turnsOf, untilAsleep } from "../support/sleep.ts";
import { type E2eWorld, startE2eWorld } from "../support/world.ts";

const MIB = 1024 ** 2;
const SECOND_MS = 1_000;

/** What a sleeping Pod may use in addition to an empty one. */
const MOST_MEMORY_MIB = 3;

const uidOf = ({ metadata }: Pod) => metadata.uid;

/** A world without free Pods, so that a sleeping Pod is the only one. */
const sleepyWorld = () => startE2eWorld({ sessions: { ...SLEEPS, warm: 0 } });

/** Waits for the Event that says why a session sleeps no longer. */
function untilSleepEnded(world: E2eWorld, { sessionId }: ItemRecord): Promise<string> {
  return world.until(`an Event SleepEnded of ${sessionId}`, () => {
    return world.events("SleepEnded").find(({ message }) => message?.includes(sessionId ?? "-"))?.message;
  });
}

/** What a process of a Pod is: something of Berth, or the program that it runs. */
function kindOf({ arguments: [program = "", , , name] }: NodeProcess): string {
  if (program === PAUSE) return "sandbox";
  return program === "/bin/sh" && name?.startsWith("berth-") ? name : program;
}

async function keeperSleepOf(world: E2eWorld, pod: Pod): Promise<readonly NodeProcess[]> {
  return (await processesOf(world, pod)).filter((process) => kindOf(process) === "sleep");
}

/** Sets the deadline of a Pod's keeper to now, and waits until the keeper could read it. */
async function endKeeper(world: E2eWorld, pod: Pod): Promise<void> {
  const { namespace, cluster } = world;
  const { name = "" } = pod.metadata;
  const deadline = String(Math.floor(Date.now() / SECOND_MS));
  const patch = { metadata: { annotations: { "berth.dev/deadline": deadline } } };
  await world.kube.patch(PODS, { namespace, name }, patch, { type: "merge" });
  const cat = ["exec", "--namespace", namespace, name, "--container", "worker", "--", "cat"];
  await world.until("the keeper's file has its deadline", async () => {
    return (await kubectl(cluster, [...cat, "/var/run/berth.dev/deadline"])) === deadline;
  });
  // It would read the file again within five minutes.
  await kill(world, await keeperSleepOf(world, pod));
}

describe.skipIf(!hasNodeControl())("a Pod whose session sleeps", () => {
  test("runs nothing of the session, and serves its next item even if its node starts an earlier turn again", async () => {
    await using world = await sleepyWorld();
    await world.createEnvironment();
    const first = await enqueueOne(world, {
      script: bashScript("echo kept > note; setsid sleep 4242 >/dev/null 2>&1 &"),
    });
    const pod = await untilAsleep(world, first.item);
    const processes = await processesOf(world, pod);
    const own = processes.map(kindOf).filter((kind) => kind !== "sandbox");
    expect(own.sort()).toEqual(["berth-keeper", "berth-shell", "sleep"]);
    const memory = (await memoryOf(world, pod)) / MIB;
    console.log(`a sleeping Pod uses ${memory.toFixed(2)} MiB in addition to its sandbox`);
    expect(memory).toBeLessThan(MOST_MEMORY_MIB);

    const { containerdSocket } = await nodeControl(world).state();
    const [, id = ""] = turnsOf(pod)[0]?.containerID?.split("//") ?? [];
    const ctr = ["--address", containerdSocket, "--namespace", "k8s.io", "containers", "delete", id];
    expect(await nodeControl(world).run("ctr", ctr)).toMatchObject({ code: 0 });
    await nodeControl(world).stopContainerd();
    await nodeControl(world).startContainerd();
    // The kubelet starts the turn again as soon as it checks the Pod.
    const next = await sayAndSleep(world, first, bashScript("cat note"));
    expect(uidOf(next.pod)).toBe(uidOf(pod));
    expect((await untilAnswered(world, first.item, 2)).at(-1)).toEqual(["kept", false]);
    const again = await world.until("turn 1 runs again", () => {
      const [turn] = turnsOf(latest(world, pod));
      return turn?.containerID !== undefined && !turn.containerID.endsWith(id) && turn;
    });
    expect(again.state?.terminated?.exitCode).toBe(0);
    expect(await world.podLog(pod, turnName(1))).toBe("");
    await world.untilServed(2);
    for (const { acks } of await world.simulator.items()) expect(acks).toHaveLength(1);
  });

  test("survives restarts of the operator, the API server, the kubelet and containerd, asleep and awake", async () => {
    await using world = await sleepyWorld();
    await world.createEnvironment();
    const first = await enqueueOne(world, { script: bashScript("echo kept > note") });
    await untilAsleep(world, first.item);
    for (const [n, [program, restart]] of RESTARTS.entries()) {
      await restart(world);
      const script = bashScript(`touch on-${n}; until [ -e go-${n} ]; do sleep 0.1; done; cat note`);
      const item = await sayMore(world, first, script);
      await untilState(world, item, "active");
      await restart(world);
      await world.until("a command can be run in the Pod", () => {
        return execIn(world, first.pod, ["touch", `/workspace/go-${n}`]).then(
          () => true,
          () => false,
        );
      });
      await untilState(world, item, "stopped");
      const pod = await untilAsleep(world, item);
      expect(uidOf(pod), program).toBe(uidOf(first.pod));
      const { last } = await untilSettled(world, { item, pod }, "Completed");
      expect(last, program).toMatchObject({ generation: 1, acks: [expect.anything()], refusedBeats: 0 });
      expect((await world.podLog(pod, turnName(n + 2))).split(STARTED_MARKER), program).toHaveLength(2);
    }
    const { containerStatuses = [] } = latest(world, first.pod).status ?? {};
    for (const { restartCount } of [...containerStatuses, ...turnsOf(latest(world, first.pod))]) {
      expect(restartCount).toBe(0);
    }
    expect((await untilAnswered(world, first.item, 5)).slice(1)).toEqual(Array(4).fill(["kept", false]));
    await world.untilServed(5);
  });

  test("ends at its keeper's deadline while no operator runs, and so does one whose session is awake", async () => {
    await using world = await sleepyWorld();
    await world.createEnvironment();
    const asleep = await enqueueOne(world, { script: bashScript("echo lost > note") });
    await untilAsleep(world, asleep.item);
    const awake = await enqueueOne(world, { script: bashScript("until [ -e never ]; do sleep 1; done") });
    await untilState(world, awake.item, "active");
    {
      await using _ = { [Symbol.asyncDispose]: () => restoreDeployment(world) };
      await world.operators.scale(0);
      await world.until("the operators' Pods are gone", async () => (await world.operators.pods()).length === 0);
      for (const { pod } of [asleep, awake]) {
        await endKeeper(world, pod);
        const ended = await world.until(`Pod ${pod.metadata.name} failed`, () => {
          const now = latest(world, pod);
          return now.status?.phase === "Failed" && now;
        });
        expect(ended.status?.containerStatuses?.[0]?.state?.terminated?.exitCode).toBe(EXIT_DEADLINE);
        for (const { name, state } of turnsOf(ended)) expect(state?.terminated, name).toBeDefined();
      }
    }
    await untilSleepEnded(world, asleep.item);
    await untilSettled(world, awake, "DeadlineExceeded");
    const next = await sayAndSleep(world, asleep, bashScript("ls -A | wc -l"));
    expect(uidOf(next.pod)).not.toBe(uidOf(asleep.pod));
    expect((await untilAnswered(world, asleep.item, 2)).at(-1)).toEqual(["0", false]);
  });

  test("is given up for the next item if its node is cordoned, and a new Pod serves the item", async () => {
    await using world = await sleepyWorld();
    await world.createEnvironment();
    const first = await enqueueOne(world, { script: bashScript("echo lost > note") });
    const pod = await untilAsleep(world, first.item);
    const { nodeName } = await nodeControl(world).state();
    let item: ItemRecord;
    {
      await using _ = {
        [Symbol.asyncDispose]: async () => void (await kubectl(world.cluster, ["uncordon", nodeName])),
      };
      await kubectl(world.cluster, ["cordon", nodeName]);
      item = await sayMore(world, first, bashScript("ls -A | wc -l"));
      expect(await untilSleepEnded(world, first.item)).toContain("its node is leaving");
      await untilGone(world, pod);
    }
    const next = await untilAsleep(world, item);
    expect(uidOf(next)).not.toBe(uidOf(pod));
    expect((await untilAnswered(world, first.item, 1)).at(-1)).toEqual(["0", false]);
  });
});
