import { describe, expect, test } from "vitest";
import { bashScript } from "../../../simulator/script.ts";
import { realClock, SECOND_MS, sleep } from "../../../src/core/clock.ts";
import type { Pod } from "../../../src/kube/resource.ts";
import { turnName } from "../../../src/pods/turns.ts";
import { IS_GVISOR, READ_ONLY } from "../support/isolation.ts";
import { execIn } from "../support/kubectl.ts";
import { deletePod, evictPod, latest } from "../support/pods.ts";
import {
  enqueueOne,
  expectCounted,
  sayMore,
  serveOne,
  untilAnswered,
  untilGone,
  untilSettled,
  untilState,
} from "../support/session-life.ts";
import { readSettings } from "../support/settings.ts";
import { SLEEPS, sayAndSleep, turnsOf, untilAsleep } from "../support/sleep.ts";
import type { StockWorker } from "../support/worker-template.ts";
import { type E2eWorld, startE2eWorld } from "../support/world.ts";

const WORKERS: readonly StockWorker[] = ["typescript", "python", "go"];
const uidOf = ({ metadata }: Pod) => metadata.uid;

const ITEMS = readSettings().long ? 10 : 5;
const FILES = 1_000;
const WRITE = `for n in $(seq ${FILES}); do echo $n $RANDOM > file-$n; done`;
/** A worker that uses up its memory once a tool creates this file. */
const HUNGRY = "/tmp/hungry";
const HUNGRY_WORKER = [
  'import("/app/worker.mjs");',
  'import { existsSync } from "node:fs";',
  "const eaten = [];",
  `const eat = () => existsSync("${HUNGRY}") && eaten.push(Buffer.alloc(1 << 25, 1));`,
  "setInterval(eat, 20).unref();",
].join("\n");
/** The stock worker alone needs about 100 MiB. */
const LIMITED = { requests: { memory: "64Mi" }, limits: { memory: "192Mi" } };
/** The memory limit of the container's own control group, in version 2 or 1. */
const SHOW_LIMIT = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null";

/** The user of the worker images. */
const WORKER_USER = 10_001;

const HASH = "cat $(ls | sort) | sha256sum; ls -A | wc -l";

/** The SDKs differ in the line breaks at the end. */
const withoutLastBreaks = ([output, isError]: readonly [string | undefined, boolean | undefined]) =>
  [output?.trimEnd(), isError] as const;

/**
 * Checks that nothing about the Pod alarms its users: it was ready since it first was, nothing restarted, and no Event
 * is a warning.
 * @param warnings reasons of expected ones
 */
function expectCalm(world: E2eWorld, pod: Pod, warnings: readonly string[] = []): void {
  const history = world.history(pod).filter(({ metadata }) => metadata.deletionTimestamp === undefined);
  const ready = history.map(
    ({ status }) => status?.conditions?.find(({ type }) => type === "Ready")?.status === "True",
  );
  expect(ready.slice(ready.indexOf(true))).not.toContain(false);
  const { phase, containerStatuses = [] } = latest(world, pod).status ?? {};
  expect(phase).toBe("Running");
  for (const { restartCount } of [...containerStatuses, ...turnsOf(latest(world, pod))]) expect(restartCount).toBe(0);
  const about = world.views.events.list().filter(({ involvedObject }) => involvedObject.name === pod.metadata.name);
  expect(about.filter(({ type }) => type === "Warning").map(({ reason }) => reason)).toEqual(warnings);
}

/** The kubelet reports that the shell runs before it traps SIGTERM. */
const UNTIL_TRAPPED = ["/bin/sh", "-c", "until grep -q '^SigCgt:.*[4-7c-f]...$' /proc/1/status; do sleep 0.1; done"];

