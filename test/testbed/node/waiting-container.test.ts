import { describe, expect, test } from "vitest";
import type { Container } from "../../../src/kube/objects.ts";
import { programFrame, shellFrame, waitingCommand } from "../../../src/pods/frame.ts";
import type { FateInput } from "../../../testbed/node/fate.ts";
import { ScriptedRuntime } from "../../../testbed/node/scripted-runtime.ts";
import { ScriptedWorkers } from "../../../testbed/node/scripted-worker.ts";
import type { WorkerApi, WorkIdentity } from "../../../testbed/node/work-calls.ts";
import { boundPod, PodBench, type PodShape } from "./pod-bench.ts";

const SECRET = Buffer.from('{"sessions_token":"t"}').toString("base64url");
const VARIABLES = { ANTHROPIC_SESSION_ID: "session-1", ANTHROPIC_WORK_ID: "work-1", ANTHROPIC_WORK_SECRET: SECRET };
const SHELL: Partial<Container> = { stdin: true, command: waitingCommand(["node", "worker.mjs"]) };

/** A Pod whose container waits, with a client attached to it. */
class WaitingBench extends PodBench {
  output = "";
  readonly identities: WorkIdentity[] = [];

  constructor(fates: Record<string, FateInput> = {}, shape: PodShape = { containers: [SHELL] }) {
    super(boundPod(shape), fates);
    const answer = async (who: WorkIdentity) => {
      this.identities.push(who);
      return { status: 401, body: {} };
    };
    const api: WorkerApi = { heartbeat: answer, session: answer, stop: answer, close: async () => {} };
    this.runtime = new ScriptedRuntime(this.clock, new ScriptedWorkers(this.clock, api));
  }

  static async started(...args: ConstructorParameters<typeof WaitingBench>): Promise<WaitingBench> {
    const bench = new WaitingBench(...args);
    await bench.untilState("c", "running");
    bench.streams?.follow((bytes) => {
      bench.output += bytes.toString();
    });
    return bench;
  }

  get streams() {
    return this.machine.container("c")?.streams;
  }

  send(text: string | null): void {
    this.streams?.write(Buffer.from(text ?? ""));
  }

  async end(reason: string) {
    await this.untilState("c", reason);
    return this.last.containerStatuses?.[0]?.state?.terminated;
  }

  get isReady(): boolean {
    return this.last.conditions?.find(({ type }) => type === "Ready")?.status === "True";
  }
}

const frame = (variables: Record<string, string> = VARIABLES) => shellFrame(variables);

