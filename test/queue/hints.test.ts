import { describe, expect, test } from "vitest";
import { createMetrics } from "../../src/observe/metrics.ts";
import {
  ALIVE_MS,
  EARLY_MS,
  FRESH_MS,
  type HintedQueue,
  Hints,
  LOOKS_PER_SECOND,
  PROVEN_AFTER,
} from "../../src/queue/hints.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const SECOND_MS = 1_000;
const MINUTE_MS = 60_000;

/** Numbered Environments, with a record of their looks. */
function make(count: number, workspaceOf: (at: number) => string | undefined = () => undefined) {
  const clock = new VirtualClock();
  const metrics = createMetrics();
  const hints = new Hints({ clock, metrics });
  const looks: number[] = [];
  const running = new Set<string>();
  const queues: HintedQueue[] = Array.from({ length: count }, (_, at) =>
    hints.join({
      labels: { namespace: "agents", environment: `e${at}` },
      workspaceId: () => workspaceOf(at),
      runs: (sessionId) => running.has(sessionId),
      look: () => looks.push(at),
    }),
  );
  const queue = (at: number) => {
    const found = queues[at];
    if (!found) throw new Error(`no Environment ${at}`);
    return found;
  };
  let items = 0;
  /** Finds an item of this session in an Environment. */
  const find = (at: number, sessionId: string) => {
    items += 1;
    queue(at).found({ workId: `work_${items}`, sessionId });
  };
  const hint = (sessionId: string, workspaceId: string | null = "wrkspc_1") =>
    hints.arrived({ sessionId, workspaceId });
  /** Finds enough hinted items to earn trust. */
  const prove = (at: number) => {
    for (let item = 0; item < PROVEN_AFTER; item += 1) {
      hint(`proof ${item}`);
      find(at, `proof ${item}`);
    }
  };
  const counted = async (result: string) => {
    const { values } = await metrics.hintedItems.get();
    return values.filter(({ labels }) => labels.result === result).reduce((sum, { value }) => sum + value, 0);
  };
  return { clock, hints, looks, running, queue, find, hint, prove, counted };
}

describe("a hint for an unknown session", () => {
  test("makes every Environment look once, the most recently busy first", async () => {
    const { clock, looks, find, hint } = make(4);
    await clock.advance(MINUTE_MS);
    find(2, "a");
    await clock.advance(MINUTE_MS);
    find(1, "b");
    await clock.advance(MINUTE_MS);
    hint("new");
    expect(looks).toEqual([1, 2, 0, 3]);
    find(3, "new");
    await clock.advance(10 * MINUTE_MS);
    expect(looks).toHaveLength(4);
  });

  test("makes them look again if it came before its item, until one finds it", async () => {
    const { clock, looks, find, hint } = make(2);
    hint("new");
    await clock.advance(EARLY_MS - 1);
    hint("new");
    expect(looks).toEqual([0, 1]);
    await clock.advance(1);
    expect(looks).toEqual([0, 1, 0, 1]);
    find(1, "new");
    looks.length = 0;
    hint("new");
    expect(looks).toEqual([1]);
    await clock.advance(MINUTE_MS);
    expect(looks).toEqual([1]);
    expect(clock.pendingTimers).toBe(0);
  });

  test("makes no Environment look again that looked late enough for the item to be there", async () => {
    const { clock, looks, hint } = make(100);
    hint("theirs");
    await clock.advance(MINUTE_MS);
    const looked = (at: number) => looks.filter((one) => one === at).length;
    // The last Environments had their turn after that time.
    expect([looked(0), looked(70), looked(99)]).toEqual([2, 1, 1]);
    expect(looks.length).toBeLessThanOrEqual(100 + LOOKS_PER_SECOND * (1 + EARLY_MS / SECOND_MS));
    expect(clock.pendingTimers).toBe(0);
  });

  test("makes only Environments look that may be in its workspace", () => {
    const { looks, hint } = make(3, (at) => [undefined, "wrkspc_1", "wrkspc_2"][at]);
    hint("new", "wrkspc_1");
    expect(looks.toSorted()).toEqual([0, 1]);
  });

  test("makes every Environment look if its workspace has another notation or is missing", () => {
    for (const workspace of ["c7b0e4d9", null]) {
      const { looks, hint } = make(3, (at) => `wrkspc_${at}`);
      hint("new", workspace);
      expect(looks).toHaveLength(3);
    }
  });

  test("makes a large group look at a limited rate, until one finds the item", async () => {
    const { clock, looks, find, hint } = make(100);
    hint("new");
    expect(looks).toHaveLength(LOOKS_PER_SECOND);
    await clock.advance(SECOND_MS);
    expect(looks).toHaveLength(2 * LOOKS_PER_SECOND);
    find(looks.at(-1) ?? 0, "new");
    await clock.advance(MINUTE_MS);
    expect(looks).toHaveLength(2 * LOOKS_PER_SECOND);
    expect(clock.pendingTimers).toBe(0);
  });

  test("skips an Environment that has looked since on its own", async () => {
    const { clock, looks, queue, hint } = make(20);
    const allLook = () => {
      for (let at = 0; at < 20; at += 1) queue(at).looks();
    };
    hint("new");
    expect(looks).toHaveLength(LOOKS_PER_SECOND);
    allLook();
    await clock.advance(EARLY_MS - 1);
    expect(looks).toHaveLength(LOOKS_PER_SECOND);
    // Nor later, after the item had time to arrive: of the first ten that look then, all others have looked before.
    await clock.advance(1);
    allLook();
    await clock.advance(MINUTE_MS);
    expect(looks).toHaveLength(2 * LOOKS_PER_SECOND);
    expect(clock.pendingTimers).toBe(0);
  });

  test("belongs to another client after all have looked twice, and is not searched for again for a while", async () => {
    const { clock, looks, hint } = make(2);
    hint("theirs");
    await clock.advance(MINUTE_MS);
    for (let again = 0; again < 100; again += 1) hint("theirs");
    await clock.advance(MINUTE_MS);
    expect(looks).toHaveLength(4);
    await clock.advance(10 * MINUTE_MS);
    hint("theirs");
    expect(looks).toHaveLength(6);
  });

  test("includes Environments that join, and skips those that left", async () => {
    const { clock, looks, queue, hint } = make(3);
    queue(1).leave();
    hint("new");
    expect(looks.toSorted()).toEqual([0, 2]);
    await clock.advance(MINUTE_MS);
    expect(looks.toSorted()).toEqual([0, 0, 2, 2]);
  });
});

