import { describe, expect, it } from "vitest";
import { parseArguments } from "../../../testbed/cluster/arguments.ts";

describe("the arguments of npm run cluster", () => {
  it.each([
    ["no argument keeps a cluster", [], { kind: "keep" }],
    ["--help asks for help", ["--help"], { kind: "help" }],
    ["-h asks for help", ["-h"], { kind: "help" }],
    ["a command is run", ["kubectl", "get", "ns"], { kind: "run", command: "kubectl", args: ["get", "ns"] }],
    [
      "flags behind a command belong to it",
      ["kubectl", "--help", "-n", "x"],
      { kind: "run", command: "kubectl", args: ["--help", "-n", "x"] },
    ],
    ["dashes in front of a command are skipped", ["--", "true"], { kind: "run", command: "true", args: [] }],
    ["--node asks for a node", ["--node"], { kind: "keep", node: true }],
    [
      "--node in front of a command asks for a node to run it against",
      ["--node", "kubectl", "get", "--node"],
      { kind: "run", command: "kubectl", args: ["get", "--node"], node: true },
    ],
    ["an unknown flag is a mistake", ["--keep"], { kind: "mistake", message: "unknown flag --keep" }],
    ["a flag in front of a command is a mistake", ["-n", "kubectl"], { kind: "mistake", message: "unknown flag -n" }],
    ["an empty command is a mistake", [""], { kind: "mistake", message: "the command is empty" }],
  ])("%s", (_name, argv, expected) => {
    expect(parseArguments(argv)).toEqual(expected);
  });
});
