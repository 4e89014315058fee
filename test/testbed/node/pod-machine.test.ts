import { describe, expect, test } from "vitest";
import type { Pod } from "../../../src/kube/objects.ts";
import { FATE_ANNOTATION } from "../../../testbed/node/fate.ts";
import { boundPod, PodBench } from "./pod-bench.ts";

const GATE = { env: [{ name: "GO", valueFrom: { secretKeyRef: { name: "work-1", key: "go" } } }] };
const OTHER = { name: "other" };
const gatedPod = () => boundPod({ containers: [GATE] });

async function parked(pod: Pod = gatedPod(), fates = {}): Promise<PodBench> {
  const bench = new PodBench(pod, fates);
  await bench.untilState("c", "CreateContainerConfigError");
  return bench;
}

/** Returns the time that `fn` takes, in milliseconds of the clock. */
async function timed(bench: PodBench, fn: () => Promise<unknown>): Promise<number> {
  const before = bench.clock.monotonic();
  await fn();
  return bench.clock.monotonic() - before;
}

describe("a Pod whose key is missing", () => {
  test("is checked every 10 to 15 s, at varying intervals", async () => {
    const bench = await parked();
    const waits: number[] = [];
    for (let round = 0; round < 20; round += 1) {
      const { looks } = bench;
      waits.push(await timed(bench, () => bench.until(() => bench.looks > looks)));
    }
    for (const wait of waits) expect(wait).toBeGreaterThanOrEqual(10_000);
    for (const wait of waits) expect(wait).toBeLessThanOrEqual(15_010);
    expect(new Set(waits).size).toBeGreaterThan(10);
  });

  test("isn't checked when only the Secret changes, and starts at the next look", async () => {
    const bench = await parked();
    bench.setSecret("work-1", { go: "x" });
    await bench.clock.advance(9_000);
    expect(bench.stateOf("c")).toBe("CreateContainerConfigError");
    await bench.clock.advance(7_000);
    expect(bench.stateOf("c")).toBe("running");
  });

  test("starts in about a tenth of a second after it got its key and was touched", async () => {
    const bench = await parked();
    bench.setSecret("work-1", { go: "x" });
    bench.annotate({ touched: "1" });
    const ms = await timed(bench, () => bench.untilState("c", "running"));
    expect(ms).toBeGreaterThanOrEqual(70);
    expect(ms).toBeLessThanOrEqual(115);
  });

  test.each<[string, (pod: Pod) => Pod]>([
    ["a label", (pod) => ({ ...pod, metadata: { ...pod.metadata, labels: { a: "b" } } })],
    ["an annotation", (pod) => ({ ...pod, metadata: { ...pod.metadata, annotations: { a: "b" } } })],
    ["the spec", (pod) => ({ ...pod, spec: { ...pod.spec, activeDeadlineSeconds: 1_000 } })],
  ])("is checked at once when %s changes", async (_what, change) => {
    const bench = await parked();
    const { looks } = bench;
    bench.machine.update(change(bench.machine.pod));
    await bench.clock.advance(0);
    expect(bench.looks).toBe(looks + 1);
  });

  test("isn't checked when only its status or its version changes, because those are the kubelet's own changes", async () => {
    const bench = await parked();
    const { looks } = bench;
    const { pod } = bench.machine;
    bench.machine.update({ ...pod, metadata: { ...pod.metadata, resourceVersion: "9" }, status: bench.last });
    await bench.clock.advance(5_000);
    expect(bench.looks).toBe(looks);
  });

  test("reports the missing key once the Secret exists, and keeps waiting", async () => {
    const bench = await parked();
    bench.setSecret("work-1", { other: "x" });
    bench.annotate({ touched: "1" });
    const message = () => bench.last.containerStatuses?.[0]?.state?.waiting?.message;
    await bench.until(() => message() === "couldn't find key go in Secret tb/work-1");
    expect(bench.last.phase).toBe("Pending");
  });

  test("doesn't lose a touch that comes during a look", async () => {
    const bench = await parked();
    const read = bench.read;
    const held = Promise.withResolvers<void>();
    bench.read = async (pod, references) => {
      // This look sees what was read before the key existed.
      const objects = await read(pod, references);
      const secret = objects.secret("work-1");
      await held.promise;
      return { ...objects, secret: () => secret };
    };
    bench.annotate({ touched: "1" });
    await bench.clock.advance(0);
    bench.read = read;
    bench.setSecret("work-1", { go: "x" });
    bench.annotate({ touched: "2" });
    held.resolve();
    expect(await timed(bench, () => bench.untilState("c", "running"))).toBeLessThan(200);
  });

  test("runs its other containers and stays Pending", async () => {
    const bench = await parked(boundPod({ containers: [GATE, OTHER] }));
    await bench.untilState("other", "running");
    expect([bench.last.phase, bench.stateOf("c")]).toEqual(["Pending", "CreateContainerConfigError"]);
  });

  test("is checked when another of its containers ends, because every event of the Pod triggers a look", async () => {
    const bench = await parked(boundPod({ containers: [GATE, OTHER] }), { other: { kind: "exit", afterMs: 2_000 } });
    const { looks } = bench;
    await bench.untilState("other", "Completed");
    await bench.clock.advance(0);
    expect(bench.looks).toBe(looks + 1);
  });

  test("waits with its init containers done and its sidecars running", async () => {
    const initContainers = [{ name: "prep" }, { name: "proxy", restartPolicy: "Always" }];
    const bench = await parked(boundPod({ initContainers, containers: [GATE] }));
    expect([bench.stateOf("prep"), bench.stateOf("proxy")]).toEqual(["Completed", "running"]);
    expect(bench.last.conditions?.find(({ type }) => type === "Initialized")?.status).toBe("True");
  });
});

