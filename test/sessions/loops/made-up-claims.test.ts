import { describe, expect, test } from "vitest";
import { PODS, type Pod, SECRETS } from "../../../src/kube/resource.ts";
import { type Journal, renderJournal } from "../../../src/protocol/journal.ts";
import { LoopWorld, NAME, NAMESPACE } from "./loop-world.ts";

const MINUTE = 60_000;

/** A well-formed credential without a session: the node starts any container that has its key. */
const CREDENTIAL = Buffer.from(JSON.stringify({ sessions_token: "of-nobody" })).toString("base64url");

/** Creates a claim Secret as a client with no other permission than creating Secrets in the namespace. */
function makeUp(world: LoopWorld, name: string, over: Partial<Journal>, opened = false): void {
  const { acknowledgedAt, ...journal } = {
    use: "session" as const,
    lease: "Worker" as const,
    environmentUid: world.environment?.metadata.uid ?? "",
    podUid: "",
    workId: "work_made_up",
    sessionId: "sesn_made_up",
    queuedAt: "",
    polledFromMs: world.clock.now(),
    polledUntilMs: world.clock.now(),
    acknowledgedAt: null,
    ...over,
  };
  const secret = renderJournal({ name, namespace: NAMESPACE, environment: NAME }, journal, CREDENTIAL);
  const text = { ...secret.stringData, ...(acknowledgedAt ? { "acknowledged-at": acknowledgedAt } : {}) };
  const all = { ...text, ...(opened ? { "work-secret": CREDENTIAL } : {}) };
  const data = Object.fromEntries(
    Object.entries(all).map(([key, value]) => [key, Buffer.from(String(value)).toString("base64")]),
  );
  const { stringData: _text, ...rest } = secret;
  world.server.create(SECRETS, { ...rest, data });
}

function world(): LoopWorld {
  const made = new LoopWorld({ sessions: { maxConcurrent: 4, warm: 1 }, timing: { warmScaleDownMs: 1_000 } });
  made.createEnvironment();
  return made;
}

describe("a forged claim", () => {
  test.each([
    { use: "session", opened: false },
    { use: "session", opened: true },
    { use: "removal", opened: false },
    { use: "refusal", opened: false },
  ] as const)("with the name of another owner's Pod does not change that Pod: %j", async ({ use, opened }) => {
    const of = world();
    const pods = ["database-0", "berth-research-bbbbb"].map((name) =>
      of.server.create(PODS, {
        metadata: { name, namespace: NAMESPACE, labels: { app: "database", "berth.dev/phase": "warm" } },
        spec: { containers: [{ name: "worker", image: "database:1" }] },
      } as Pod),
    );
    for (const { metadata } of pods) {
      const journal = { use, podUid: metadata.uid ?? "", acknowledgedAt: opened ? "2026-01-02T03:04:05Z" : null };
      makeUp(of, metadata.name ?? "", { ...journal, workId: `work_${metadata.name}` }, opened);
    }
    const changes: string[] = [];
    of.startOperator().kube.intercept.push(({ verb, plural, name }) => {
      const theirs = pods.some(({ metadata }) => metadata.name === name);
      if (theirs && plural === "pods" && verb !== "get") changes.push(`${verb} ${name}`);
    });
    await of.until("no claim is left", () => of.claims.length === 0, 30 * MINUTE);
    await of.pass(10 * MINUTE);
    expect(changes).toEqual([]);
  });
});

describe("a parked Pod that must be removed while another Secret has its slot", () => {
  async function parked(): Promise<{ of: LoopWorld; name: string; locks: () => number }> {
    const of = new LoopWorld({ sessions: { maxConcurrent: 4, warm: 1 }, timing: { warmScaleDownMs: 1_000 } });
    of.createEnvironment();
    const { kube } = of.startOperator();
    await of.until("a parked Pod", () => of.parked.length === 1);
    const name = of.parked[0]?.metadata.name ?? "";
    return { of, name, locks: () => kube.requests.get("create secrets") ?? 0 };
  }

  test("is retried once a minute, and is deleted when the slot is free", async () => {
    const { of, name, locks } = await parked();
    of.server.create(SECRETS, { metadata: { name, namespace: NAMESPACE } });
    of.patchEnvironment({ spec: { sessions: { warm: 0 } } });
    await of.until("the Pod's slot is found taken", () => locks() > 0);
    await of.pass(10 * MINUTE);
    expect(locks()).toBeLessThanOrEqual(11);
    expect(of.parked.map(({ metadata }) => metadata.name)).toEqual([name]);
    of.server.delete(SECRETS, NAMESPACE, name);
    await of.until("the Pod is gone", () => of.pods.length === 0, 3 * MINUTE);
  });

  test("is deleted despite a forged removal that names another Pod", async () => {
    const { of, name, locks } = await parked();
    makeUp(of, name, { use: "removal", podUid: "of-another" });
    of.patchEnvironment({ spec: { sessions: { warm: 0 } } });
    await of.until("the Pod is gone", () => of.pods.length === 0, 5 * MINUTE);
    expect(of.claims).toEqual([]);
    expect(locks()).toBeLessThanOrEqual(5);
  });
});