test("limits the looks of a flood of hints, and gives every Environment a turn", async () => {
  const { clock, looks, hint } = make(50);
  for (let ms = 0; ms < MINUTE_MS; ms += 100) {
    for (let at = 0; at < 20; at += 1) hint(`s-${ms}-${at}`);
    await clock.advance(100);
  }
  expect(looks.length).toBeLessThanOrEqual(61 * LOOKS_PER_SECOND);
  const perEnvironment = Array.from({ length: 50 }, (_, at) => looks.filter((one) => one === at).length);
  expect(Math.min(...perEnvironment)).toBeGreaterThanOrEqual(5);
});

describe("a hint for a session that an Environment served", () => {
  test("makes only that Environment look", async () => {
    const { clock, looks, find, hint } = make(30);
    find(17, "a");
    await clock.advance(MINUTE_MS);
    hint("a");
    await clock.advance(MINUTE_MS);
    expect(looks).toEqual([17]);
  });

  test("makes no Environment look while the session runs there, and then only that one", async () => {
    const { looks, running, queue, find, hint } = make(2);
    find(1, "a");
    running.add("a");
    for (let round = 0; round < 50; round += 1) hint("a");
    expect(looks).toEqual([]);
    running.delete("a");
    queue(0).over("a");
    queue(1).over("b");
    expect(looks).toEqual([]);
    queue(1).over("a");
    queue(1).over("a");
    expect(looks).toEqual([1]);
  });

  test("makes every Environment look when that one is no longer served here", async () => {
    const { clock, looks, queue, find, hint } = make(3);
    hint("a");
    find(1, "a");
    looks.length = 0;
    await clock.advance(MINUTE_MS);
    queue(1).leave();
    hint("a");
    expect(looks.toSorted()).toEqual([0, 2]);
  });
});

