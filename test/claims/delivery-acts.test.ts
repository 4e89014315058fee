import { describe, expect, test } from "vitest";
import type { Delivery, StartShown } from "../../src/attach/pod-streams.ts";
import { type Deliverer, deliverSession, findStart } from "../../src/claims/delivery-acts.ts";
import { StaleClaimError } from "../../src/claims/secret-acts.ts";
import { type PointEvent, pointsOf } from "../../src/core/points.ts";
import type { Pod } from "../../src/kube/resource.ts";
import { frameFor } from "../../src/pods/pod-gate.ts";
import type { Claim } from "../../src/protocol/claim.ts";
import { pod } from "../pods/pods.ts";
import { JOURNAL, OURS, opened, withFields } from "../protocol/claims.ts";
import { type Answer, FakeKube, notFound, refusal } from "../reconcile/fake-kube.ts";
import { claimSecret, fakeContext, noAnswer } from "../sessions/fake-context.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const base64 = (text: string) => Buffer.from(text).toString("base64");
const OPENED = { ...JOURNAL, acknowledgedAt: OURS, opened: true };

const waiting = (annotations: Record<string, string> = {}, env: { name: string; value: string }[] = []): Pod =>
  pod(
    {},
    {
      metadata: {
        ...{ name: "berth-research-x", namespace: "agents", uid: JOURNAL.podUid },
        annotations: { "berth.dev/session-container": "worker", "berth.dev/parking": "Shell", ...annotations },
      },
      spec: { containers: [{ name: "worker", env }] },
    },
  );

interface World {
  /** The result of each delivery. */
  readonly deliver?: Delivery | Error;
  /** What the container's log shows. */
  readonly shown?: StartShown | Error;
  readonly answer?: Answer;
}

/** Performs one act at a late time of the monotonic clock. */
async function on(
  { deliver = "started", shown = "started", answer = () => undefined }: World,
  act: (context: ReturnType<typeof fakeContext>, streams: Deliverer) => Promise<unknown>,
) {
  const clock = new VirtualClock();
  await clock.advance(70_000);
  const kube = new FakeKube(answer, clock);
  const passed: Partial<PointEvent>[] = [];
  const frames: string[] = [];
  const streams: Deliverer = {
    deliver: async (_pod, frame, onSent) => {
      if (deliver instanceof Error) throw deliver;
      onSent();
      frames.push(frame);
      return deliver;
    },
    hasStarted: async () => {
      if (shown instanceof Error) throw shown;
      return shown;
    },
  };
  const points = pointsOf((event) => void passed.push(event), { operator: "operator", clock })("agents/research");
  const result = await act(fakeContext({ clock, kube: kube.client, points }), streams).catch((error: unknown) => error);
  return { result, frames, passed, nowMs: clock.monotonic(), verbs: kube.calls.map(({ verb }) => verb) };
}

describe("delivering a session", () => {
  const kept = (credential = "it's secret") => opened({ credential: base64(credential) });
  const deliver = (claim: Claim, of = waiting(), world: World = {}) =>
    on(world, (context, streams) => deliverSession(context, streams, claim, of));

  test.each<[string, Pod]>([
    ["variables for a shell", waiting()],
    ["the environment key", waiting({ "berth.dev/credential": "EnvironmentKey" })],
    ["an object for a program", waiting({ "berth.dev/parking": "Program" })],
  ])("sends the ids and the credential that the Pod takes: %s", async (_, of) => {
    const { frames, result, verbs } = await deliver(kept(), of);
    const identity = { workId: "work_1", sessionId: "sesn_1", credential: "it's secret" };
    expect(frames).toEqual([frameFor(of, "worker", identity)]);
    expect(frames[0]).toContain("work_1");
    expect([result, verbs]).toEqual(["started", []]);
  });

  test("forgets the credential once the container has read it", async () => {
    const claim = kept();
    const { passed, nowMs } = await deliver(claim);
    expect(claim.record).toMatchObject({ delivery: "done", deliverySentMs: nowMs, credential: null });
    expect(passed).toMatchObject([
      { point: "session.deliver", phase: "before" },
      { point: "session.deliver", phase: "after", outcome: "ok" },
      { point: "session.delivered", details: { by: "marker" } },
    ]);
  });

  test("keeps the credential after a line without an answer, which may need to be repeated", async () => {
    const claim = kept("x");
    const { passed, nowMs, result } = await deliver(claim, waiting(), { deliver: "unanswered" });
    expect(result).toBe("unanswered");
    expect(claim.record).toMatchObject({ delivery: "unknown", deliverySentMs: nowMs, credential: base64("x") });
    expect(passed).toMatchObject([{ phase: "before" }, { phase: "after", outcome: "unanswered" }]);
  });

  test("knows that no line was sent if the Pod can't be attached to", async () => {
    const claim = kept();
    const { result } = await deliver(claim, waiting(), { deliver: refusal(500, "InternalError", "no") });
    expect(result).toMatchObject({ message: "no" });
    expect(claim.record).toMatchObject({ delivery: "unsent", deliverySentMs: null });
  });

  test("reads the credential of a claim that an earlier process opened, once", async () => {
    const claim = opened();
    const world: World = { answer: () => claimSecret(OPENED), deliver: "unanswered" };
    const { frames, verbs, passed } = await deliver(claim, waiting(), world);
    expect(frames[0]).toContain("='secret'");
    expect(verbs).toEqual(["get"]);
    expect(passed[0]).toMatchObject({ point: "session.read-credential" });
    expect((await deliver(claim)).verbs).toEqual([]);
  });

  test.each<[string, () => unknown]>([
    ["is gone", () => notFound("secrets", "berth-research-x")],
    ["is another one", () => claimSecret(OPENED, { uid: "another" })],
    ["is not opened", () => claimSecret()],
  ])("sends no line if the claim's Secret %s", async (_, answer) => {
    const claim = opened();
    const { result, frames } = await deliver(claim, waiting(), { answer });
    expect(result).toBeInstanceOf(StaleClaimError);
    expect([frames, claim.record.delivery]).toEqual([[], "unsent"]);
  });

  test("sends no line if the API server does not answer", async () => {
    const { result, frames } = await deliver(opened(), waiting(), { answer: noAnswer });
    expect(result).toMatchObject({ message: "no answer" });
    expect(frames).toEqual([]);
  });

  test("sends nothing that does not fit in a line, and does not name the credential", async () => {
    const { result, frames } = await deliver(kept("x\ny"));
    expect(String(result)).toBe("Error: the ids and the credential of the work item do not fit in a line");
    expect(frames).toEqual([]);
  });
});

