import { describe, expect, test } from "vitest";
import { ANNOTATION_DEADLINE } from "../../../src/api/names.ts";
import type { Pod } from "../../../src/kube/objects.ts";
import { shellFrame } from "../../../src/pods/frame.ts";
import { renderTurn, turnName } from "../../../src/pods/turns.ts";
import { FATE_ANNOTATION, type FateInput } from "../../../testbed/node/fate.ts";
import { keeperPod } from "../../support/keeper-pods.ts";
import { boundPod, PodBench, type PodShape } from "./pod-bench.ts";

const SECOND = 1_000;

/** A Pod with a keeper, which is `worker`, as a kubelet gets it. */
function sleepingPod(annotations: Record<string, string> = {}, shape: PodShape = {}): Pod {
  const { metadata, spec } = keeperPod({ name: "work-1", namespace: "tb", annotations });
  const bound = boundPod({ ...shape, annotations: metadata.annotations ?? {} });
  return { ...bound, spec: { ...bound.spec, ...spec } };
}

class TurnsBench extends PodBench {
  /** Adds a turn, and waits until it has this state. */
  async addTurn(turn: number, state = "running"): Promise<void> {
    this.addEphemeral(renderTurn(this.machine.pod, turn));
    await this.untilState(turnName(turn), state);
  }

  /** Sends a line to a waiting turn. */
  serve(turn: number, sessionId = "session-1"): void {
    const frame = shellFrame({ ANTHROPIC_WORK_ID: "work-1", ANTHROPIC_SESSION_ID: sessionId }) ?? "";
    this.machine.container(turnName(turn))?.streams?.write(Buffer.from(frame));
  }

  turnStatus(turn: number) {
    return this.last.ephemeralContainerStatuses?.find(({ name }) => name === turnName(turn));
  }

  condition(type: string): string | undefined {
    return this.last.conditions?.find((condition) => condition.type === type)?.status;
  }
}

async function asleep(fates: Record<string, FateInput> = {}, pod = sleepingPod()): Promise<TurnsBench> {
  const bench = new TurnsBench(pod, fates);
  await bench.untilState("worker", "running");
  return bench;
}

describe("an ephemeral container", () => {
  test("waits in its shell, and counts neither for the phase nor for readiness", async () => {
    const bench = await asleep({ [turnName(1)]: { kind: "exit", code: 1 } });
    await bench.addTurn(1);
    bench.serve(1);
    await bench.untilState(turnName(1), "Error");
    expect(bench.last.phase).toBe("Running");
    expect([bench.condition("Ready"), bench.condition("ContainersReady")]).toEqual(["True", "True"]);
    expect(bench.last.containerStatuses?.[0]?.restartCount).toBe(0);
    expect(bench.turnStatus(1)).toMatchObject({
      ready: false,
      restartCount: 0,
      state: { terminated: { exitCode: 1 } },
    });
    expect(bench.turnStatus(1)).not.toHaveProperty("started");
  });

  test.each([
    ["session-1", []],
    ["session-2", ["Error: session session-2 found files of session-1 in Pod work-1"]],
  ])("runs a program of %s after one of session-1: %j", async (sessionId, faults) => {
    const ends = { kind: "exit", code: 0 } as const;
    const bench = await asleep({ [turnName(1)]: ends, [turnName(2)]: ends });
    bench.faults = [];
    await bench.addTurn(1);
    bench.serve(1);
    await bench.untilState(turnName(1), "Completed");
    await bench.addTurn(2);
    bench.serve(2, sessionId);
    await bench.untilState(turnName(2), "Completed");
    expect(bench.faults).toEqual(faults);
  });

  test("runs about a second after it was added", async () => {
    const bench = await asleep();
    const before = bench.clock.monotonic();
    await bench.addTurn(1);
    expect(bench.clock.monotonic() - before).toBeGreaterThanOrEqual(500);
    expect(bench.clock.monotonic() - before).toBeLessThanOrEqual(1_150);
  });

  test("starts with the Pod if it was added before", async () => {
    const bench = new TurnsBench(sleepingPod());
    await bench.addTurn(1);
    await bench.untilState("worker", "running");
  });

  test("runs before init containers have ended", async () => {
    const pod = sleepingPod({}, { initContainers: [{ name: "init" }] });
    const bench = new TurnsBench(pod, { init: { kind: "exit", afterMs: 60 * SECOND } });
    await bench.untilState("init", "running");
    await bench.addTurn(1);
    expect([bench.stateOf("init"), bench.stateOf("worker")]).toEqual(["running", "PodInitializing"]);
    expect(bench.last.phase).toBe("Pending");
  });

  test("never runs again, whatever the Pod's restart policy", async () => {
    const pod = boundPod({ containers: [{ name: "worker" }], spec: { restartPolicy: "Always" } });
    const bench = await asleep({ debug: { kind: "exit", afterMs: 10 } }, pod);
    bench.addEphemeral({ name: "debug", image: "debug:1" });
    await bench.untilState("debug", "Completed");
    bench.annotate({ touched: "1" });
    await bench.clock.advance(600 * SECOND);
    expect(bench.stateOf("debug")).toBe("Completed");
  });

  test("whose image can't be pulled waits, and starts when it can", async () => {
    const bench = await asleep({ [turnName(1)]: { kind: "pull-error", times: 1 } });
    await bench.addTurn(1, "ErrImagePull");
    expect(bench.last.phase).toBe("Running");
    await bench.untilState(turnName(1), "running");
  });

  test("is listed by name, not by number", async () => {
    const bench = await asleep();
    await bench.addTurn(2);
    await bench.addTurn(10);
    expect(bench.last.ephemeralContainerStatuses?.map(({ name }) => name)).toEqual([turnName(10), turnName(2)]);
  });

  test("is lost with an earlier node, and doesn't run again", async () => {
    const before = await asleep();
    await before.addTurn(1);
    const bench = new TurnsBench({ ...before.machine.pod, status: before.last });
    await bench.untilPhase("Failed");
    expect(bench.stateOf(turnName(1))).toBe("ContainerStatusUnknown");
  });
});

