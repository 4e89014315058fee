import { expect, test } from "vitest";
import { PODS } from "../../src/kube/resource.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { Reflector } from "../../src/watch/reflector.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

test("repeats a list without a resourceVersion, because a watch could then start anywhere", async () => {
  const clock = new VirtualClock();
  const versions: string[] = [];
  let lists = 0;
  const client = {
    listAll: async () => {
      lists += 1;
      return { metadata: lists === 1 ? {} : { resourceVersion: "7" }, items: [] };
    },
    // biome-ignore lint/correctness/useYield: a watch that ends without an event
    async *watch(_: unknown, { resourceVersion }: { resourceVersion: string }) {
      versions.push(resourceVersion);
    },
  };
  const store = { replace: () => {}, apply: () => {}, versions: () => [] };
  const reflector = new Reflector({ client: client as never, resource: PODS, store, clock, logger: silentLogger });
  const ending = new AbortController();
  const running = reflector.run(ending.signal);
  await clock.settle();
  expect(reflector.hasSynced).toBe(false);
  await clock.advance(1_000);
  ending.abort();
  await clock.settle();
  await running;
  expect(versions[0]).toBe("7");
  expect(lists).toBe(2);
});
