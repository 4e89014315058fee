import { describe, expect, test } from "vitest";
import type { Environment } from "../../../src/api/environment.ts";
import { PODS, type Pod } from "../../../src/kube/resource.ts";
import { LoopWorld, type LoopWorldOptions, NAMESPACE } from "./loop-world.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;

const template = (image: string) => ({ spec: { containers: [{ name: "worker", image }] } });

/** Pods of this image get ready in a second, and others not before their timeout. */
const onlyGood = ({ spec }: Pod) => (spec.containers[0]?.image === "good" ? SECOND : 40 * MINUTE);

/**
 * A world with an operator, and each change of `Ready` except `Pending`: its reason, and `+Reconciling` if `Ready` and
 * `Reconciling` are True.
 */
function observed({ sessions, ...options }: LoopWorldOptions) {
  const world = new LoopWorld({
    sessions: { warm: 1, template: template("good"), ...sessions },
    prepareMs: onlyGood,
    ...options,
  });
  const shown: string[] = [];
  world.server.subscribe(({ plural, object }) => {
    const conditions = (plural === "environments" && (object as Environment).status?.conditions) || [];
    const ready = conditions.find(({ type }) => type === "Ready");
    if (!ready || ready.reason === "Pending") return;
    const isReconciling = ready.status === "True" && conditions.some(({ type }) => type === "Reconciling");
    const text = isReconciling ? `${ready.reason}+Reconciling` : ready.reason;
    if (shown.at(-1) !== text) shown.push(text);
  });
  world.createEnvironment();
  const operator = world.startOperator();
  const untilReady = () => world.until("Ready", () => shown.at(-1) === "Ready", MINUTE);
  const changeTemplate = (image: string) => {
    world.patchEnvironment({ spec: { sessions: { template: template(image) } } });
  };
  const losePods = () => {
    for (const { metadata } of world.pods) world.server.removePod(NAMESPACE, metadata.name ?? "");
  };
  return { world, operator, shown, untilReady, changeTemplate, losePods };
}

describe("an Environment with warm Pods", () => {
  test("is not Ready before a Pod of its template is ready", async () => {
    const { world, shown, untilReady } = observed({ prepareMs: () => 45 * SECOND });
    await world.pass(44 * SECOND);
    expect(shown).toEqual(["PreparingFirstPod"]);
    await untilReady();
  });

  test("is never Ready if none gets ready, and says why after prepareTimeoutSeconds", async () => {
    const { world, shown } = observed({ sessions: { template: template("bad"), prepareTimeoutSeconds: 60 } });
    await world.pass(25 * MINUTE);
    expect(shown).toEqual(["PreparingFirstPod", "PreparationFailing"]);
  });

  test("is not Ready after a change of its template, until a Pod of it is ready", async () => {
    const { world, shown, untilReady, changeTemplate } = observed({});
    await untilReady();
    changeTemplate("bad");
    await world.pass(MINUTE);
    changeTemplate("good");
    await untilReady();
    expect(shown).toEqual(["PreparingFirstPod", "Ready", "PreparingFirstPod", "Ready"]);
  });

  test("stays Ready and is reconciling while sessions of the earlier template run, also after a restart", async () => {
    const fate = () => ({ startError: false, program: "stock", servesMs: 5 * MINUTE }) as const;
    const { world, operator, shown, untilReady, changeTemplate } = observed({ sessions: { warm: 1 }, fate });
    await untilReady();
    world.enqueue();
    await world.until("the session runs", () => world.starts.length === 1);
    changeTemplate("bad");
    await world.pass(MINUTE);
    operator.kill();
    world.startOperator();
    await world.pass(MINUTE);
    expect(shown).toEqual(["PreparingFirstPod", "Ready", "Ready+Reconciling"]);
    expect(world.environment?.status?.conditions?.find(({ type }) => String(type) === "Reconciling")).toMatchObject({
      status: "True",
      reason: "PreparingFirstPod",
      message: expect.stringContaining("no Pod of the template has been ready yet"),
    });
    await world.until("the session has ended", () => world.isSettled, 10 * MINUTE);
    await world.pass(10 * SECOND);
    expect(shown.slice(3)).toEqual(["PreparingFirstPod"]);
  });
});

describe("a restart", () => {
  test("keeps a ready Environment Ready, even if its Pods were lost meanwhile", async () => {
    const { world, operator, shown, untilReady, losePods } = observed({});
    await untilReady();
    await world.pass(MINUTE);
    operator.kill();
    losePods();
    world.startOperator();
    await world.pass(MINUTE);
    expect(shown).toEqual(["PreparingFirstPod", "Ready"]);
  });

  test("does not take the readiness of an earlier template for that of a changed one", async () => {
    const { world, operator, shown, untilReady, changeTemplate } = observed({});
    await untilReady();
    await world.pass(MINUTE);
    operator.kill();
    changeTemplate("bad");
    world.startOperator();
    await world.pass(MINUTE);
    expect(shown).toEqual(["PreparingFirstPod", "Ready", "PreparingFirstPod"]);
  });

  test("finds in a finished Pod that its template was ready, whatever else has changed", async () => {
    let prepareMs = onlyGood;
    const { world, operator, shown, untilReady } = observed({
      sessions: { retainEndedSeconds: 3_600 },
      prepareMs: (pod) => prepareMs(pod),
    });
    await untilReady();
    world.enqueue();
    await world.until("the session has ended", () => world.podsOf("ended").length === 1, 10 * MINUTE);
    await world.pass(MINUTE);
    operator.kill();
    for (const { metadata } of world.parked) world.server.removePod(NAMESPACE, metadata.name ?? "");
    prepareMs = () => 40 * MINUTE;
    world.patchEnvironment({ spec: { sessions: { maxConcurrent: 7 } } });
    world.startOperator();
    await world.pass(MINUTE);
    expect(world.server.list(PODS).length).toBeGreaterThan(1);
    expect(shown).toEqual(["PreparingFirstPod", "Ready"]);
  });
});

test.each([
  ["with warm: 0", { sessions: { warm: 0, template: template("bad") } }, ["Ready"]],
  ["while paused", { sessions: { template: template("bad") }, spec: { paused: true } }, ["Paused"]],
])("no first Pod is awaited %s", async (_when, options, expected) => {
  const { world, shown } = observed(options);
  await world.pass(MINUTE);
  expect(shown).toEqual(expected);
});
