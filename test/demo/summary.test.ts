import { describe, expect, test } from "vitest";
import { type EnvironmentOutcome, figuresOf, type Outcome, problemsOf, summaryLines } from "../../demo/summary.ts";
import type { Track } from "../../demo/track.ts";
import { backAt, trackAt } from "./tracks.ts";

const research = (...tracks: Track[]): EnvironmentOutcome => ({
  name: "research",
  mode: "sessions",
  tracks,
  mostWorkers: undefined,
});
const batch = (...tracks: Track[]): EnvironmentOutcome => ({ name: "batch", mode: "workers", tracks, mostWorkers: 3 });

const first = trackAt(1, "stopped");

const outcome = (more: Partial<Outcome>): Outcome => ({
  environments: [research(trackAt(1, "stopped"))],
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
  test("are counts and quantiles of the waits since queued", () => {
    const tracks = Array.from({ length: 10 }, (_, index) => trackAt(index + 1, "stopped"));
    for (const [index, track] of tracks.entries()) track.at.heartbeat = (track.at.queued ?? 0) + (index + 1) * 100;
    const figures = figuresOf(tracks, "sessions");
    expect(figures).toMatchObject({ arrived: 10, served: 10 });
    const beat = figures.waits.find(({ name }) => name === "first heartbeat")?.distribution;
    expect(beat).toEqual({ count: 10, mean: 0.55, p50: 0.5, p90: 0.9, p99: 1, max: 1 });
  });

  test("count only the steps that a session has reached", () => {
    const figures = figuresOf([trackAt(1, "stopped"), trackAt(2, "claimed"), trackAt(3, "queued")], "sessions");
    expect(figures).toMatchObject({ arrived: 3, served: 1 });
    expect(figures.waits.map(({ distribution }) => distribution?.count)).toEqual([2, 1, 1, 1, 1]);
  });

  test("are zero without sessions, not NaN", () => {
    const figures = figuresOf([], "sessions");
    expect(figures).toMatchObject({ arrived: 0, served: 0 });
    expect(figures.waits.every(({ distribution }) => distribution === undefined)).toBe(true);
    expect(summaryLines(outcome({ environments: [research(), batch()] })).join("\n")).not.toMatch(
      /NaN|undefined|Infinity/,
    );
  });
});

describe("the problems", () => {
  test("are empty if every session was served and nothing is left", () => {
    expect(problemsOf(outcome({}))).toEqual([]);
  });

  test.each<[string, Partial<Outcome>, string]>([
    [
      "a session that ended badly",
      { environments: [research(trackAt(1, "stopped", { endedByWorker: false }))] },
      "research 1 (work_1): ended by a client other than its worker",
    ],
    [
      "a session in the middle",
      { environments: [research(trackAt(1, "heartbeat"))] },
      "research 1 (work_1): claimed, but its work item did not end",
    ],
    [
      "a session in the queue",
      { environments: [research(trackAt(1, "queued"))] },
      "research 1 (work_1): never claimed",
    ],
    [
      "a claimed session at an interruption",
      { environments: [research(trackAt(1, "claimed"))], interrupted: true },
      "research 1 (work_1): claimed, but its work item did not end",
    ],
    [
      "a session that did not find its file",
      { environments: [research(first, backAt(first, "stopped", { finds: "three" }))] },
      "research 1 (work_1b): did not find its file in its Pod, but found: two",
    ],
    ["an Environment without a session", { environments: [research()] }, "no session arrived in research"],
    ["a violation", { violations: ["two-holders (work_1): twice"] }, "protocol violation: two-holders (work_1): twice"],
    ["a leftover", { leftovers: new Set(["claim Secret berth-demo-x"]) }, "left over: claim Secret berth-demo-x"],
    ["a failure", { failures: ["the operator ended unexpectedly"] }, "the operator ended unexpectedly"],
  ])("include %s", (_name, more, problem) => {
    expect(problemsOf(outcome(more))).toEqual([problem]);
  });

  test("exclude unclaimed sessions if a person ended the demo", () => {
    const interrupted = {
      environments: [research(trackAt(1, "stopped"), trackAt(2, "queued"))],
      interrupted: true,
    };
    expect(problemsOf(outcome(interrupted))).toEqual([]);
    expect(summaryLines(outcome(interrupted))[0]).toContain(
      "Served 1 of 2 work items of 2 sessions in 60.0s, with 2 tool calls; 1 stayed in the queue.",
    );
    expect(problemsOf(outcome({ environments: [research()], interrupted: true }))).toEqual([]);
  });
});

