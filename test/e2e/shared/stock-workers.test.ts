import { describe, expect, test } from "vitest";
import { bashScript } from "../../../simulator/script.ts";
import type { Pod } from "../../../src/kube/resource.ts";
import { podOf, type Served, serveOne, untilAnswered, untilEnded } from "../support/session-life.ts";
import { NEVER, type StockWorker } from "../support/worker-template.ts";
import { type E2eWorld, startE2eWorld } from "../support/world.ts";

/** A way to park a Pod and to deliver its credential; together, all that the schema allows. */
interface Way {
  readonly parking: "Key" | "Shell";
  readonly credential: "WorkSecret" | "EnvironmentKey";
}

const WAYS: readonly (readonly [name: string, way: Way])[] = [
  ["parking Key", { parking: "Key", credential: "WorkSecret" }],
  ["parking Key and the environment key", { parking: "Key", credential: "EnvironmentKey" }],
  ["parking Shell", { parking: "Shell", credential: "WorkSecret" }],
  ["parking Shell and the environment key", { parking: "Shell", credential: "EnvironmentKey" }],
];
const WORKERS: readonly StockWorker[] = ["typescript", "python"];

/** The states of the session container while its Pod was parked, as the kubelet reported them. */
function waits(history: readonly Pod[]): ReadonlySet<string> {
  const parked = history.filter(({ metadata }) => metadata.labels?.["berth.dev/phase"] === "warm");
  return new Set(
    parked.map(({ status }) => {
      const { running, waiting } = status?.containerStatuses?.[0]?.state ?? {};
      return running ? "running" : (waiting?.reason ?? "");
    }),
  );
}

/** Names of the credentials in a session's environment, as its program sees them. */
const CREDENTIAL_NAMES =
  "tr '\\0' '\\n' </proc/1/environ | cut -d= -f1 | grep -E 'SECRET|KEY|TOKEN|ACKNOWLEDGED' | sort | xargs";

function credentialNames({ credential }: Way): string {
  return credential === "WorkSecret" ? "ANTHROPIC_WORK_SECRET" : "ANTHROPIC_ENVIRONMENT_KEY";
}

/**
 * Checks who stopped an item. A sessions token is good for one item only; for the environment key, the user agent tells
 * the sender.
 */
async function expectStoppedByWorker(world: E2eWorld, { item }: Served, way: Way, worker: StockWorker) {
  const { stoppedBy } = await world.simulator.item(item.id);
  expect(stoppedBy?.as).toBe(way.credential === "WorkSecret" ? "sessions-token" : "environment-key");
  expect(stoppedBy?.userAgent).toMatch(worker === "python" ? /Anthropic\/Python/ : /Anthropic\/JS/);
}

// Two at a time: the start of a worker uses a core for seconds.
describe.each(WAYS)("with %s", (_name, way) => {
  test.concurrent.each(WORKERS)(
    "the stock %s worker serves a session to idle in a Pod that was parked, and stops its item itself",
    async (worker) => {
      await using world = await startE2eWorld({ worker, sessions: { ...way } });
      const served = await serveOne(world, { script: bashScript("echo hello > file", "cat file", CREDENTIAL_NAMES) });
      const { last } = await untilEnded(world, served, "Completed");
      await expectStoppedByWorker(world, served, way, worker);
      expect(last.acks).toHaveLength(1);
      const [, read, names] = await untilAnswered(world, served.item, 3);
      expect(read).toEqual(["hello", false]);
      expect(names).toEqual([credentialNames(way), false]);
      const held = waits(world.history(served.pod));
      expect(held).toContain(way.parking === "Key" ? "CreateContainerConfigError" : "running");
      expect(held.has("running")).toBe(way.parking === "Shell");
      const { status } = podOf(world, served.item) ?? {};
      expect(status?.containerStatuses?.[0]).toMatchObject({ restartCount: 0, state: { terminated: { exitCode: 0 } } });
    },
  );
});

test.concurrent.each(WORKERS)(
  "the stock %s worker continues its session on a new message, and exits when the session ends",
  async (worker) => {
    await using world = await startE2eWorld({ worker, maxIdleMs: NEVER });
    const served = await serveOne(world, { script: bashScript("echo one > file; echo first") });
    await untilAnswered(world, served.item, 1);
    await world.simulator.sendMessage(served.item.sessionId ?? "", { ...bashScript("cat file"), end: "terminated" });
    expect(await untilAnswered(world, served.item, 2)).toEqual([
      ["first", false],
      ["one", false],
    ]);
    await untilEnded(world, served, "Completed");
    expect(await world.simulator.items()).toHaveLength(1);
  },
);
