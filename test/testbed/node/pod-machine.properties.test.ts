import fc from "fast-check";
import { expect, test } from "vitest";
import type { FateInput } from "../../../testbed/node/fate.ts";
import type { ContainerRuntime, LiveContainer, StartRequest } from "../../../testbed/node/runtime.ts";
import { ScriptedRuntime } from "../../../testbed/node/scripted-runtime.ts";
import { CI_SEED } from "../../support/ci-seed.ts";
import { boundPod, PodBench } from "./pod-bench.ts";

/** Longer than all graces, back-offs, and deadlines of these runs together. */
const LONG_MS = 3_600_000;

const onTerm = fc.oneof(
  fc.constant("ignore" as const),
  fc.record({ code: fc.constantFrom(0, 143), afterMs: fc.nat(20_000) }),
);
const fate: fc.Arbitrary<FateInput> = fc.oneof(
  fc.record({ kind: fc.constant("run" as const), onTerm }),
  fc.record({ kind: fc.constant("exit" as const), code: fc.constantFrom(0, 1), afterMs: fc.nat(30_000), onTerm }),
  fc.record({ kind: fc.constant("oom" as const), afterMs: fc.nat(30_000) }),
  fc.record({ kind: fc.constant("evicted" as const), afterMs: fc.nat(30_000), onTerm }),
  fc.record({ kind: fc.constant("start-error" as const) }),
  fc.record({ kind: fc.constant("pull-error" as const), times: fc.constantFrom(1, 2) }),
);

const step = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ do: fc.constant("advance" as const), ms: fc.oneof(fc.nat(50), fc.nat(20_000)) }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("touch" as const) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("key" as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("delete" as const), grace: fc.nat(40) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("remove" as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant("kill" as const), name: fc.constantFrom("c", "other", "proxy") }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("evict" as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant("deadline" as const), seconds: fc.integer({ min: 1, max: 60 }) }),
  },
);

const DONE = { kind: "exit" as const, code: 0, afterMs: 0, onTerm: "ignore" as const };

const life = fc.record({
  gated: fc.boolean(),
  other: fc.boolean(),
  proxy: fc.boolean(),
  prep: fc.boolean(),
  restartPolicy: fc.constantFrom("Never", "Never", "OnFailure", "Always"),
  fates: fc.record({ c: fate, other: fate, proxy: fate }),
  steps: fc.array(step, { maxLength: 14 }),
});

/** Counts running containers, and records which were started and when. */
class WatchedRuntime implements ContainerRuntime {
  readonly started: string[] = [];
  running = 0;
  readonly #inner: ScriptedRuntime;
  readonly #onStart: (name: string) => void;

  constructor(inner: ScriptedRuntime, onStart: (name: string) => void) {
    this.#inner = inner;
    this.#onStart = onStart;
  }

  start(request: StartRequest): LiveContainer {
    const live = this.#inner.start({
      ...request,
      onExit: (exit) => {
        this.running -= 1;
        request.onExit(exit);
      },
    });
    this.running += 1;
    this.started.push(request.container.name);
    this.#onStart(request.container.name);
    return live;
  }
}

test("the status of a Pod is always true, whatever happens to the Pod and in whatever order", async () => {
  await fc.assert(
    fc.asyncProperty(life, async ({ gated, other, proxy, prep, restartPolicy, fates, steps }) => {
      const gate = { env: [{ name: "GO", valueFrom: { secretKeyRef: { name: "work-1", key: "go" } } }] };
      const initContainers = [
        ...(prep ? [{ name: "prep" }] : []),
        ...(proxy ? [{ name: "proxy", restartPolicy: "Always" }] : []),
      ];
      const pod = boundPod({
        containers: [gated ? gate : {}, ...(other ? [{ name: "other" }] : [])],
        ...(initContainers.length > 0 ? { initContainers } : {}),
        spec: { restartPolicy },
      });
      const bench = new PodBench(pod, fates);
      const lies: string[] = [];
      let leaving = false;
      const watched = new WatchedRuntime(new ScriptedRuntime(bench.clock), (name) => {
        if (leaving) lies.push(`${name} started after the Pod was deleted`);
        if (name === "c" && gated && !bench.secrets.has("work-1")) lies.push("started without its key");
      });
      bench.runtime = watched;
      let terminal: string | undefined;
      const report = bench.report;
      bench.report = (of, status) => {
        report(of, status);
        const { phase = "" } = status;
        if (terminal !== undefined && phase !== terminal) lies.push(`${terminal} became ${phase}`);
        if (phase !== "Succeeded" && phase !== "Failed") return;
        terminal = phase;
        if (watched.running > 0) lies.push(`${phase} with ${watched.running} containers running`);
      };
      const finalize = bench.finalize;
      bench.finalize = () => {
        if (watched.running > 0) lies.push("removed with containers running");
        finalize();
      };

      for (const at of steps) {
        if (at.do === "advance") await bench.clock.advance(at.ms);
        else if (at.do === "touch") bench.annotate({ touched: String(bench.clock.now()) });
        else if (at.do === "key") bench.setSecret("work-1", { go: "x" });
        else if (at.do === "kill") bench.machine.kill(at.name, "SIGKILL");
        else if (at.do === "evict") bench.machine.evict({ reason: "Evicted", message: "" });
        else if (at.do === "deadline") {
          const { pod: now } = bench.machine;
          bench.machine.update({ ...now, spec: { ...now.spec, activeDeadlineSeconds: at.seconds } });
        } else {
          leaving = true;
          if (at.do === "delete") bench.deletePod(at.grace);
          else bench.machine.remove(bench.machine.pod);
        }
      }
      await bench.clock.advance(LONG_MS);

      expect(lies).toEqual([]);
      expect(bench.events.filter((event) => event === "finalized").length).toBeLessThanOrEqual(1);
      if (leaving) {
        expect(watched.running).toBe(0);
        expect(bench.events).not.toEqual([]);
      }
      if (terminal !== undefined) expect(watched.running).toBe(0);
      // A Pod whose programs all end must end.
      const stuck = proxy && fates.proxy.kind === "start-error";
      const ends = !stuck && ["exit", "oom", "evicted", "start-error"].includes(fates.c.kind);
      if (restartPolicy === "Never" && ends && !gated && !other && !leaving) expect(terminal).toBeDefined();
    }),
    {
      numRuns: 150,
      ...CI_SEED,
      // The Pod is deleted while its container, which ended successfully, is about to be restarted.
      examples: [
        [
          {
            ...{ gated: false, other: false, proxy: false, prep: false, restartPolicy: "Always" },
            fates: { c: DONE, other: DONE, proxy: DONE },
            steps: [
              { do: "advance", ms: 2_182 },
              { do: "delete", grace: 0 },
            ],
          },
        ],
      ],
    },
  );
}, 60_000);