describe("an Environment trusts hints", () => {
  test("after its last items came with them, independently of other Environments", async () => {
    const { queue, find, hint, counted } = make(2);
    for (let item = 0; item < PROVEN_AFTER; item += 1) {
      expect(queue(0).isTrusted).toBe(false);
      hint(`${item}`);
      find(0, `${item}`);
    }
    expect([queue(0).isTrusted, queue(1).isTrusted]).toEqual([true, false]);
    expect([await counted("hinted"), await counted("not-hinted")]).toEqual([PROVEN_AFTER, 0]);
  });

  test("but not if every other one is lost", async () => {
    const { clock, queue, find, hint } = make(1);
    for (let item = 0; item < 20; item += 1) {
      if (item % 2 === 0) hint(`${item}`);
      find(0, `${item}`);
      await clock.advance(MINUTE_MS);
      expect(queue(0).isTrusted).toBe(false);
    }
  });

  test("also if the item was found first and its hint follows soon", async () => {
    const { clock, queue, find, hint } = make(1);
    for (let item = 0; item < PROVEN_AFTER; item += 1) {
      find(0, `${item}`);
      expect(queue(0).isTrusted).toBe(false);
      await clock.advance(FRESH_MS);
      hint(`${item}`);
    }
    expect(queue(0).isTrusted).toBe(true);
  });

  test("until an item comes without a hint", async () => {
    const { clock, queue, find, prove, counted } = make(1);
    prove(0);
    find(0, "b");
    await clock.advance(FRESH_MS);
    expect(queue(0).isTrusted).toBe(true);
    await clock.advance(1);
    expect(queue(0).isTrusted).toBe(false);
    expect(await counted("not-hinted")).toBe(1);
    prove(0);
    expect(queue(0).isTrusted).toBe(true);
  });

  test("until then, also while another Environment's session keeps returning without a hint", async () => {
    const { clock, queue, find, prove, counted } = make(2);
    for (const at of [0, 1]) prove(at);
    find(1, "busy");
    await clock.advance(5 * SECOND_MS);
    find(0, "quiet");
    for (let times = 0; times < 6; times += 1) {
      await clock.advance(15 * SECOND_MS);
      find(1, "busy");
    }
    expect([0, 1].map((at) => queue(at).isTrusted)).toEqual([false, false]);
    // The first item counts, and those within half a minute of one another count once.
    expect(await counted("not-hinted")).toBe(3);
  });

  test("until an item comes long after its hint, when looking found nothing", async () => {
    const { clock, queue, find, hint, prove } = make(1);
    prove(0);
    hint("early");
    await clock.advance(5 * MINUTE_MS);
    find(0, "early");
    await clock.advance(FRESH_MS + 1);
    expect(queue(0).isTrusted).toBe(false);
  });

  test("if statistics showed the work at once and its Pod took long", async () => {
    const { clock, queue, find, hint } = make(1);
    for (let item = 0; item < PROVEN_AFTER; item += 1) {
      hint(`${item}`);
      queue(0).sees(true);
      await clock.advance(5 * MINUTE_MS);
      queue(0).sees(true);
      find(0, `${item}`);
      if (item + 1 < PROVEN_AFTER) queue(0).sees(false);
    }
    expect(queue(0).isTrusted).toBe(true);
    queue(0).sees(false);
    find(0, "b");
    await clock.advance(FRESH_MS + 1);
    expect(queue(0).isTrusted).toBe(false);
  });

  test("regardless of an item that is offered repeatedly", async () => {
    const { clock, queue, prove, hint } = make(1);
    prove(0);
    hint("a");
    for (let offer = 0; offer < 10; offer += 1) {
      queue(0).found({ workId: "work_a", sessionId: "a" });
      await clock.advance(15_000);
    }
    expect(queue(0).isTrusted).toBe(true);
  });

  test("only while any deliveries arrive", async () => {
    const { clock, hints, queue, prove } = make(1);
    prove(0);
    await clock.advance(ALIVE_MS - 1);
    expect(queue(0).isTrusted).toBe(true);
    hints.delivered();
    await clock.advance(ALIVE_MS - 1);
    expect(queue(0).isTrusted).toBe(true);
    await clock.advance(1);
    expect(queue(0).isTrusted).toBe(false);
    hints.delivered();
    expect(queue(0).isTrusted).toBe(true);
  });
});

test("owns a session from its first item on, while its Environment is served", () => {
  const { hints, hint, find, queue } = make(2);
  hint("a");
  expect(hints.owns("a")).toBe(false);
  find(1, "a");
  expect(hints.owns("a")).toBe(true);
  expect(hints.owns("b")).toBe(false);
  queue(1).leave();
  expect(hints.owns("a")).toBe(false);
});