describe("looking for a start in the container's log", () => {
  const unanswered = () => opened({ delivery: "unknown", deliverySentMs: 900, credential: "eA==" });
  /** Opened by an earlier process. */
  const inherited = (deliverySentMs: number | null = null) =>
    opened({ delivery: "unknown", openedAtMs: null, deliverySentMs, credential: "eA==" });
  const byOperator = (claim: Claim) => withFields(claim, { journal: { ...claim.record.journal, lease: "Operator" } });
  const find = (claim: Claim, shown: StartShown | Error) =>
    on({ shown }, (context, streams) => findStart(context, streams, claim, waiting()));

  test("finds the marker", async () => {
    const claim = unanswered();
    const { passed } = await find(claim, "started");
    expect(claim.record).toMatchObject({ delivery: "done", credential: null, unstartedMs: null });
    expect(passed).toMatchObject([
      { point: "session.read-log", phase: "before" },
      { point: "session.read-log", phase: "after", outcome: "ok", details: { started: true } },
      { point: "session.delivered", details: { by: "log" } },
    ]);
  });

  test.each<[string, StartShown | Error, string]>([
    ["is empty", "waiting", "unsent"],
    ["has other output only", "unclear", "unclear"],
    ["may not be read", refusal(403, "Forbidden", "no"), "unclear"],
  ])("lets the line be sent again if the log %s", async (_, shown, delivery) => {
    for (const claim of [unanswered(), inherited(), byOperator(unanswered()), byOperator(inherited())]) {
      const { nowMs, passed } = await find(claim, shown);
      expect(claim.record).toMatchObject({ delivery, unstartedMs: nowMs, credential: "eA==" });
      expect(passed).toMatchObject([{ phase: "before" }, { phase: "after" }]);
    }
  });

  test.each<[string, StartShown | Error]>([
    ["has lost its beginning", "unclear"],
    ["may not be read", refusal(403, "Forbidden", "no")],
  ])(
    "lease: Operator: concludes from a line without a marker that an earlier process's program runs, if its log %s",
    async (_, shown) => {
      const worker = inherited(60_000);
      await find(worker, shown);
      expect(worker.record.delivery).toBe("unclear");
      const claim = byOperator(inherited(60_000));
      const { passed } = await find(claim, shown);
      expect(claim.record.delivery).toBe("done");
      expect(passed.at(-1)).toMatchObject({ point: "session.delivered", details: { by: "silence" } });
    },
  );

  test("believes an empty log even then", async () => {
    const claim = byOperator(inherited(60_000));
    await find(claim, "waiting");
    expect(claim.record.delivery).toBe("unsent");
  });

  test("decides nothing if the log can't be read for another reason", async () => {
    const claim = unanswered();
    const { result } = await find(claim, refusal(500, "InternalError", "no"));
    expect(result).toMatchObject({ message: "no" });
    expect(claim.record).toMatchObject({ delivery: "unknown", unstartedMs: null });
  });
});