describe("a container that waits in Berth's shell", () => {
  test("is running and ready, and its fate doesn't begin", async () => {
    const bench = await WaitingBench.started({ c: { kind: "exit", code: 3, afterMs: 10 } });
    await bench.clock.advance(600_000);
    expect([bench.stateOf("c"), bench.last.phase, bench.isReady]).toEqual(["running", "Running", true]);
    expect(bench.output).toBe("");
  });

  test("prints the marker for its frame, and then begins its fate", async () => {
    const bench = await WaitingBench.started({ c: { kind: "exit", code: 3, startDelayMs: 5_000, afterMs: 2_000 } });
    bench.send(frame());
    expect(bench.output).toBe("berth1 started\n");
    await bench.clock.advance(6_900);
    expect(bench.machine.container("c")?.isRunning).toBe(true);
    await bench.clock.advance(100);
    expect(bench.machine.container("c")?.isRunning).toBe(false);
    expect(await bench.end("Error")).toMatchObject({ exitCode: 3 });
    expect(String(await bench.streams?.log())).toBe("berth1 started\n");
  });

  test("takes the fate that is chosen when its frame arrives", async () => {
    const bench = await WaitingBench.started();
    bench.annotate({ "testbed.berth.dev/fate": '{"kind": "oom", "afterMs": 50}' });
    bench.send(frame());
    expect(await bench.end("OOMKilled")).toMatchObject({ exitCode: 137 });
  });

  test("skips junk and half lines, and reads a frame in pieces", async () => {
    const bench = await WaitingBench.started({ c: { kind: "run" } });
    const text = frame() ?? "";
    bench.send(`\n\njunk\n${text.slice(0, 40)}`);
    bench.send("berth1 3 cut #end\n");
    expect(bench.output).toBe("");
    bench.send(text.slice(0, 30));
    bench.send(text.slice(30));
    expect(bench.output).toBe("berth1 started\n");
  });

  test("starts once, however often its frame arrives, and another session's is a fault", async () => {
    const bench = await WaitingBench.started({ c: { kind: "run" } });
    bench.faults = [];
    for (let times = 0; times < 3; times += 1) bench.send(frame());
    expect([bench.output, bench.faults]).toEqual(["berth1 started\n", []]);
    bench.send(frame({ ...VARIABLES, ANTHROPIC_SESSION_ID: "session-2" }));
    expect(bench.output).toBe("berth1 started\n");
    expect(bench.faults).toEqual(["Error: a second session was sent to a container"]);
  });

  test.each([
    ["SIGTERM", 143],
    ["SIGKILL", 137],
  ])("ends with %s", async (signal, exitCode) => {
    const bench = await WaitingBench.started();
    if (signal === "SIGTERM") bench.deletePod();
    else bench.machine.kill("c", "SIGKILL");
    expect(await bench.end("Error")).toMatchObject({ exitCode });
  });

  test("ends with 75 for a wrong frame, and its log doesn't repeat it", async () => {
    const policy = { terminationMessagePolicy: "FallbackToLogsOnError" };
    const bench = await WaitingBench.started({}, { containers: [{ ...SHELL, ...policy }] });
    bench.faults = [];
    bench.send("berth1 11 rm 'secret' #end\n");
    const message = "the frame is not a list of exports\n";
    expect(await bench.end("Error")).toMatchObject({ exitCode: 75, message });
    expect(String(await bench.streams?.log())).toBe(message);
    expect(bench.faults).toEqual(["Error: the frame is not a list of exports"]);
  });

  test("ends with 75 when its standard input is closed", async () => {
    const bench = await WaitingBench.started();
    bench.streams?.closeInput();
    expect(await bench.end("Error")).toMatchObject({ exitCode: 75 });
  });

  test("ends with 127 at once if its program is missing, and the log says so", async () => {
    const bench = new WaitingBench({ c: { kind: "start-error" } });
    expect(await bench.end("Error")).toMatchObject({ exitCode: 127 });
    expect(String(await bench.streams?.log())).toBe("node: not found in the image, or not executable\n");
  });
});

describe("a worker that gets a frame", () => {
  const worker = { c: { kind: "worker", firstBeatMs: 0 } } as const;
  const env = [
    { name: "ANTHROPIC_BASE_URL", value: "http://127.0.0.1:1" },
    { name: "ANTHROPIC_ENVIRONMENT_ID", value: "env-1" },
  ];
  const identity = {
    ...{ baseUrl: "http://127.0.0.1:1", environmentId: "env-1" },
    ...{ workId: "work-1", sessionId: "session-1", credential: "t" },
  };

  test("has its variables beside those of the Pod", async () => {
    const bench = await WaitingBench.started(worker, { containers: [{ ...SHELL, env }] });
    bench.send(frame());
    await bench.untilPhase("Succeeded");
    expect(bench.identities[0]).toEqual(identity);
  });

  test("reads it itself with parking: Program", async () => {
    const shape = { containers: [{ stdin: true, env }], annotations: { "berth.dev/parking": "Program" } };
    const bench = await WaitingBench.started(worker, shape);
    bench.faults = [];
    bench.send(frame());
    expect(bench.output).toBe("");
    expect(await bench.end("Error")).toMatchObject({ exitCode: 75 });
    const second = await WaitingBench.started(worker, shape);
    second.send(programFrame(VARIABLES));
    expect(second.output).toBe("berth1 started\n");
    await second.untilPhase("Succeeded");
    expect(second.identities[0]).toEqual(identity);
    const missing = new WaitingBench({ c: { kind: "start-error" } }, shape);
    expect(await missing.end("StartError")).toMatchObject({ exitCode: 128 });
    const turn = { containers: [{ ...SHELL, env }], annotations: { "berth.dev/parking": "Program" } };
    const inShell = new WaitingBench({ c: { kind: "start-error" } }, turn);
    expect(await inShell.end("Error")).toMatchObject({ exitCode: 127 });
  });
});