describe.concurrent("a session that sleeps between work items", () => {
  test.each(WORKERS)(
    "finds its files in the same Pod, with the stock %s worker, and no other sees them",
    async (worker) => {
      await using world = await startE2eWorld({ worker, sessions: SLEEPS });
      const first = await serveOne(world, { script: bashScript(`${WRITE}; ${HASH}`) });
      await untilState(world, first.item, "stopped");
      const other = await enqueueOne(world, { script: bashScript("ls -A | wc -l; echo > other") });
      let { item, pod } = { ...first, pod: await untilAsleep(world, first.item) };
      for (let n = 2; n <= ITEMS; n += 1) {
        ({ item, pod } = await sayAndSleep(world, first, bashScript(HASH)));
        expect(uidOf(pod)).toBe(uidOf(first.pod));
      }
      const answers = (await untilAnswered(world, first.item, ITEMS)).map(withoutLastBreaks);
      expect(answers[0]).toEqual([expect.stringMatching(new RegExp(`^[0-9a-f]{64}  -\n${FILES}$`)), false]);
      expect(answers).toEqual(Array(ITEMS).fill(answers[0]));

      const otherPod = await untilAsleep(world, other.item);
      expect(uidOf(otherPod)).not.toBe(uidOf(first.pod));
      await sayAndSleep(world, other, bashScript("ls -A"));
      expect((await untilAnswered(world, other.item, 2)).map(withoutLastBreaks)).toEqual([
        ["0", false],
        ["other", false],
      ]);

      const items = await world.simulator.items();
      // On a busy machine, a worker's first heartbeat may come too late. Its item is then served again, in the next turn.
      const turnsFor = (of: typeof items) => of.reduce((sum, { generation }) => sum + generation, 0);
      const served = turnsFor(items.filter(({ sessionId }) => sessionId === first.item.sessionId));
      expect(served).toBeGreaterThanOrEqual(ITEMS);
      // The last one waits.
      const exits = turnsOf(pod).map(({ name, state }) => [name, state?.terminated?.exitCode ?? "none"]);
      expect(exits).toEqual(Array.from({ length: served + 1 }, (_, n) => [turnName(n + 1), n < served ? 0 : "none"]));
      for (const one of [pod, otherPod]) expectCalm(world, one);
      for (const { acks, generation, stoppedBy } of items) {
        expect(acks).toHaveLength(generation);
        expect(stoppedBy?.as).toBe("sessions-token");
      }
      await expectCounted(world, { Completed: turnsFor(items) });
      expect(world.claims).toEqual([]);
      expect(item.sessionId).toBe(first.item.sessionId);
    },
  );

  test.each([0, 1, 3])("serves a message %i s after its last item in the same Pod", async (seconds) => {
    await using world = await startE2eWorld({ sessions: SLEEPS });
    const first = await serveOne(world, { script: bashScript("echo kept > note") });
    await untilState(world, first.item, "stopped");
    await sleep(realClock, seconds * SECOND_MS);
    const { item, pod } = await sayAndSleep(world, first, bashScript("cat note"));
    expect(uidOf(pod)).toBe(uidOf(first.pod));
    expect((await untilAnswered(world, item, 2))[1]).toEqual(["kept", false]);
    await expectCounted(world, { Completed: 2 });
  });

  test("has its Pod's memory limit, and sleeps again after an item that exceeded it", async () => {
    const command = ["node", "--input-type=module", "-e", HUNGRY_WORKER];
    await using world = await startE2eWorld({
      maxIdleMs: 6_000,
      sessions: SLEEPS,
      container: { command, resources: LIMITED },
    });
    const first = await serveOne(world, { script: bashScript("echo kept > note") });
    await untilAsleep(world, first.item);
    // The next worker would run a command again that has no answer.
    const hungry = await sayMore(world, first, bashScript(`(sleep 2; touch ${HUNGRY}) >/dev/null 2>&1 & echo soon`));
    const { message, last } = await untilSettled(world, { ...first, item: hungry }, "OOMKilled");
    expect(message).toContain("more memory than its limit");
    expect(last.stoppedBy?.as).toBe("environment-key");
    if (IS_GVISOR) {
      // The Pod ended, and the files with it.
      const { pod } = await sayAndSleep(world, first, bashScript("ls -A | wc -l"));
      expect(uidOf(pod)).not.toBe(uidOf(first.pod));
      expect((await untilAnswered(world, first.item, 3)).at(-1)).toEqual(["0", false]);
      return await expectCounted(world, { Completed: 2, OOMKilled: 1 });
    }
    const pod = await untilAsleep(world, hungry);
    expect(turnsOf(pod)[1]?.state?.terminated).toMatchObject({ exitCode: 137, reason: "OOMKilled" });
    const next = await sayAndSleep(world, first, bashScript("cat note", SHOW_LIMIT));
    expect(uidOf(next.pod)).toBe(uidOf(first.pod));
    const answers = await untilAnswered(world, first.item, 4);
    expect(answers.at(-2)).toEqual(["kept", false]);
    expect(answers.at(-1)?.[0]).toBe(String(192 * 2 ** 20));
    expectCalm(world, next.pod, ["OOMKilled"]);
    await expectCounted(world, { Completed: 2, OOMKilled: 1 });
  });

  test("gets each item's own secret, as a user without rights on a read-only file system", async () => {
    await using world = await startE2eWorld({
      sessions: SLEEPS,
      container: { securityContext: { readOnlyRootFilesystem: true, runAsNonRoot: true } },
    });
    const secret = "tr '\\0' '\\n' </proc/1/environ | grep ^ANTHROPIC_WORK_SECRET= | sha256sum";
    const look = `id -u; ${secret}; touch /file || ls -A`;
    const first = await serveOne(world, { script: bashScript("touch note", look) });
    await untilAsleep(world, first.item);
    for (let n = 2; n <= 3; n += 1) {
      const { pod } = await sayAndSleep(world, first, bashScript(look));
      expect(uidOf(pod)).toBe(uidOf(first.pod));
    }
    const [, ...looks] = await untilAnswered(world, first.item, 4);
    const shown = new RegExp(`^${WORKER_USER}\n[0-9a-f]{64}  -\n.*${READ_ONLY}\nnote$`);
    expect(looks).toEqual(Array(3).fill([expect.stringMatching(shown), false]));
    expect(new Set(looks.map(([output]) => output)).size).toBe(3);
    for (const { stoppedBy } of await world.simulator.items()) expect(stoppedBy?.as).toBe("sessions-token");
  });

  test.each([
    ["deleted by hand", deletePod],
    ["evicted through the API", evictPod],
  ] as const)("loses its Pod that is %s, is told, and gets a new one for its next item", async (_, take) => {
    await using world = await startE2eWorld({ sessions: SLEEPS });
    const first = await serveOne(world, { script: bashScript("echo lost > note") });
    const pod = await untilAsleep(world, first.item);
    // gVisor doesn't show what a process traps.
    if (!IS_GVISOR) await execIn(world, pod, UNTIL_TRAPPED, turnName(2));
    await take(world, pod);
    await untilGone(world, pod);
    // SIGTERM ended them.
    const { containerStatuses = [] } = latest(world, pod).status ?? {};
    for (const { state } of [...containerStatuses, ...turnsOf(latest(world, pod)).slice(1)]) {
      expect(state?.terminated?.exitCode).toBe(143);
    }
    await world.until("an Event", () =>
      world.events("SleepEnded").some(({ message }) => message?.includes(first.item.sessionId ?? "-")),
    );
    const next = await sayAndSleep(world, first, bashScript("ls -A | wc -l"));
    expect(uidOf(next.pod)).not.toBe(uidOf(first.pod));
    expect((await untilAnswered(world, first.item, 2)).at(-1)).toEqual(["0", false]);
    await expectCounted(world, { Completed: 2 });
  });
});
