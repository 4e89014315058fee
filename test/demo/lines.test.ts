import { describe, expect, test } from "vitest";
import type { BoardEvent } from "../../demo/board.ts";
import { eventLine } from "../../demo/lines.ts";
import { STEPS, type Step, stepsOf, type Track } from "../../demo/track.ts";
import { backAt, START, trackAt } from "./tracks.ts";

describe("plain lines", () => {
  test("show each step of a session, with the times since the start and since it was queued", () => {
    const track = trackAt(3, "stopped");
    const events = STEPS.map((step): BoardEvent => ({ type: "step", track, step, at: track.at[step] ?? 0 }));
    expect(events.map((event) => eventLine(event, START))).toEqual([
      "    3.0s  research 3: queued: Add up the numbers from 1 to 1000.",
      "    3.0s  research 3: claimed after 0.02s",
      "    3.1s  research 3: opened in Pod berth-demo-pod3xyz after 0.11s",
      "    3.2s  research 3: session started after 0.23s",
      "    3.8s  research 3: first heartbeat after 0.81s",
      "    7.1s  research 3: served, stopped after 4.10s",
    ]);
  });

  test("show which always-on worker claimed a session, and no opened Pods", () => {
    const track = trackAt(2, "stopped", { mode: "workers" });
    const events = stepsOf("workers").map((step): BoardEvent => ({ type: "step", track, step, at: START }));
    expect(events.map((event) => eventLine(event, START)?.trim())).toEqual([
      "0.0s  batch 2: queued: Add up the numbers from 1 to 1000.",
      "0.0s  batch 2: claimed by worker berth-demo-pod2xyz after 0.02s",
      "0.0s  batch 2: first heartbeat after 0.81s",
      "0.0s  batch 2: served, stopped after 4.10s",
    ]);
  });

  test("show a session that sleeps, and that it comes back and is woken in the same Pod, or opened in another one", () => {
    const first = trackAt(4, "stopped");
    const line = (track: Track, event: object) =>
      eventLine({ track, at: START, ...event } as BoardEvent, START)?.trim();
    expect(line(first, { type: "asleep" })).toBe("0.0s  research 4: sleeps in Pod berth-demo-pod4xyz");
    const [back, other] = [backAt(first, "opened"), backAt(first, "opened", { pod: "berth-demo-other" })];
    const step = (track: Track, name: Step) => line(track, { type: "step", step: name });
    expect(step(back, "queued")).toBe("0.0s  research 4: comes back: Add up the numbers from 1 to 1000.");
    expect(step(back, "opened")).toBe("0.0s  research 4: woken in Pod berth-demo-pod4xyz after 0.11s");
    expect(step(other, "opened")).toBe("0.0s  research 4: opened in Pod berth-demo-other after 0.11s");
  });

  test("show tool calls, deleted Pods, trouble and notices", () => {
    const track = trackAt(1, "stopped");
    const at = START + 65_432;
    const tool = (failed: boolean) => ({ id: "a", what: "$ ls x", result: "no such file", failed });
    const line = (event: object) => eventLine({ ...event, at } as BoardEvent, START);
    expect(line({ type: "tool", track, tool: tool(false) })).toBe("   65.4s  research 1: $ ls x -> no such file");
    expect(line({ type: "tool", track, tool: tool(true) })).toBe(
      "   65.4s  research 1: $ ls x -> failed: no such file",
    );
    expect(line({ type: "pod-gone", track })).toBe("   65.4s  research 1: Pod berth-demo-pod1xyz was deleted");
    expect(line({ type: "trouble", track, text: "a heartbeat was refused" })).toBe(
      "   65.4s  research 1: a heartbeat was refused",
    );
    expect(line({ type: "notice", text: "hear" })).toBe("   65.4s  hear");
    expect(line({ type: "notice", text: "hear", environment: "batch" })).toBe("   65.4s  batch: hear");
  });

  test("emphasize a session that was not served", () => {
    const track = trackAt(1, "stopped", { trouble: "was queued again" });
    const event: BoardEvent = { type: "step", track, step: "stopped", at: track.at.stopped ?? 0 };
    expect(eventLine(event, START)).toContain("NOT served after 4.10s: was queued again");
  });
});
