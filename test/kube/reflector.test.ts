import { afterEach, describe, expect, test } from "vitest";
import type { KubeClient } from "../../src/kube/client.ts";
import { KubeApiError } from "../../src/kube/errors.ts";
import { Reflector } from "../../src/kube/reflector.ts";
import { PODS, type Pod } from "../../src/kube/resource.ts";
import type { WatchEvent } from "../../src/kube/watch.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const GONE = new KubeApiError("too old", { status: 410, reason: "Expired" });
const REFUSED = new KubeApiError("forbidden", { status: 403, reason: "Forbidden" });
const THROTTLED = new KubeApiError("busy", { status: 429, reason: "TooManyRequests" });
const UNAVAILABLE = new KubeApiError("shutting down", { status: 503, reason: "ServiceUnavailable" });
const NO_ANSWER = new KubeApiError("ECONNREFUSED", { status: 0 });
const TOO_NEW = new KubeApiError("Too large resource version", {
  status: 504,
  reason: "Timeout",
  details: { causes: [{ reason: "ResourceVersionTooLarge" }] },
});

/** Pauses grow to 10 s: this is how long an outage lasts until they have. */
const OUTAGE_MS = 60_000;
/** As near to at once as the first pause with its jitter is. */
const AT_ONCE_MS = 250;
const MINUTES = 10;
/** Of a backoff that has grown to 10 s, with its jitter. */
const MOST_A_MINUTE = 12;

interface Request {
  readonly verb: "list" | "watch";
  readonly atMs: number;
}

/** What the API server answers: an error, or undefined for a list, or a watch that stays open until it is ended. */
type Answer = (request: Request) => KubeApiError | undefined;

const stops: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const stop of stops.splice(0)) await stop();
});

/** A reflector on an API server that answers at once, without any real time. */
function start(first: Answer = () => undefined) {
  const clock = new VirtualClock();
  const requests: Request[] = [];
  let answer = first;
  let endWatch = (_failure: KubeApiError) => {};
  const ask = (verb: Request["verb"]) => {
    const request = { verb, atMs: clock.monotonic() };
    requests.push(request);
    const failure = answer(request);
    if (failure) throw failure;
  };
  const client = {
    listAll: async () => {
      ask("list");
      return { metadata: { resourceVersion: "7" }, items: [] };
    },
    async *watch(
      _resource: unknown,
      _query: unknown,
      { signal }: { signal: AbortSignal },
    ): AsyncGenerator<WatchEvent<Pod>> {
      ask("watch");
      const open = Promise.withResolvers<void>();
      endWatch = open.reject;
      signal.addEventListener("abort", () => open.resolve());
      await open.promise;
    },
  };
  const reflector = new Reflector<Pod>({
    client: client as unknown as KubeClient,
    resource: PODS,
    clock,
    logger: silentLogger,
    random: () => 0.5,
    store: { replace: () => {}, apply: () => {}, versions: () => [] },
  });
  const stop = new AbortController();
  const run = reflector.run(stop.signal);
  stops.push(async () => {
    stop.abort();
    await run;
  });
  return {
    clock,
    requests,
    answers: (next: Answer) => {
      answer = next;
    },
    breakWatch: (failure: KubeApiError) => endWatch(failure),
    since: (atMs: number, verb?: Request["verb"]) =>
      requests.filter((request) => request.atMs >= atMs && (verb === undefined || request.verb === verb)),
  };
}

/** A watch that was healthy for a minute breaks, and the server is away until pauses have grown. */
async function afterOutage(failure: KubeApiError) {
  const world = start();
  await world.clock.advance(60_000);
  world.answers(() => failure);
  world.breakWatch(NO_ANSWER);
  await world.clock.advance(OUTAGE_MS);
  return { ...world, fromMs: world.clock.monotonic() };
}

describe("after an outage", () => {
  test.each([
    ["connections were refused", NO_ANSWER],
    ["the server answered 503", UNAVAILABLE],
    ["the server answered 429", THROTTLED],
  ])("in which %s, a 410 is followed by a list at once", async (_how, failure) => {
    const { clock, answers, since, fromMs } = await afterOutage(failure);
    let isGone = true;
    answers(({ verb }) => {
      if (verb === "list" || !isGone) return undefined;
      isGone = false;
      return GONE;
    });
    await clock.advanceUntil(() => since(fromMs, "list").length === 1, 20_000);
    const [gone, list, watch] = since(fromMs);
    expect([gone?.verb, list?.verb, watch?.verb]).toEqual(["watch", "list", "watch"]);
    expect(list?.atMs).toBeGreaterThan(gone?.atMs ?? 0);
    expect((list?.atMs ?? 0) - (gone?.atMs ?? 0)).toBeLessThanOrEqual(AT_ONCE_MS);
    expect(watch?.atMs).toBe(list?.atMs);
  });

  test("an answer that refuses is no outage: the next try is soon, and later ones less and less often", async () => {
    const { clock, answers, since, fromMs } = await afterOutage(NO_ANSWER);
    answers(() => REFUSED);
    await clock.advance(MINUTES * 60_000);
    const [first, second] = since(fromMs);
    expect((second?.atMs ?? 0) - (first?.atMs ?? 0)).toBeLessThanOrEqual(AT_ONCE_MS);
    expect(since(clock.monotonic() - 60_000).length).toBeLessThanOrEqual(MOST_A_MINUTE);
  });

  test("the next outage starts with short pauses once a list was answered", async () => {
    const { clock, answers, since, fromMs } = await afterOutage(NO_ANSWER);
    let lists = 0;
    answers(({ verb }) => {
      if (verb === "list") lists += 1;
      if (verb === "list") return undefined;
      return lists === 0 ? GONE : NO_ANSWER;
    });
    await clock.advanceUntil(() => lists === 1, 20_000);
    await clock.advance(1_000);
    const [, , broken, again] = since(fromMs);
    expect(again).toBeDefined();
    expect((again?.atMs ?? 0) - (broken?.atMs ?? 0)).toBeLessThanOrEqual(AT_ONCE_MS);
  });

  test("a 429 is waited for as long as an outage", async () => {
    const { clock, answers, since, fromMs } = await afterOutage(NO_ANSWER);
    answers(() => THROTTLED);
    await clock.advance(60_000);
    expect(since(fromMs).length).toBeLessThanOrEqual(MOST_A_MINUTE);
  });
});

describe("without a healthy watch in between", () => {
  test.each<[string, (watches: number) => KubeApiError]>([
    ["410", () => GONE],
    ["a version that it does not know yet", () => TOO_NEW],
    ["410 and 503 in turn", (watches) => (watches % 2 === 0 ? GONE : UNAVAILABLE)],
    ["410 and 403 in turn", (watches) => (watches % 2 === 0 ? GONE : REFUSED)],
  ])("a server that answers watches with %s is not listed in a hot loop", async (_what, failureOf) => {
    let watches = 0;
    const { clock, since } = start(({ verb }) => {
      if (verb === "list") return undefined;
      watches += 1;
      return failureOf(watches);
    });
    await clock.advance(MINUTES * 60_000);
    expect(watches).toBeGreaterThan(MINUTES);
    expect(since(clock.monotonic() - 60_000, "list").length).toBeLessThanOrEqual(MOST_A_MINUTE);
    expect(since(0, "list").length).toBeLessThanOrEqual(MINUTES * MOST_A_MINUTE);
  });
});