describe("the fate of a Pod whose session can sleep", () => {
  test("happens to its turns, not to its keeper", async () => {
    const fate = JSON.stringify({ kind: "exit", code: 3, afterMs: 10 });
    const bench = await asleep({}, sleepingPod({ [FATE_ANNOTATION]: fate }));
    await bench.addTurn(1);
    await bench.clock.advance(600 * SECOND);
    expect(bench.stateOf(turnName(1))).toBe("running");
    bench.serve(1);
    await bench.untilState(turnName(1), "Error");
    await bench.addTurn(2);
    expect(bench.stateOf("worker")).toBe("running");
  });

  test("keeps the keeper from starting, too, if it is about the image", async () => {
    const fate = JSON.stringify({ kind: "pull-error", reason: "ErrImageNeverPull" });
    const bench = new TurnsBench(sleepingPod({ [FATE_ANNOTATION]: fate }));
    await bench.untilState("worker", "ErrImageNeverPull");
  });
});

describe("the end of a Pod whose session can sleep", () => {
  test("is its deadline: the keeper ends with 4, and then every turn", async () => {
    const bench = await asleep();
    await bench.addTurn(1);
    bench.serve(1);
    bench.annotate({ [ANNOTATION_DEADLINE]: String(Math.floor(bench.clock.now() / SECOND) + 2) });
    // The keeper looks at it every five minutes.
    await bench.until(() => bench.last.phase === "Failed", 310 * SECOND);
    expect(bench.last.containerStatuses?.[0]?.state).toMatchObject({ terminated: { exitCode: 4 } });
    expect(bench.turnStatus(1)?.state).toMatchObject({ terminated: { exitCode: 143 } });
  });

  test("is terminal only when no turn runs any more", async () => {
    const bench = await asleep({ [turnName(1)]: { kind: "run", onTerm: { code: 0, afterMs: 5 * SECOND } } });
    await bench.addTurn(1);
    bench.serve(1);
    bench.machine.kill("worker", "SIGKILL");
    await bench.untilState("worker", "Error");
    await bench.clock.advance(4 * SECOND);
    expect(bench.last.phase).toBe("Running");
    await bench.untilPhase("Failed");
    expect(bench.turnStatus(1)?.state).toMatchObject({ terminated: { exitCode: 0 } });
  });

  test("is its deletion, which ends a waiting turn at once", async () => {
    const bench = await asleep();
    await bench.addTurn(1);
    bench.deletePod();
    await bench.clock.advance(3 * SECOND);
    expect(bench.events).toEqual(["finalized"]);
    expect(bench.turnStatus(1)?.state).toMatchObject({ terminated: { exitCode: 143 } });
  });

  test("starts no turn any more", async () => {
    const bench = await asleep({ worker: { kind: "run", onTerm: "ignore" } });
    await bench.addTurn(1);
    bench.deletePod();
    bench.addEphemeral(renderTurn(bench.machine.pod, 2));
    await bench.clock.advance(60 * SECOND);
    expect(bench.machine.container(turnName(2))).toBeUndefined();
  });
});
