import { expect, test } from "vitest";
import { PODS } from "../../../src/kube/resource.ts";
import { refusal } from "./api-server.ts";
import type { ContainerFate } from "./container.ts";
import { LoopWorld, NAMESPACE, type Operator } from "./loop-world.ts";

const MINUTE = 60_000;
const SESSIONS = 3;
const SERVES_MS = 8 * MINUTE;

/** A world with sessions of eight minutes and a parked Pod for each. */
async function parked(lease: string): Promise<{ world: LoopWorld; operator: Operator }> {
  const program = lease === "Operator" ? "plain" : "stock";
  const fate = (): ContainerFate => ({ startError: false, program, servesMs: SERVES_MS });
  const sessions = { lease, maxConcurrent: 10, warm: SESSIONS, retainEndedSeconds: 600 };
  const world = new LoopWorld({ sessions, fate });
  world.createEnvironment();
  const operator = world.startOperator();
  await world.until("parked Pods", () => world.parked.length === SESSIONS);
  return { world, operator };
}

/** Counts touches of Pods. Patches that mark a Pod as finished don't count. */
function countTouches(operator: Operator, refused: (touch: number, pod: string) => Error | null): () => number {
  let touches = 0;
  operator.kube.intercept.push(({ verb, plural, name, body }) => {
    const isTouch = verb === "patch" && plural === "pods" && JSON.stringify(body).includes('"running"');
    if (!isTouch) return;
    touches += 1;
    const error = refused(touches, name);
    if (error) throw error;
  });
  return () => touches;
}

function holdsTrue(world: LoopWorld): void {
  expect([...world.wrongs, ...world.violations]).toEqual([]);
}

test.each(["Worker", "Operator"])(
  "lease: %s: backs off from a refused touch, and reports it in Ready",
  async (lease) => {
    const { world, operator } = await parked(lease);
    let forbidden = true;
    const touches = countTouches(operator, () =>
      forbidden ? refusal(403, "Forbidden", 'pods "x" is forbidden: no leave') : null,
    );
    const ids = Array.from({ length: SESSIONS }, () => world.enqueue());
    await world.until("all containers run", () => world.node.running.size === SESSIONS);
    await world.pass(SERVES_MS / 2);
    // Pauses double up to 15 to 30 s.
    expect(touches()).toBeLessThanOrEqual(SESSIONS * (8 + 16));
    expect(touches()).toBeGreaterThan(SESSIONS * 7);
    expect(world.conditionOf("Ready")).toMatchObject({ status: "False", reason: "SessionsInterrupted" });
    expect(world.conditionOf("Ready")?.message).toMatch(/no leave.*give the operator permission to patch Pods/);
    forbidden = false;
    await world.until("all Pods are marked as assigned", () => world.podsOf("running").length === SESSIONS, MINUTE);
    await world.until("Ready", () => world.conditionOf("Ready")?.status === "True", MINUTE);
    expect(world.node.running.size).toBe(SESSIONS);
    await world.until("all items are stopped", () => ids.every((id) => world.item(id).state === "stopped"), SERVES_MS);
    holdsTrue(world);
  },
);

test("a touch that only met a busy API server does not change Ready", async () => {
  const { world, operator } = await parked("Worker");
  countTouches(operator, (touch) => (touch <= 6 ? refusal(500, "InternalError", "busy") : null));
  for (let n = 0; n < SESSIONS; n += 1) world.enqueue();
  const said = new Set<string | undefined>();
  const isTouched = () => {
    said.add(world.conditionOf("Ready")?.reason);
    return world.podsOf("running").length === SESSIONS;
  };
  await world.until("all Pods are touched", isTouched, MINUTE);
  expect([...said]).toEqual(["Ready"]);
  holdsTrue(world);
});

test("a deadline that another client lowered does not prevent the touch", async () => {
  const { world, operator } = await parked("Worker");
  let first = true;
  const touches = countTouches(operator, (_touch, pod) => {
    if (!first) return null;
    first = false;
    // The answer is lost, and the deadline changes before the next try.
    world.server.patch(PODS, NAMESPACE, pod, { spec: { activeDeadlineSeconds: 3_600 } });
    return refusal(500, "InternalError", "busy");
  });
  const id = world.enqueue();
  await world.until("the Pod is marked as assigned", () => world.podsOf("running").length === 1, MINUTE);
  expect(touches()).toBeLessThanOrEqual(4);
  await world.until("the item is stopped", () => world.item(id).state === "stopped", 2 * SERVES_MS);
  holdsTrue(world);
});
