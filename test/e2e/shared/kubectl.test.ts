import { describe, expect, test } from "vitest";
import { bashScript } from "../../../simulator/script.ts";
import type { Pod } from "../../../src/kube/resource.ts";
import { execIn, kubectl } from "../support/kubectl.ts";
import { serveOne, untilEnded, untilState } from "../support/session-life.ts";
import { type E2eWorld, startE2eWorld } from "../support/world.ts";

/** What `kubectl get` shows of the Environment, by column. */
async function columns(world: E2eWorld, ...more: readonly string[]): Promise<Record<string, string>> {
  const text = await kubectl(world.cluster, ["get", "benv", world.name, "--namespace", world.namespace, ...more]);
  const [head = "", row = ""] = text.trimEnd().split("\n");
  // kubectl aligns the columns: each begins where its header begins.
  const starts = [...head.matchAll(/\S+( \S+)*/g)].map(({ 0: name, index }) => ({ name, index }));
  return Object.fromEntries(
    starts.map(({ name, index }, n) => [name, row.slice(index, starts[n + 1]?.index ?? row.length).trim()]),
  );
}

const describeIt = (world: E2eWorld, kind = "benv", name = world.name) =>
  kubectl(world.cluster, ["describe", kind, name, "--namespace", world.namespace]);

/** Waits until describe shows this. An Event appears a moment after the condition that reports the same. */
const untilDescribed = (world: E2eWorld, shows: RegExp, pod?: Pod) =>
  world.until(`describe shows ${shows}`, async () => {
    const text = await (pod ? describeIt(world, "pod", pod.metadata.name) : describeIt(world));
    return shows.test(text) && text;
  });

/** All fields that `kubectl explain --recursive` lists, or the text of one field. */
const explain = (world: E2eWorld, path: string, ...more: readonly string[]) =>
  kubectl(world.cluster, ["explain", path, ...more]);

describe.concurrent("what kubectl shows of an Environment", () => {
  test("that is busy: its counts in the columns, and its session in the Pod's Events", async () => {
    await using world = await startE2eWorld({ sessions: { warm: 1, maxConcurrent: 3 } });
    const served = await serveOne(world, { script: bashScript("until [ -e go ]; do sleep 0.2; done") });
    await untilState(world, served.item, "active");
    await world.until("counted", () => world.environment?.status?.sessions?.running === 1 && world.parked.length > 0);
    const { AGE, ...shown } = await world.until("the columns say so", async () => {
      const all = await columns(world);
      // The waiting item may have caused one Pod more than `warm`, which stays for 5 minutes. The operator
      // counts the queue periodically.
      return all["RUNNING"] === "1" && Number(all["WARM"]) >= 1 && all["QUEUE"] === "0" && all;
    });
    expect(AGE).toMatch(/^\d+[smh]/);
    expect(shown).toEqual({
      ...{
        NAME: "served",
        MODE: "Sessions",
        QUEUE: "0",
        WARM: expect.stringMatching(/^[12]$/),
        RUNNING: "1",
        SLEEPING: "0",
        MAX: "3",
        READY: "True",
        REASON: "Ready",
      },
    });
    const pod = await untilDescribed(world, /Normal\s+SessionStarted\s+.*\s+berth\s+session session_/, served.pod);
    expect(pod).toMatch(/Controlled By:\s+Environment\/served/);
    expect(pod).toContain(`berth.dev/work-id=${served.item.id}`);
    await execIn(world, served.pod, ["touch", "go"]);
    await untilEnded(world, served, "Completed");
    await untilDescribed(world, /Normal\s+Completed\s+/, served.pod);
  });

  test("that is broken: the reason in a column, and the fix in describe, as on the troubleshooting page", async () => {
    await using world = await startE2eWorld({ key: false });
    await world.createEnvironment();
    const { message } = await world.untilCondition("Ready", "KeySecretMissing");
    const { READY, REASON } = await columns(world);
    expect({ READY, REASON }).toEqual({ READY: "False", REASON: "KeySecretMissing" });
    const text = await untilDescribed(world, /Warning\s+KeySecretMissing\s+/);
    expect(text.replaceAll(/\s+/g, " ")).toContain(message.replaceAll(/\s+/g, " "));
    expect(message).toContain("key");
    await world.createKey();
    await world.untilCondition("Ready", "Ready");
    await untilDescribed(world, /Normal\s+KeyAccepted\s+/);
  });

  test("whose session failed: a Warning with the exit code and last output, also on the retained Pod", async () => {
    await using world = await startE2eWorld({
      sessions: { lease: "Operator" },
      container: { command: ["sh", "-c", "echo the disk of my dreams is full >&2; exit 3"] },
    });
    const served = await serveOne(world);
    const { message } = await untilEnded(world, served, "Failed");
    expect(message).toContain("3");
    await untilDescribed(world, /Warning\s+Failed\s+.*\s+berth\s+session session_/);
    const name = served.pod.metadata.name ?? "";
    const pod = await kubectl(world.cluster, ["describe", "pod", name, "--namespace", world.namespace]);
    expect(pod).toMatch(/Exit Code:\s+3/);
    expect(pod).toMatch(/berth\.dev\/end-reason:\s+Failed/);
    const log = await kubectl(world.cluster, ["logs", name, "--namespace", world.namespace]);
    expect(log).toContain("the disk of my dreams is full");
  });

  test("that is draining: not ready, and how long it may take", async () => {
    await using world = await startE2eWorld({ spec: { deletionGraceSeconds: 100 } });
    const served = await serveOne(world, { script: bashScript("until [ -e go ]; do sleep 0.2; done") });
    await untilState(world, served.item, "active");
    await world.deleteEnvironment();
    await world.untilCondition("Ready", "Deleting");
    // It counts once the kubelet reports it as running, which may be after the worker's start.
    const { READY, REASON } = await world.until("the session in the columns", async () => {
      const all = await columns(world);
      return all["RUNNING"] === "1" && all;
    });
    expect({ READY, REASON }).toEqual({ READY: "False", REASON: "Deleting" });
    const text = await untilDescribed(world, /Normal\s+Deleting\s+.*100 s \(spec\.deletionGraceSeconds\)/);
    expect(text).toMatch(/Deletion Timestamp:/);
    expect(text).toContain("berth.dev/drain");
    await execIn(world, served.pod, ["touch", "go"]);
    await world.untilServed(1);
  });

  test("explain has a sentence for every field and for the kind", async () => {
    await using world = await startE2eWorld({ key: false });
    expect(await explain(world, "benv")).toContain("self-hosted sandboxes");
    const fields = await explain(world, "benv.spec", "--recursive");
    expect(fields).toMatch(/sessions\s+<Object>/);
    expect(await explain(world, "benv.spec.sessions.warm")).toMatch(/DESCRIPTION:\s+\S+/);
    // Every field has a description, two levels deep.
    for (const path of ["benv.spec", "benv.spec.api", "benv.spec.sessions", "benv.spec.network", "benv.status"]) {
      const text = await explain(world, path);
      expect(text).not.toContain("<no description>");
    }
  });

  test("a mistake is refused at once, with the fix", async () => {
    await using world = await startE2eWorld({ key: false });
    await expect(
      world.createEnvironment({ sessions: { maxConcurrent: 1, warm: 2, template: world.template() } }),
    ).rejects.toThrow("warm must not be greater than maxConcurrent; lower warm, or raise maxConcurrent");
    await expect(world.createEnvironment({ network: {} })).rejects.toThrow("network.egress");
  });
});
