import { describe, expect, test } from "vitest";
import { PODS, type Pod, SECRETS, type Secret } from "../../../src/kube/resource.ts";
import { type Journal, renderJournal } from "../../../src/protocol/journal.ts";
import { LoopWorld, NAME, NAMESPACE } from "./loop-world.ts";
import { BASE_URL, WorkApi } from "./work-api.ts";

const MINUTE = 60_000;
const ELSEWHERE = "https://elsewhere.test";

/** A well-formed credential without a session: the node starts any container that has its key. */
const CREDENTIAL = Buffer.from(JSON.stringify({ sessions_token: "of-nobody" })).toString("base64url");

/** Creates a claim Secret as a client with no other permission than creating Secrets in the namespace. */
function makeUp(world: LoopWorld, name: string, over: Partial<Journal>, opened = false): void {
  const { acknowledgedAt, ...journal } = {
    use: "session" as const,
    lease: "Worker" as const,
    environmentUid: world.environment?.metadata.uid ?? "",
    podUid: "",
    api: BASE_URL,
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

function statusOf(of: LoopWorld) {
  return (of.environment?.["status"] ?? {}) as {
    apiAddresses?: string[];
    conditions?: { type: string; reason: string; message: string }[];
  };
}

describe("a forged claim", () => {
  test.each([{ opened: false }, { opened: true }])(
    "with an address that the spec never had gets no key sent there: %j",
    async ({ opened }) => {
      const of = world();
      of.api.elsewhere.set(ELSEWHERE, new WorkApi(of.clock, { seed: 2 }));
      makeUp(of, "berth-research-aaaaa", { api: ELSEWHERE, acknowledgedAt: "2026-01-02T03:04:05Z" }, opened);
      of.startOperator();
      await of.until("a parked Pod", () => of.parked.length > 0);
      const id = of.enqueue();
      await of.until("a real item is served", () => of.item(id).state === "stopped", 10 * MINUTE);
      await of.pass(5 * MINUTE);
      expect([...of.api.origins]).toEqual([BASE_URL]);
      expect(statusOf(of).conditions?.find(({ type }) => type === "Ready")?.message).toContain(ELSEWHERE);
      await of.until("the made-up claim is given up", () => of.claims.length === 0, 90 * MINUTE);
      expect([...of.api.origins]).toEqual([BASE_URL]);
    },
  );

  test.each([{ opened: false }, { opened: true }])(
    "with an address that is not allowed takes no capacity, since it has no Pod: %j",
    async ({ opened }) => {
      const of = world();
      const journal = { api: ELSEWHERE, acknowledgedAt: opened ? "2026-01-02T03:04:05Z" : null };
      // More than maxConcurrent.
      for (let i = 0; i < 6; i += 1)
        makeUp(of, `berth-research-aaaa${i}`, { ...journal, workId: `work_made_up_${i}` }, opened);
      of.startOperator();
      const ids = [of.enqueue(), of.enqueue()];
      await of.until("real items are served", () => ids.every((id) => of.item(id).state === "stopped"), 5 * MINUTE);
      await of.pass(MINUTE);
      expect(of.claims.length).toBe(6);
      expect(statusOf(of).conditions?.find(({ type }) => type === "CapacityAvailable")?.reason).toBe("Available");
    },
  );

  test.each([
    { use: "session", opened: false },
    { use: "session", opened: true },
    { use: "removal", opened: false },
    { use: "refusal", opened: false },
  ] as const)("with the name of another owner's Pod does not change that Pod: %j", async ({ use, opened }) => {
    const of = world();
    const pods = ["database-0", "berth-research-bbbbb"].map((name) =>
      of.server.create(PODS, {
        metadata: { name, namespace: NAMESPACE, labels: { app: "database", "berth.dev/phase": "parked" } },
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

test("the status lists the spec's address before the first claim, and an old one while claims name it", async () => {
  const of = world();
  const moved = new WorkApi(of.clock, { seed: 2 });
  moved.world.createEnvironment({ id: of.environmentId, key: of.api.world.keyOf(of.environmentId) });
  of.api.elsewhere.set(ELSEWHERE, moved);
  of.fate = () => ({ startError: false, program: "stock", servesMs: 5 * MINUTE });
  const withoutRecord: string[] = [];
  of.startOperator().kube.intercept.push(({ verb, plural, name }) => {
    if (verb === "create" && plural === "secrets" && !statusOf(of).apiAddresses?.length) withoutRecord.push(name);
  });
  await of.until("a parked Pod", () => of.parked.length > 0);
  const id = of.enqueue();
  await of.until("a session runs", () => of.item(id).state === "active");
  expect(withoutRecord).toEqual([]);
  expect(statusOf(of).apiAddresses).toEqual([BASE_URL]);
  of.patchEnvironment({ spec: { api: { baseUrl: ELSEWHERE } } });
  await of.until("the status has both addresses", () => statusOf(of).apiAddresses?.length === 2);
  expect(statusOf(of).apiAddresses).toEqual([ELSEWHERE, BASE_URL]);
  await of.until("the status has only the new address", () => statusOf(of).apiAddresses?.length === 1, 30 * MINUTE);
  expect(statusOf(of).apiAddresses).toEqual([ELSEWHERE]);
  expect(of.claims).toEqual([]);
});

test("nothing is claimed from an address before the status lists it, however long that takes", async () => {
  const of = world();
  const moved = new WorkApi(of.clock, { seed: 2 });
  moved.world.createEnvironment({ id: of.environmentId, key: of.api.world.keyOf(of.environmentId) });
  of.api.elsewhere.set(ELSEWHERE, moved);
  const { kube } = of.startOperator();
  const unrecorded: string[] = [];
  kube.intercept.push(({ verb, plural, body }) => {
    if (verb !== "create" || plural !== "secrets") return;
    const { use, api = "" } = (body as Secret).stringData ?? {};
    if (use === "session" && !statusOf(of).apiAddresses?.includes(api)) unrecorded.push(api);
  });
  await of.until("a parked Pod", () => of.parked.length > 0);
  // The network changes too: the reconciler reads its policy before it writes the status.
  kube.delay = ({ plural }) => (plural === "networkpolicies" ? 20_000 : 0);
  const { id } = moved.world.enqueue(of.environmentId, {});
  of.patchEnvironment({ spec: { api: { baseUrl: ELSEWHERE }, network: { egress: { cidrs: ["198.51.100.0/24"] } } } });
  await of.until("the item at the new address is stopped", () => moved.world.item(id).state === "stopped", 10 * MINUTE);
  expect(unrecorded).toEqual([]);
});