describe("the start of a Pod", () => {
  test("goes through ContainerCreating to running in about half a second", async () => {
    const bench = new PodBench(boundPod());
    expect(bench.stateOf("c")).toBe("ContainerCreating");
    const ms = await timed(bench, () => bench.untilState("c", "running"));
    expect(ms).toBeGreaterThan(300);
    expect(ms).toBeLessThan(600);
  });

  test("goes through the init containers one by one, while all others are PodInitializing", async () => {
    const initContainers = [{ name: "first" }, { name: "second" }];
    const bench = new PodBench(boundPod({ initContainers }));
    await bench.untilState("first", "running");
    expect([bench.stateOf("second"), bench.stateOf("c")]).toEqual(["PodInitializing", "PodInitializing"]);
    await bench.untilState("second", "running");
    expect([bench.stateOf("first"), bench.stateOf("c")]).toEqual(["Completed", "PodInitializing"]);
    await bench.untilState("c", "running");
    expect(bench.stateOf("second")).toBe("Completed");
  });

  test("takes as long as the image pull and the container start", async () => {
    const bench = new PodBench(boundPod(), { c: { kind: "run", pullMs: 20_000, startDelayMs: 3_000 } });
    const ms = await timed(bench, () => bench.untilState("c", "running"));
    expect(ms).toBeGreaterThan(23_000);
    expect(ms).toBeLessThan(24_000);
  });

  test("goes to ImagePullBackOff and pulls again at growing intervals until the image exists", async () => {
    const bench = new PodBench(boundPod(), { c: { kind: "pull-error", times: 3 } });
    await bench.untilState("c", "running");
    const seen = bench.reports.map(({ containerStatuses }) => containerStatuses?.[0]?.state?.waiting?.reason);
    expect(seen.filter((reason, at) => reason === "ErrImagePull" && seen[at - 1] !== reason)).toHaveLength(3);
    expect(seen).toContain("ImagePullBackOff");
  });

  test("waits in ContainerCreating without a sandbox for the Secrets that volumes require, but not for optional ones", async () => {
    const volumes = [
      { name: "needed", secret: { secretName: "files" } },
      { name: "optional", secret: { secretName: "none", optional: true } },
    ];
    const bench = new PodBench(boundPod({ spec: { volumes } }));
    await bench.clock.advance(60_000);
    expect(bench.stateOf("c")).toBe("ContainerCreating");
    expect(bench.last.conditions?.find(({ type }) => type === "PodReadyToStartContainers")?.status).toBe("False");
    bench.setSecret("files", { a: "b" });
    await bench.untilState("c", "running");
  });

  test("never completes for a Pod that is stuck, which can still be deleted", async () => {
    const bench = new PodBench(boundPod(), { c: { kind: "never-starts" } });
    await bench.clock.advance(300_000);
    expect(bench.stateOf("c")).toBe("ContainerCreating");
    bench.deletePod();
    await bench.until(() => bench.events.includes("finalized"));
  });

  test("reports a fate that can't be read as an error of the container", async () => {
    const bench = new PodBench(boundPod({ annotations: { [FATE_ANNOTATION]: '{"kind":"explode"}' } }));
    await bench.untilState("c", "CreateContainerError");
    expect(bench.last.containerStatuses?.[0]?.state?.waiting?.message).toContain(FATE_ANNOTATION);
  });
});

