import { describe, expect, test } from "vitest";
import { bashScript } from "../../../simulator/script.ts";
import type { Pod } from "../../../src/kube/resource.ts";
import { execIn } from "../support/kubectl.ts";
import {
  enqueueOne,
  expectCounted,
  podOf,
  serveOne,
  untilAnswered,
  untilGone,
  untilSettled,
  untilState,
} from "../support/session-life.ts";
import { type E2eWorld, startE2eWorld } from "../support/world.ts";

/** Runs until the test tells it to continue, so that the change happens while a session runs. */
const UNTIL_TOLD = "until [ -e go ]; do sleep 0.2; done; echo $FLAVOUR";

/** The template with this variable for its container. */
function flavoured(world: E2eWorld, value: string): Record<string, unknown> {
  const { spec } = world.template() as { spec: { containers: [{ env: unknown[] }] } };
  const [container] = spec.containers;
  const env = [...container.env.filter((one) => (one as { name: string }).name !== "FLAVOUR"), flavour(value)];
  return { spec: { ...spec, containers: [{ ...container, env }] } };
}

const flavour = (value: string) => ({ name: "FLAVOUR", value });

/** The value that the container of a parked Pod would get. */
const flavourOf = ({ spec }: Pod) => spec.containers[0]?.env?.find(({ name }) => name === "FLAVOUR")?.value;

/**
 * Waits until no poll is open. A poll that was sent before the change may still bring an item to a Pod of the old
 * template.
 */
function untilNobodyPolls(world: E2eWorld): Promise<true> {
  return world.until("no poll waits", async () => (await world.simulator.pollsWaiting()) === 0);
}

describe.concurrent("the spec of a busy Environment changes", () => {
  test("a new template: parked Pods are replaced, and the running session keeps its Pod", async () => {
    await using world = await startE2eWorld({ container: { env: [flavour("old")] }, sessions: { warm: 2 } });
    const first = await serveOne(world, { script: bashScript(UNTIL_TOLD) });
    await untilState(world, first.item, "active");
    const parked = await world.untilParked(2);
    expect(new Set(parked.map(flavourOf))).toEqual(new Set(["old"]));

    await world.patchSpec({ sessions: { template: flavoured(world, "new") } });
    for (const pod of parked) await untilGone(world, pod);
    await world.until("two parked Pods of the new template", () => {
      return world.parked.filter((pod) => flavourOf(pod) === "new").length === 2;
    });
    // At most one extra Pod exists at a time, and none of them failed.
    expect(world.views.everyPod.filter(({ status }) => status?.phase === "Failed")).toEqual([]);
    expect(world.condition("Ready")).toMatchObject({ status: "True" });

    const second = await enqueueOne(world, { script: bashScript("echo $FLAVOUR") });
    expect(await untilAnswered(world, second.item, 1)).toEqual([["new", false]]);
    expect(podOf(world, first.item)?.metadata).toMatchObject({ uid: first.pod.metadata.uid });
    expect(podOf(world, first.item)?.metadata.deletionTimestamp).toBeUndefined();
    await execIn(world, first.pod, ["touch", "go"]);
    expect(await untilAnswered(world, first.item, 1)).toEqual([["old", false]]);
    for (const served of [first, second]) await untilSettled(world, served, "Completed");
    await expectCounted(world, { Completed: 2 });
  });

  test("an invalid template: the running session continues, and nothing is claimed until it is fixed", async () => {
    await using world = await startE2eWorld({ container: { env: [flavour("old")] } });
    const first = await serveOne(world, { script: bashScript(UNTIL_TOLD) });
    await untilState(world, first.item, "active");
    const template = flavoured(world, "new") as { spec: { containers: [Record<string, unknown>] } };
    const broken = {
      spec: { ...template.spec, containers: [{ ...template.spec.containers[0], imagePullPolice: "" }] },
    };
    await world.patchSpec({ sessions: { template: broken } });
    const refused = await world.untilCondition("TemplateAccepted", "Refused");
    expect(refused.message).toContain("imagePullPolice");
    expect(await world.untilCondition("Ready", "Refused")).toMatchObject({ status: "False", message: refused.message });
    await untilNobodyPolls(world);
    const waiting = await world.simulator.enqueue(world.environmentId, { script: bashScript("echo $FLAVOUR") });
    await execIn(world, first.pod, ["touch", "go"]);
    await untilSettled(world, first, "Completed");
    expect(await world.simulator.item(waiting.id)).toMatchObject({ state: "queued", acks: [] });

    // A merge patch replaces lists as a whole, which removes the misspelled field.
    await world.patchSpec({ sessions: { template } });
    // Served by the Pod that was already parked or by its successor, whichever is free first.
    await world.untilServed(2);
    await world.until("a parked Pod of the new template", () => world.parked.some((pod) => flavourOf(pod) === "new"));
    expect(world.condition("TemplateAccepted")).toMatchObject({ status: "True" });
    await expectCounted(world, { Completed: 2 });
  });

  test("credential: EnvironmentKey: the running session keeps its work secret, the next one gets the key", async () => {
    await using world = await startE2eWorld();
    const first = await serveOne(world, { script: bashScript(UNTIL_TOLD) });
    await untilState(world, first.item, "active");
    const given = ({ spec }: Pod) => spec.containers[0]?.env?.map(({ name }) => name) ?? [];
    await world.patchSpec({ sessions: { credential: "EnvironmentKey" } });
    await world.until("only Pods that take the key are parked", () => {
      return world.parked.length > 0 && world.parked.every((pod) => given(pod).includes("ANTHROPIC_ENVIRONMENT_KEY"));
    });
    const second = await enqueueOne(world);
    expect(given(first.pod)).toContain("ANTHROPIC_WORK_SECRET");
    expect(given(second.pod)).toContain("ANTHROPIC_ENVIRONMENT_KEY");
    expect(given(second.pod)).not.toContain("ANTHROPIC_WORK_SECRET");
    await execIn(world, first.pod, ["touch", "go"]);
    expect((await untilSettled(world, first, "Completed")).last.stoppedBy?.as).toBe("sessions-token");
    expect((await untilSettled(world, second, "Completed")).last.stoppedBy?.as).toBe("environment-key");
    await expectCounted(world, { Completed: 2 });
  });

  test("paused: the running session continues, Berth claims nothing new, and work resumes afterwards", async () => {
    await using world = await startE2eWorld();
    const first = await serveOne(world, { script: bashScript(UNTIL_TOLD) });
    await untilState(world, first.item, "active");
    await world.patchSpec({ paused: true });
    await world.untilCondition("Ready", "Paused");
    const waiting = await world.simulator.enqueue(world.environmentId);
    await execIn(world, first.pod, ["touch", "go"]);
    await untilSettled(world, first, "Completed");
    expect((await world.simulator.item(waiting.id)).acks).toEqual([]);
    await world.patchSpec({ paused: false });
    await world.untilServed(2);
    await expectCounted(world, { Completed: 2 });
  });
});
