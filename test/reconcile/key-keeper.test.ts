import { describe, expect, test } from "vitest";
import type { Environment } from "../../src/api/environment.ts";
import { NO_POINTS } from "../../src/core/points.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import { KeyKeeper, readEnvironmentKey } from "../../src/reconcile/key-keeper.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { FakeKube, noAnswer, notFound, refusal } from "./fake-kube.ts";

const REF = { name: "research-key", key: "environment-key" };
const KEY = "sk-ant-oat01-example";

function secretOf(data: Record<string, string> | undefined): FakeKube {
  const encoded = data && Object.fromEntries(Object.entries(data).map(([name, value]) => [name, btoa(value)]));
  return new FakeKube(() => ({ metadata: { name: REF.name, uid: "u1", resourceVersion: "7" }, data: encoded }));
}

const { keyRefreshMs, keyRetryMs } = DEFAULT_TIMING;
const failed = () => refusal(500, "InternalError", "failed");
const missing = () => notFound("secrets", "key");
const secret = (key: string, resourceVersion = "1") => ({
  metadata: { name: "key", uid: "u", resourceVersion },
  data: { "environment-key": Buffer.from(key).toString("base64") },
});

/** A keeper for the key of one Environment; `deleted`: the Environment is being deleted. */
function setUp({ deleted = false } = {}) {
  const clock = new VirtualClock();
  const kube = new FakeKube(() => secret("first"));
  const told = { changes: 0 };
  const environment = {
    metadata: { namespace: "agents", name: "research", ...(deleted && { deletionTimestamp: "2030-01-01T00:00:00Z" }) },
    spec: { api: { baseUrl: "https://work.test", keySecretRef: { name: "key", key: "environment-key" } } },
  } as unknown as Environment;
  const loops = {
    keyRejected: false,
    keyChanged: () => {
      told.changes += 1;
    },
    retryKey: () => {},
  };
  const keeper = new KeyKeeper({
    ...{ kube: kube.client, points: NO_POINTS, clock, timing: DEFAULT_TIMING },
    loops: () => loops as never,
  });
  /** Reads at the keeper's next scheduled time. */
  const readWith = async (answer: () => unknown) => {
    kube.answer(answer);
    await clock.advance(Math.max(0, keeper.nextLookMs(clock.monotonic())));
    await keeper.read(environment);
  };
  const read = () => keeper.read(environment);
  return { clock, kube, keeper, told, readWith, read };
}