describe("the end of a container", () => {
  test("appears in its state within a second, and in the phase a second later", async () => {
    const bench = new PodBench(boundPod(), { c: { kind: "run" } });
    await bench.untilState("c", "running");
    expect(bench.machine.kill("c", "SIGKILL")).toBe(true);
    const seen = await timed(bench, () => bench.untilState("c", "Error"));
    expect(seen).toBeGreaterThanOrEqual(300);
    expect(seen).toBeLessThanOrEqual(1_010);
    expect(bench.last.phase).toBe("Running");
    const phase = await timed(bench, () => bench.untilPhase("Failed"));
    expect(phase).toBeGreaterThanOrEqual(900);
    expect(phase).toBeLessThanOrEqual(1_210);
  });

  test("never appears in the phase while another container runs", async () => {
    const bench = new PodBench(boundPod({ containers: [{}, OTHER] }), { c: { kind: "exit", afterMs: 10 } });
    await bench.untilState("c", "Completed");
    await bench.clock.advance(600_000);
    expect(bench.last.phase).toBe("Running");
  });

  test("at the memory limit can be caused from outside", async () => {
    const bench = new PodBench(boundPod());
    await bench.untilState("c", "running");
    bench.machine.kill("c", "OOMKilled");
    await bench.untilState("c", "OOMKilled");
    expect(bench.last.containerStatuses?.[0]?.state?.terminated?.exitCode).toBe(137);
    expect(bench.machine.kill("c", "SIGKILL")).toBe(false);
  });

  test("leads to a restart if the Pod requests it: at once, then after 10 s and 20 s", async () => {
    const bench = new PodBench(boundPod({ spec: { restartPolicy: "Always" } }), { c: { kind: "exit", code: 1 } });
    const restarts = () => bench.last.containerStatuses?.[0]?.restartCount ?? 0;
    const waits: number[] = [];
    for (let count = 1; count <= 4; count += 1)
      waits.push(await timed(bench, () => bench.until(() => restarts() === count)));
    expect(waits.map((ms) => Math.round(ms / 10_000))).toEqual([0, 1, 2, 4]);
    expect(bench.last.phase).toBe("Running");
  });
});

test("a sidecar that can't be started is retried, and the Pod waits for it", async () => {
  const initContainers = [{ name: "proxy", restartPolicy: "Always" }];
  const bench = new PodBench(boundPod({ initContainers }), { proxy: { kind: "start-error" } });
  await bench.until(() => (bench.last.initContainerStatuses?.[0]?.restartCount ?? 0) >= 3);
  expect([bench.last.phase, bench.stateOf("c")]).toEqual(["Pending", "PodInitializing"]);
});

describe("a Pod that is deleted", () => {
  test("while parked is gone within a second, as Failed, with a container whose state is unknown", async () => {
    const bench = await parked();
    bench.deletePod();
    const ms = await timed(bench, () => bench.until(() => bench.events.includes("finalized")));
    expect(ms).toBeGreaterThanOrEqual(350);
    expect(ms).toBeLessThanOrEqual(1_000);
    expect(bench.last.phase).toBe("Failed");
    expect(bench.last.containerStatuses?.[0]?.state?.terminated).toMatchObject({
      exitCode: 137,
      reason: "ContainerStatusUnknown",
    });
  });

  test("has its container killed when the grace has passed, and not before", async () => {
    const bench = new PodBench(boundPod(), { c: { kind: "run", onTerm: "ignore" } });
    await bench.untilState("c", "running");
    bench.deletePod(20);
    expect(await timed(bench, () => bench.until(() => !bench.machine.running))).toBe(20_000);
  });

  test("a second time with a shorter grace is killed sooner, and with a longer one no later", async () => {
    const bench = new PodBench(boundPod(), { c: { kind: "run", onTerm: "ignore" } });
    await bench.untilState("c", "running");
    bench.deletePod(60);
    await bench.clock.advance(1_000);
    bench.deletePod(5);
    await bench.clock.advance(1_000);
    bench.deletePod(600);
    expect(await timed(bench, () => bench.until(() => !bench.machine.running))).toBe(4_000);
  });

  test("by force is gone from the API at once, and its container gets the grace of the spec", async () => {
    const bench = new PodBench(boundPod({ spec: { terminationGracePeriodSeconds: 8 } }), {
      c: { kind: "run", onTerm: "ignore" },
    });
    await bench.untilState("c", "running");
    const { length } = bench.reports;
    const { pod } = bench.machine;
    bench.machine.remove({ ...pod, metadata: { ...pod.metadata, deletionGracePeriodSeconds: 0 } });
    expect(await timed(bench, () => bench.until(() => !bench.machine.running))).toBe(8_000);
    await bench.until(() => bench.events.includes("forgotten"));
    expect(bench.reports).toHaveLength(length);
    expect(bench.events).toEqual(["forgotten"]);
  });

  test("between its touch and its start never starts", async () => {
    const bench = await parked();
    bench.setSecret("work-1", { go: "x" });
    bench.annotate({ touched: "1" });
    await bench.clock.advance(20);
    bench.deletePod();
    await bench.until(() => bench.events.includes("finalized"));
    expect(bench.reports.some(({ phase }) => phase === "Running")).toBe(false);
  });

  test("after it ended is removed at once", async () => {
    const bench = new PodBench(boundPod(), { c: { kind: "exit" } });
    await bench.untilPhase("Succeeded");
    bench.deletePod(0);
    expect(bench.events).toEqual(["finalized"]);
    expect(bench.last.phase).toBe("Succeeded");
  });

  test("ends its sidecars last, in reverse start order", async () => {
    const initContainers = ["one", "two"].map((name) => ({ name, restartPolicy: "Always" }));
    const slow = { kind: "run" as const, onTerm: { code: 0, afterMs: 1_000 } };
    const bench = new PodBench(boundPod({ initContainers }), { c: slow, one: slow, two: slow });
    await bench.untilState("c", "running");
    bench.deletePod();
    await bench.until(() => bench.events.includes("finalized"));
    const { initContainerStatuses = [], containerStatuses = [] } = bench.last;
    const endOf = (name: string) => {
      const status = [...initContainerStatuses, ...containerStatuses].find((each) => each.name === name);
      return Date.parse(status?.state?.terminated?.finishedAt ?? "");
    };
    expect(endOf("two")).toBeGreaterThan(endOf("c"));
    expect(endOf("one")).toBeGreaterThan(endOf("two"));
  });
});

