import { describe, expect, test } from "vitest";
import { figuresOf, type Outcome, problemsOf, summaryLines } from "../../demo/summary.ts";
import { trackAt } from "./tracks.ts";

const outcome = (more: Partial<Outcome>): Outcome => ({
  tracks: [trackAt(1, "stopped")],
  elapsedMs: 60_000,
  violations: [],
  leftovers: new Set(),
  looked: true,
  failures: [],
  apiRequests: new Map([["patch pods", 4]]),
  workRequests: new Map([["poll", 30]]),
  interrupted: false,
  log: undefined,
  ...more,
});

describe("the figures", () => {
  test("are counts and quantiles of the waits from being queued", () => {
    const tracks = Array.from({ length: 10 }, (_, index) => trackAt(index + 1, "stopped"));
    for (const [index, track] of tracks.entries()) track.at.beat = (track.at.queued ?? 0) + (index + 1) * 100;
    const figures = figuresOf(tracks);
    expect(figures).toMatchObject({ arrived: 10, served: 10, toolCalls: 20, failedToolCalls: 0 });
    const beat = figures.waits.find(({ name }) => name === "first beat")?.distribution;
    expect(beat).toEqual({ count: 10, mean: 0.55, p50: 0.5, p90: 0.9, p99: 1, max: 1 });
  });

  test("count a session only as far as it came", () => {
    const figures = figuresOf([trackAt(1, "stopped"), trackAt(2, "claimed"), trackAt(3, "queued")]);
    expect(figures).toMatchObject({ arrived: 3, served: 1 });
    expect(figures.waits.map(({ distribution }) => distribution?.count)).toEqual([2, 1, 1, 1, 1]);
  });

  test("of nothing are zero, not NaN", () => {
    const figures = figuresOf([]);
    expect(figures).toMatchObject({ arrived: 0, served: 0, toolCalls: 0 });
    expect(figures.waits.every(({ distribution }) => distribution === undefined)).toBe(true);
    expect(summaryLines(outcome({ tracks: [] })).join("\n")).not.toMatch(/NaN|undefined|Infinity/);
  });
});

describe("the problems", () => {
  test("are none when every session was served and nothing was left", () => {
    expect(problemsOf(outcome({}))).toEqual([]);
  });

  test.each<[string, Partial<Outcome>, string]>([
    [
      "a session that ended badly",
      { tracks: [trackAt(1, "stopped", { endedByWorker: false })] },
      "session 1 (work_1): ended by somebody else than its worker",
    ],
    [
      "a session in the middle",
      { tracks: [trackAt(1, "beat")] },
      "session 1 (work_1): claimed, and its work item did not end",
    ],
    ["a session in the queue", { tracks: [trackAt(1, "queued")] }, "session 1 (work_1): never claimed"],
    [
      "a claimed session at an interruption",
      { tracks: [trackAt(1, "claimed")], interrupted: true },
      "session 1 (work_1): claimed, and its work item did not end",
    ],
    ["no session at all", { tracks: [] }, "no session arrived"],
    ["a violation", { violations: ["two-holders (work_1): twice"] }, "protocol violation: two-holders (work_1): twice"],
    ["a leftover", { leftovers: new Set(["claim Secret berth-demo-x"]) }, "left over: claim Secret berth-demo-x"],
    ["a failure", { failures: ["the operator ended by itself"] }, "the operator ended by itself"],
  ])("name %s", (_name, more, problem) => {
    expect(problemsOf(outcome(more))).toEqual([problem]);
  });

  test("do not name what stayed in the queue when a person ended it", () => {
    const interrupted = { tracks: [trackAt(1, "stopped"), trackAt(2, "queued")], interrupted: true };
    expect(problemsOf(outcome(interrupted))).toEqual([]);
    expect(summaryLines(outcome(interrupted))[0]).toContain(
      "Served 1 of 2 sessions in 60.0s, with 2 tool calls; 1 stayed in the queue.",
    );
    expect(problemsOf(outcome({ tracks: [], interrupted: true }))).toEqual([]);
  });
});

describe("the summary", () => {
  test("shows figures, latencies and requests", () => {
    const tracks = [trackAt(1, "stopped"), trackAt(2, "stopped")];
    const apiRequests = new Map([
      ["get pods", 1],
      ["patch pods", 6],
    ]);
    expect(summaryLines(outcome({ tracks, apiRequests }))).toEqual([
      "Served 2 of 2 sessions in 60.0s, with 4 tool calls.",
      "",
      "From queued to         p50     p90     p99     max",
      "  acknowledged       0.02s   0.02s   0.02s   0.02s",
      "  Pod opened         0.11s   0.11s   0.11s   0.11s",
      "  container started  0.23s   0.23s   0.23s   0.23s",
      "  first beat         0.81s   0.81s   0.81s   0.81s",
      "  stopped            4.10s   4.10s   4.10s   4.10s",
      "",
      "Requests of the operator, idle ones included:",
      "  to the API server   7, 3.5 a session (patch pods 6, get pods 1)",
      "  to the Work API     30, 15.0 a session (poll 30)",
      "Protocol violations   none",
      "Left over             nothing",
    ]);
  });

  test("lists what is wrong, where the log is, and not a thousand lines", () => {
    const leftovers = new Set(Array.from({ length: 100 }, (_, index) => `Pod p${index}`));
    const lines = summaryLines(outcome({ leftovers, log: "/somewhere/operator.log" }));
    expect(lines).toContain("Not as it should be:");
    expect(lines).toContain("  - left over: Pod p0");
    expect(lines).toContain("  - and 80 more");
    expect(lines.at(-1)).toBe("The operator's log is in /somewhere/operator.log");
  });

  test("does not say that nothing is left when nobody looked", () => {
    expect(summaryLines(outcome({ looked: false })).join("\n")).toMatch(/Left over +not looked for/);
  });

  test("says when nobody counted the requests, and counts failed tool calls", () => {
    const track = trackAt(1, "stopped");
    for (const tool of track.tools) tool.failed = true;
    const text = summaryLines(outcome({ tracks: [track], apiRequests: undefined })).join("\n");
    expect(text).toMatch(/to the API server +not counted/);
    expect(text).toContain("2 tool calls, 2 of them failed");
  });
});