describe("the summary", () => {
  test("shows figures and latencies of each Environment, and the requests of all", () => {
    const always = (number: number) => trackAt(number, "stopped", { mode: "workers" });
    const environments = [research(trackAt(1, "stopped"), trackAt(2, "stopped")), batch(always(1))];
    const apiRequests = new Map([
      ["get pods", 1],
      ["patch pods", 6],
    ]);
    expect(summaryLines(outcome({ environments, apiRequests }))).toEqual([
      "Served 3 of 3 work items of 3 sessions in 60.0s, with 6 tool calls.",
      "",
      "research: 2 of 2 served, a Pod for each session",
      "  from queued to           p50     p90     p99     max",
      "    acknowledged         0.02s   0.02s   0.02s   0.02s",
      "    Pod opened           0.11s   0.11s   0.11s   0.11s",
      "    session started      0.23s   0.23s   0.23s   0.23s",
      "    first heartbeat      0.81s   0.81s   0.81s   0.81s",
      "    stopped              4.10s   4.10s   4.10s   4.10s",
      "",
      "batch: 1 of 1 served, by at most 3 workers",
      "  from queued to           p50     p90     p99     max",
      "    acknowledged         0.02s   0.02s   0.02s   0.02s",
      "    first heartbeat      0.81s   0.81s   0.81s   0.81s",
      "    stopped              4.10s   4.10s   4.10s   4.10s",
      "",
      "The operator's requests, including those while idle:",
      "  to the API server   7, 2.3 per work item (patch pods 6, get pods 1)",
      "  to the Work API     30, 10.0 per work item (poll 30)",
      "Protocol violations   none",
      "Left over             nothing",
    ]);
  });

  test("says how many sessions that came back were woken in their own Pod, and found their file", () => {
    const linesOf = (...tracks: Track[]) => summaryLines(outcome({ environments: [research(first, ...tracks)] }));
    const other = trackAt(2, "stopped");
    const elsewhere = backAt(other, "stopped", { pod: "berth-demo-other" });
    const some = linesOf(backAt(first, "stopped"), other, elsewhere);
    expect(some[0]).toBe("Served 4 of 4 work items of 2 sessions in 60.0s, with 8 tool calls.");
    expect(some).toContain("  woken in their own Pod: 1 of 2, own files found: 1 of 2");
    expect(linesOf(backAt(first, "stopped", { finds: undefined }))).toContain("  woken in their own Pod: 1 of 1");
    expect(linesOf().join("\n")).not.toContain("woken");
  });

  test("lists problems up to a limit, and where the log is", () => {
    const leftovers = new Set(Array.from({ length: 100 }, (_, index) => `Pod p${index}`));
    const lines = summaryLines(outcome({ leftovers, log: "/somewhere/operator.log" }));
    expect(lines).toContain("Problems:");
    expect(lines).toContain("  - left over: Pod p0");
    expect(lines).toContain("  - and 80 more");
    expect(lines.at(-1)).toBe("The operator's log is in /somewhere/operator.log");
  });

  test("does not say that nothing is left if no search took place", () => {
    expect(summaryLines(outcome({ looked: false })).join("\n")).toMatch(/Left over +not checked/);
  });

  test("says that requests were not counted, and counts failed tool calls", () => {
    const track = trackAt(1, "stopped");
    for (const tool of track.tools) tool.failed = true;
    const text = summaryLines(outcome({ environments: [research(track)], apiRequests: undefined })).join("\n");
    expect(text).toMatch(/to the API server +not counted/);
    expect(text).toContain("2 tool calls, 2 of them failed");
  });
});
