import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { renderTurn } from "../../src/pods/turns.ts";
import { keeperPod } from "../support/keeper-pods.ts";

/** The exit code of a shell that waited for its line when its input was closed. */
const WAITED = 75;

const PATH_IN_POD = "/var/run/berth.dev";

/** Starts the shell of a turn on a node whose Pod has this annotation, with closed input. Returns its exit code. */
function startTurn(turn: number, ended: string | undefined): number | null {
  const dir = mkdtempSync(join(tmpdir(), "berth-turn-"));
  onTestFinished(() => rmSync(dir, { recursive: true }));
  if (ended !== undefined) writeFileSync(join(dir, "ended-turn"), ended);
  const pod = keeperPod({ name: "pod", namespace: "agents", container: { command: ["sh"] } });
  const [program = "", ...args] = renderTurn(pod, turn).command ?? [];
  const there = args.map((arg) => arg.replaceAll(PATH_IN_POD, dir));
  const { status, stdout, stderr } = spawnSync(program, there, { input: "", encoding: "utf8" });
  expect([stdout, stderr]).toEqual(["", ""]);
  return status;
}

describe("the shell of a turn", () => {
  test("mounts the volume that says which turns have ended", () => {
    const pod = keeperPod({ name: "pod", namespace: "agents" });
    expect(renderTurn(pod, 1)["volumeMounts"]).toContainEqual(expect.objectContaining({ mountPath: PATH_IN_POD }));
    expect(JSON.stringify(pod.spec["volumes"])).toContain("metadata.annotations['berth.dev/ended-turn']");
  });

  test.each([
    [3, "3"],
    [3, "12"],
    [1, "1\n"],
  ])("ends at once when turn %i starts again after turn %j has ended on record", (turn, ended) => {
    expect(startTurn(turn, ended)).toBe(0);
  });

  test.each([
    [1, "0"],
    [12, "3"],
    [1, "nonsense"],
    [1, ""],
    [1, undefined],
  ])("of turn %i waits if %j is on record", (turn, ended) => {
    expect(startTurn(turn, ended)).toBe(WAITED);
  });
});