describe("reading the Secret", () => {
  test.each([
    ["without a line break", KEY],
    ["with the line break that --from-file leaves", `${KEY}\n`],
    ["with spaces around it", `  ${KEY}\r\n`],
  ])("reads a key %s, by one GET of the named Secret", async (_how, value) => {
    const kube = secretOf({ "environment-key": value, other: "x" });
    expect(await readEnvironmentKey(kube.client, "agents", REF)).toEqual({ ok: true, key: KEY, version: "u1/7" });
    expect(kube.calls).toMatchObject([
      { verb: "get", plural: "secrets", ref: { namespace: "agents", name: REF.name } },
    ]);
  });

  test.each<[string, Record<string, string> | undefined, string, string]>([
    [
      "lacks the key",
      { "api-key": "x", zone: "y" },
      "KeyMissing",
      "spec.api.keySecretRef.key: Secret research-key has no key environment-key; add it, or correct the field",
    ],
    [
      "has no data",
      undefined,
      "KeyMissing",
      "spec.api.keySecretRef.key: Secret research-key has no key environment-key; add it, or correct the field",
    ],
    [
      "holds an empty key",
      { "environment-key": " \n" },
      "KeyEmpty",
      "key environment-key of Secret research-key is empty; put the environment key there",
    ],
    [
      "holds more than a key",
      { "environment-key": `ENVIRONMENT_KEY=${KEY}\nOTHER=1` },
      "KeyEmpty",
      "key environment-key of Secret research-key has spaces, line breaks or other characters that a key cannot have; put only the environment key there",
    ],
  ])("reports a Secret that %s: %s", async (_how, data, reason, message) => {
    const reading = await readEnvironmentKey(secretOf(data).client, "agents", REF);
    expect(reading).toEqual({ ok: false, lasting: true, verdict: { reason, message } });
    expect(JSON.stringify(reading)).not.toContain(KEY);
  });

  test("never names another key of the Secret", async () => {
    const reading = await readEnvironmentKey(secretOf({ "db-password": "x" }).client, "agents", REF);
    expect(JSON.stringify(reading)).not.toContain("db-password");
  });

  test("reports a missing Secret as lasting, with its name, the namespace and the field", async () => {
    const kube = new FakeKube(() => notFound("secrets", REF.name));
    expect(await readEnvironmentKey(kube.client, "agents", REF)).toEqual({
      ok: false,
      lasting: true,
      verdict: {
        reason: "KeySecretMissing",
        message:
          "spec.api.keySecretRef.name: Secret research-key does not exist in namespace agents; create it, or correct the field",
      },
    });
  });

  test.each([
    [
      "no permission to read it",
      refusal(
        403,
        "Forbidden",
        'get secrets agents/research-key: secrets "research-key" is forbidden: User "op" cannot',
      ),
      /^spec\.api\.keySecretRef\.name: cannot read Secret research-key: get secrets .*; give the operator permission to get Secrets in namespace agents$/,
    ],
    [
      "no answer",
      noAnswer("get secrets agents/research-key"),
      /^spec\.api\.keySecretRef\.name: cannot read Secret research-key: .*; Berth tries again$/,
    ],
    [
      "a proxy's 404",
      refusal(404, "", "get secrets agents/research-key: HTTP 404, not an answer of the API server"),
      /cannot read Secret research-key: get secrets .*; Berth tries again$/,
    ],
    ["an error in our code", new TypeError("odd"), /odd/],
  ])("keeps the verdict open after %s", async (_how, error, words) => {
    const reading = await readEnvironmentKey(new FakeKube(() => error).client, "agents", REF);
    expect(reading).toMatchObject({ ok: false, lasting: false, verdict: { reason: "KeySecretUnreadable" } });
    expect(reading.ok ? "" : reading.verdict.message).toMatch(words);
  });
});

describe("the key of an Environment", () => {
  test("is read on schedule, and no more often", async () => {
    const { clock, kube, keeper, told, read } = setUp();
    await read();
    await read();
    expect(kube.calls).toHaveLength(1);
    expect(keeper.inUse).toBe("first");
    expect(told.changes).toBe(1);
    await clock.advance(keyRefreshMs);
    await read();
    expect(kube.calls).toHaveLength(2);
    expect(told.changes).toBe(1);
  });

  test("does not change after one failed read; the second is reported", async () => {
    const { clock, keeper, readWith } = setUp();
    await readWith(() => secret("first"));
    await readWith(failed);
    expect(keeper.problem).toBeNull();
    expect(keeper.inUse).toBe("first");
    expect(keeper.nextLookMs(clock.monotonic())).toBe(keyRetryMs);
    await readWith(failed);
    expect(keeper.problem?.reason).toBe("KeySecretUnreadable");
    expect(keeper.inUse).toBe("first");
    await readWith(() => secret("first"));
    expect(keeper.problem).toBeNull();
  });

  test("is dropped when its Secret is deleted", async () => {
    const { keeper, readWith } = setUp();
    await readWith(() => secret("first"));
    await readWith(missing);
    expect(keeper.problem?.reason).toBe("KeySecretMissing");
    expect(keeper.inUse).toBe("");
  });

  test("stays for running sessions when its Secret is deleted with the Environment", async () => {
    const { keeper, readWith } = setUp({ deleted: true });
    await readWith(() => secret("first"));
    await readWith(missing);
    expect(keeper.inUse).toBe("first");
  });
});
