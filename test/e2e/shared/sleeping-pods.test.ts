import { describe, expect, test } from "vitest";
import { bashScript } from "../../../simulator/script.ts";
import type { ContainerStatus, Pod } from "../../../src/kube/resource.ts";
import { turnName } from "../../../src/pods/turns.ts";
import { latest } from "../support/pods.ts";
import { enqueueOne, expectCounted, serveOne, untilAnswered, untilState } from "../support/session-life.ts";
import { SLEEPS, sayAndSleep, untilAsleep } from "../support/sleep.ts";
import type { StockWorker } from "../support/worker-template.ts";
import { type E2eWorld, startE2eWorld } from "../support/world.ts";

const WORKERS: readonly StockWorker[] = ["typescript", "python"];
const uidOf = ({ metadata }: Pod) => metadata.uid;

const ITEMS = 10;
const FILES = 1_000;
const WRITE = `for n in $(seq ${FILES}); do echo $n $RANDOM > file-$n; done`;
const HASH = "cat $(ls | sort) | sha256sum; ls -A | wc -l";

/** The statuses of all containers of the Pod that run work items, the oldest first. */
function turnsOf(pod: Pod): readonly ContainerStatus[] {
  const turns = pod.status?.ephemeralContainerStatuses ?? [];
  return turns.toSorted((one, other) => one.name.localeCompare(other.name, "en", { numeric: true }));
}

/** Checks that nothing about the Pod alarms its users: it was ready since it first was, and nothing restarted. */
function expectCalm(world: E2eWorld, pod: Pod): void {
  const history = world.history(pod).filter(({ metadata }) => metadata.deletionTimestamp === undefined);
  const ready = history.map(
    ({ status }) => status?.conditions?.find(({ type }) => type === "Ready")?.status === "True",
  );
  expect(ready.slice(ready.indexOf(true))).not.toContain(false);
  const { phase, containerStatuses = [] } = latest(world, pod).status ?? {};
  expect(phase).toBe("Running");
  for (const { restartCount } of [...containerStatuses, ...turnsOf(latest(world, pod))]) expect(restartCount).toBe(0);
  const warnings = world.views.events
    .list()
    .filter(({ type, involvedObject }) => type === "Warning" && involvedObject.name === pod.metadata.name);
  expect(warnings.map(({ message }) => message)).toEqual([]);
}

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
      const answers = await untilAnswered(world, first.item, ITEMS);
      expect(answers[0]).toEqual([expect.stringMatching(new RegExp(`^[0-9a-f]{64}  -\n${FILES}$`)), false]);
      expect(answers).toEqual(Array(ITEMS).fill(answers[0]));

      const otherPod = await untilAsleep(world, other.item);
      expect(uidOf(otherPod)).not.toBe(uidOf(first.pod));
      await sayAndSleep(world, other, bashScript("ls -A"));
      expect(await untilAnswered(world, other.item, 2)).toEqual([
        ["0", false],
        ["other", false],
      ]);

      expect(turnsOf(pod).map(({ name }) => name)).toEqual(
        Array.from({ length: ITEMS + 1 }, (_, n) => turnName(n + 1)),
      );
      for (const { state } of turnsOf(pod).slice(0, ITEMS)) expect(state?.terminated?.exitCode).toBe(0);
      for (const one of [pod, otherPod]) expectCalm(world, one);
      for (const { acks, stoppedBy } of await world.simulator.items()) {
        expect(acks).toHaveLength(1);
        expect(stoppedBy?.as).toBe("sessions-token");
      }
      await expectCounted(world, { Completed: ITEMS + 2 });
      expect(world.claims).toEqual([]);
      expect(item.sessionId).toBe(first.item.sessionId);
    },
  );
});
