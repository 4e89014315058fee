import { describe, expect, it } from "vitest";
import { parseArguments } from "../../../testbed/cluster/arguments.ts";

describe("the arguments of npm run cluster", () => {
  it.each([
    ["no argument keeps a cluster", [], { kind: "keep" }],
    ["--help requests help", ["--help"], { kind: "help" }],
    ["-h requests help", ["-h"], { kind: "help" }],
    ["a command is run", ["kubectl", "get", "ns"], { kind: "run", command: "kubectl", args: ["get", "ns"] }],
    [
      "flags after a command belong to it",
      ["kubectl", "--help", "-n", "x"],
      { kind: "run", command: "kubectl", args: ["--help", "-n", "x"] },
    ],
    ["dashes before a command are skipped", ["--", "true"], { kind: "run", command: "true", args: [] }],
    ["--node requests a node", ["--node"], { kind: "keep", node: true }],
    [
      "--node before a command requests a node to run it against",
      ["--node", "kubectl", "get", "--node"],
      { kind: "run", command: "kubectl", args: ["get", "--node"], node: true },
    ],
    ["an unknown flag is rejected", ["--keep"], { kind: "mistake", message: "unknown flag --keep" }],
    ["a flag before a command is rejected", ["-n", "kubectl"], { kind: "mistake", message: "unknown flag -n" }],
    ["an empty command is rejected", [""], { kind: "mistake", message: "the command is empty" }],
  ])("%s", (_name, argv, expected) => {
    expect(parseArguments(argv)).toEqual(expected);
  });
});
