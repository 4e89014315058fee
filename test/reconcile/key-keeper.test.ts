import { describe, expect, test } from "vitest";
import type { Environment } from "../../src/api/environment.ts";
import { NO_POINTS } from "../../src/core/points.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import { KeyKeeper } from "../../src/reconcile/key-keeper.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { FakeKube, notFound, refusal } from "./fake-kube.ts";

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
    ...{ kube: kube.client, points: NO_POINTS, clock, timing: DEFAULT_TIMING, recorded: () => [] },
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

describe("the key of an Environment", () => {
  test("is read on schedule, and no more often", async () => {
    const { clock, kube, keeper, told, read } = setUp();
    await read();
    await read();
    expect(kube.calls).toHaveLength(1);
    expect(keeper.inUse.key).toBe("first");
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
    expect(keeper.inUse.key).toBe("first");
    expect(keeper.nextLookMs(clock.monotonic())).toBe(keyRetryMs);
    await readWith(failed);
    expect(keeper.problem?.reason).toBe("KeySecretUnreadable");
    expect(keeper.inUse.key).toBe("first");
    await readWith(() => secret("first"));
    expect(keeper.problem).toBeNull();
  });

  test("is dropped when its Secret is deleted", async () => {
    const { keeper, readWith } = setUp();
    await readWith(() => secret("first"));
    await readWith(missing);
    expect(keeper.problem?.reason).toBe("KeySecretMissing");
    expect(keeper.inUse.key).toBe("");
  });

  test("stays for running sessions when its Secret is deleted with the Environment", async () => {
    const { keeper, readWith } = setUp({ deleted: true });
    await readWith(() => secret("first"));
    await readWith(missing);
    expect(keeper.inUse.key).toBe("first");
  });
});
