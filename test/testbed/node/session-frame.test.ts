import { describe, expect, test } from "vitest";
import { programFrame, shellFrame, waitingCommand, waitingScript } from "../../../src/pods/frame.ts";
import { FrameError, isStartedByShell, parkingOf, readFrame } from "../../../testbed/node/session-frame.ts";
import { boundPod, type PodShape } from "./pod-bench.ts";

const line = (frame: string | null) => frame?.slice(1, -1) ?? "";
const framed = (body: string) => `berth1 ${body.length} ${body} #end`;

describe("the operator's frames", () => {
  test.each([
    { A: "1" },
    { A: "", B_2: "it's '' quoted \\ $(x) `y` \"z\"", _c: "#end" },
    { ANTHROPIC_WORK_SECRET: "s'".repeat(100) },
  ])("give their variables to a shell and to a program: %j", (variables) => {
    expect(readFrame(line(shellFrame(variables)), "Shell")).toEqual(variables);
    expect(readFrame(line(programFrame(variables)), "Program")).toEqual(variables);
  });

  test("give a program other characters", () => {
    expect(readFrame(line(programFrame({ A: "é\n" })), "Program")).toEqual({ A: "é\n" });
  });
});

test.each([
  "",
  "junk",
  "berth1",
  "berth1 5 export A='1' #end",
  "berth1 012 export A='1' #end",
  "berth1 12 export A='1'",
  "12 export A='1' #end",
  " berth1 12 export A='1' #end",
  "berth2 12 export A='1' #end",
])("a waiting shell skips the line %j", (text) => {
  expect(readFrame(text, "Shell")).toBeUndefined();
  expect(readFrame(text, "Program")).toBeUndefined();
});

describe("a body that must never be sent", () => {
  test.each([
    "",
    "A='1'",
    "export",
    "export A=1",
    "export A='1'; rm -rf /",
    "export A='1' B",
    "export A='1'  B='2'",
    "export 1A='1'",
    "export A='it's'",
    "export A='1' A='2'",
    `export A='${"x".repeat(4_096)}'`,
    "export A='é'",
    "( umask 377; printf %s 's' > '/f' ) && export A='1'",
  ])("to a shell: %j", (body) => {
    expect(() => readFrame(framed(body), "Shell")).toThrow(FrameError);
  });

  test.each(["", "{", "[]", "null", '"A"', '{"A":1}', '{"A":"é"}'])("to a program: %j", (body) => {
    expect(() => readFrame(framed(body), "Program")).toThrow(FrameError);
  });
});

test("a shell starts every turn, and what waits in Berth's shell", () => {
  const isByShell = (name: string, command: string[]) => isStartedByShell({ name, command });
  expect(isByShell("berth-turn-1", ["/bin/sh", "-c", "", "berth-program", "x"])).toBe(true);
  expect(isByShell("worker", waitingCommand(["x"]))).toBe(true);
  expect(isByShell("worker", ["x"])).toBe(false);
});

describe("a container waits for a session", () => {
  const parking = (shape: PodShape) => {
    const pod = boundPod(shape);
    return pod.spec.containers.map((container) => parkingOf(pod, container));
  };
  const program = { annotations: { "berth.dev/parking": "Program" } };

  test("with standard input, in Berth's shell or as a session's program", () => {
    expect(parking({ containers: [{ command: waitingCommand(["x"]), stdin: true }] })).toEqual(["Shell"]);
    const containers = [{ stdin: true }, { name: "d", stdin: true }];
    expect(parking({ containers, ...program })).toEqual(["Program", undefined]);
    // A turn's program reads the line itself, also if a shell starts it.
    const turns = [
      { name: "berth-turn-1", stdin: true },
      { name: "berth-turn-2", command: waitingCommand(["x"], waitingScript("line")), stdin: true },
    ];
    expect(parking({ containers: turns, ...program })).toEqual(["Program", "Program"]);
  });

  test("and in no other case", () => {
    expect(parking({ containers: [{ command: waitingCommand(["x"]) }, { stdin: true }] })).toEqual([
      undefined,
      undefined,
    ]);
    expect(parking({ ...program })).toEqual([undefined]);
  });
});