describe("an active deadline", () => {
  test("counts from the start of the Pod, including the time it's parked", async () => {
    const bench = await parked(boundPod({ containers: [GATE], spec: { activeDeadlineSeconds: 20 } }));
    await bench.clock.advance(15_000);
    bench.setSecret("work-1", { go: "x" });
    bench.annotate({ touched: "1" });
    await bench.untilState("c", "running");
    expect(await timed(bench, () => bench.untilPhase("Failed"))).toBeLessThan(7_000);
    expect(bench.last.reason).toBe("DeadlineExceeded");
  });

  test("that is lowered ends the Pod then, and the largest possible one never does", async () => {
    const bench = await parked(boundPod({ containers: [GATE], spec: { activeDeadlineSeconds: 2_147_483_647 } }));
    await bench.clock.advance(3_600_000);
    expect(bench.last.phase).toBe("Pending");
    const { pod } = bench.machine;
    bench.machine.update({ ...pod, spec: { ...pod.spec, activeDeadlineSeconds: 3_605 } });
    expect(await timed(bench, () => bench.untilPhase("Failed"))).toBeLessThan(7_000);
    expect(bench.last.containerStatuses?.[0]?.state?.terminated?.reason).toBe("ContainerStatusUnknown");
  });
});

test("an evicted Pod is Failed with the node's message, and its container has a second to end", async () => {
  const bench = new PodBench(boundPod(), { c: { kind: "run", onTerm: "ignore" } });
  await bench.untilState("c", "running");
  bench.machine.evict({ reason: "Evicted", message: "The node was low on resource: ephemeral-storage. " });
  expect(await timed(bench, () => bench.until(() => !bench.machine.running))).toBe(1_000);
  await bench.untilPhase("Failed");
  expect(bench.last.reason).toBe("Evicted");
});

describe("a Pod of an earlier kubelet", () => {
  test("is Failed if its container is gone", async () => {
    const before = new PodBench(boundPod());
    await before.untilState("c", "running");
    const bench = new PodBench({ ...before.machine.pod, status: before.last });
    await bench.untilPhase("Failed");
    expect(bench.stateOf("c")).toBe("ContainerStatusUnknown");
    expect(bench.last.startTime).toBe(before.last.startTime);
  });

  test("is unchanged if it has already ended", async () => {
    const before = new PodBench(boundPod(), { c: { kind: "exit" } });
    await before.untilPhase("Succeeded");
    const bench = new PodBench({ ...before.machine.pod, status: before.last });
    await bench.clock.advance(60_000);
    expect(bench.reports).toEqual([]);
  });
});

test("Ready follows the condition of a readiness gate even if nothing else changes", async () => {
  const plain = boundPod();
  const bench = new PodBench({ ...plain, spec: { ...plain.spec, readinessGates: [{ conditionType: "ok" }] } });
  await bench.untilState("c", "running");
  const ready = () => bench.last.conditions?.find(({ type }) => type === "Ready")?.status;
  const say = (status: string) => {
    const { pod } = bench.machine;
    bench.machine.update({ ...pod, status: { ...bench.last, conditions: [{ type: "ok", status }] } });
  };
  expect(ready()).toBe("False");
  for (const status of ["True", "False", "True"]) {
    say(status);
    expect(ready()).toBe(status);
  }
});
