import { stripVTControlCharacters } from "node:util";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { renderFrame, type Screen, share } from "../../demo/frame.ts";
import { STEPS } from "../../demo/track.ts";
import { backAt, batchOf, researchOf, sceneOf, trackAt } from "./tracks.ts";

const screen = (columns: number, rows: number, colour = false): Screen => ({ columns, rows, colour });

const LEGEND = "queued claimed opened started heartbeat stopped: ● done ○ due ◑ sleeps ✗ failed";

const ONE_OF_EACH = [
  trackAt(1, "stopped"),
  trackAt(2, "stopped", { endedByWorker: false }),
  trackAt(3, "heartbeat", { tools: [{ id: "a", what: "$ seq 3", result: undefined, failed: false }] }),
  trackAt(4, "heartbeat", { tools: [{ id: "a", what: "$ false", result: "exit 1", failed: true }] }),
  trackAt(5, "opened"),
  trackAt(6, "queued"),
];

describe("a frame", () => {
  test("shows counts, one line per session, and how to inspect it", () => {
    expect(renderFrame(sceneOf(ONE_OF_EACH), screen(120, 30))).toEqual([
      "Berth demo  0:42  serving sessions                                                           Kubernetes v1.37.2, 2 cores",
      "",
      "research   a Pod each   queue 1   warm 2   running 3   sleeping 1   ended 4   preparing 1   served 1/6",
      "   #  pod       steps   claimed   opened  started  heartbeat  tools  stopped",
      "   6            ●○○○○○                                          0/2           Add up the numbers from 1 to 1000.",
      "   5  pod5xyz   ●●●○○○    0.02s    0.11s                        0/2           Add up the numbers from 1 to 1000.",
      "   4  pod4xyz   ●●●●●○    0.02s    0.11s    0.23s      0.81s    1/2           $ false → exit 1",
      "   3  pod3xyz   ●●●●●○    0.02s    0.11s    0.23s      0.81s    0/2           $ seq 3",
      "   2  pod2xyz   ●●●●●✗    0.02s    0.11s    0.23s      0.81s    2/2    4.10s  ended by a client other than its worker",
      "   1  pod1xyz   ●●●●●●    0.02s    0.11s    0.23s      0.81s    2/2    4.10s  $ echo two → two",
      "",
      LEGEND,
      "Ctrl-C ends it cleanly; watch it at http://127.0.0.1:20001",
      "inspect it with: npm run cluster -- kubectl get benv,pods -n berth-demo",
    ]);
  });

  test("keeps the hints on every screen, in as few lines as possible", () => {
    const look = "inspect it with: npm run cluster -- kubectl get benv,pods -n berth-demo";
    const last = (columns: number, rows: number, lines: number) =>
      renderFrame(sceneOf(ONE_OF_EACH), screen(columns, rows)).slice(-lines);
    const watch = "watch it at http://127.0.0.1:20001";
    expect(last(140, 30, 2)).toEqual([LEGEND, `Ctrl-C ends it cleanly; ${watch}; ${look}`]);
    expect(last(80, 18, 3)).toEqual([LEGEND, `Ctrl-C ends it cleanly; ${watch}`, look]);
    expect(last(50, 30, 3)).toEqual(["● done ○ due ◑ sleeps ✗ failed", "Ctrl-C ends it cleanly", watch]);
    expect(last(80, 6, 1)).toEqual([`Ctrl-C ends it cleanly; ${watch}`]);
    expect(last(80, 3, 1)).toEqual([`Ctrl-C ends it cleanly; ${watch}`]);
  });

  test("colors the marks in the legend as in the table", () => {
    expect(renderFrame(sceneOf([]), screen(80, 30, true)).join("\n")).toContain("\x1b[36m◑\x1b[39m sleeps");
  });

  test("drops the less useful columns on a narrow screen, and blank lines on a low one", () => {
    expect(renderFrame(sceneOf(ONE_OF_EACH), screen(60, 12))).toEqual([
      "Berth demo  0:42  serving sessions",
      "research   queue 1   warm 2   running 3   served 1/6",
      "   #  pod       steps   tools  stopped",
      "   6            ●○○○○○    0/2           Add up the numbers ~",
      "   5  pod5xyz   ●●●○○○    0/2           Add up the numbers ~",
      "   4  pod4xyz   ●●●●●○    1/2           $ false → exit 1",
      "   3  pod3xyz   ●●●●●○    0/2           $ seq 3",
      "   2  pod2xyz   ●●●●●✗    2/2    4.10s  ended by a client o~",
      "   1  pod1xyz   ●●●●●●    2/2    4.10s  $ echo two → two",
      "Ctrl-C ends it cleanly; watch it at http://127.0.0.1:20001",
    ]);
  });

  test("keeps the session and its steps when little space is left", () => {
    expect(renderFrame(sceneOf([trackAt(12, "heartbeat")]), screen(16, 8))).toEqual([
      "Berth demo  0:4~",
      "research",
      "   #  steps",
      "  12  ●●●●●○",
      "Ctrl-C ends it ~",
    ]);
  });

  test("has no tools column if no session calls any", () => {
    const played = ONE_OF_EACH.map((track) => ({ ...track, plannedTools: 0 }));
    expect(renderFrame(sceneOf(played), screen(120, 30)).join("\n")).not.toMatch(/tools|0\/0/);
  });

  test("shows a session that came back in two rows, one below the other, with a half moon while it sleeps", () => {
    const [first, asleep] = [trackAt(1, "stopped"), trackAt(2, "stopped", { asleep: true })];
    const scene = sceneOf([first, asleep, backAt(first, "heartbeat")]);
    const rows = renderFrame(scene, screen(100, 20)).filter((line) => /^ +\d/.test(line));
    expect(rows.map((line) => line.slice(0, 24).trim())).toEqual([
      "2  pod2xyz   ●●●●●◑",
      "1  pod1xyz   ●●●●●○",
      "1  pod1xyz   ●●●●●●",
    ]);
    const later = backAt(first, "heartbeat");
    later.at.queued = (asleep.at.queued ?? 0) + 1;
    const moved = renderFrame(sceneOf([first, asleep, later]), screen(100, 20)).filter((line) => /^ +\d/.test(line));
    expect(moved.map((line) => Number(line.slice(0, 4)))).toEqual([1, 1, 2]);
    expect(renderFrame(scene, screen(100, 20, true)).join("\n")).toContain("\x1b[36m◑\x1b[39m");
  });

  test("shows live sessions rather than ended ones, the newest first", () => {
    const tracks = [
      trackAt(1, "heartbeat"),
      trackAt(2, "stopped"),
      trackAt(3, "stopped"),
      trackAt(4, "heartbeat"),
      trackAt(5, "stopped"),
    ];
    const shown = renderFrame(sceneOf(tracks), screen(80, 9)).filter((line) => /^ +\d/.test(line));
    // There is room for four: both live sessions, and the latest two that ended.
    expect(shown.map((line) => Number(line.slice(0, 4)))).toEqual([5, 4, 3, 1]);
  });

  test("shows the number of hidden sessions if even the live ones do not fit", () => {
    const tracks = Array.from({ length: 50 }, (_, index) => trackAt(index + 1, index < 5 ? "heartbeat" : "queued"));
    const lines = renderFrame(sceneOf(tracks), screen(80, 10));
    expect(lines).toHaveLength(9);
    expect(lines.slice(3, 8).map((line) => line.trim().split(/ +/)[0])).toEqual(["46", "4", "3", "2", "1"]);
    expect(lines[3]).toBe("     46 newer items are not shown");
  });

  test("shows the time left, the phase, and what Ctrl-C would do", () => {
    const first = (more: object) => renderFrame(sceneOf([], more), screen(80, 24)).join("\n");
    expect(first({ leftMs: 18_400 })).toContain("0:42  serving sessions, 0:18 left");
    expect(first({ leftMs: 0, phase: "finishing" })).toMatch(/0:42 {2}finishing the last sessions( |\n)/);
    expect(first({ phase: "finishing" })).toContain("Ctrl-C ends it at once");
    expect(first({ phase: "ended" })).not.toContain("Ctrl-C");
  });

  test("shows the newest notices, and violations in red", () => {
    const scene = sceneOf([], { notices: ["one", "two", "three", "four"], violations: 2 });
    const plain = renderFrame(scene, screen(120, 30));
    expect(plain.slice(-5, -2)).toEqual(["two", "three", "four"]);
    expect(plain[0]).toContain("serving sessions  violations 2");
    expect(renderFrame(scene, screen(120, 30, true)).join("\n")).toContain("\x1b[31m  violations 2\x1b[39m");
    expect(renderFrame(sceneOf([]), screen(120, 30)).join("\n")).not.toContain("violations");
  });

  test("shows why the Environment does not serve, as long as it does not", () => {
    const shown = (obstacle?: string) =>
      renderFrame(sceneOf([], { environments: [researchOf([], { obstacle })] }), screen(80, 24)).join("\n");
    expect(shown("KeyRejected: put a valid key")).toContain(
      "research does not serve. KeyRejected: put a valid key\nCtrl-C",
    );
    expect(shown()).not.toContain("serve.");
  });

  test("puts command and result on one line, and cuts the command first", () => {
    const tools = [{ id: "a", what: `$ ${"long ".repeat(30)}`, result: "42", failed: false }];
    const [, , , line] = renderFrame(sceneOf([trackAt(1, "heartbeat", { tools })]), screen(80, 10));
    expect(line).toHaveLength(80);
    expect(line).toMatch(/\$ long .*~ → 42$/);
  });
});

/** One Environment of each mode. */
const both = (sessions: number, workers: number) => [
  researchOf(Array.from({ length: sessions }, (_, index) => trackAt(index + 1, "stopped"))),
  batchOf(Array.from({ length: workers }, (_, index) => trackAt(index + 1, "stopped", { mode: "workers" }))),
];

describe("a frame of two Environments", () => {
  test("shows on 80 columns how each serves, its counts and its sessions, one below the other", () => {
    const environments = [
      researchOf([trackAt(1, "stopped"), trackAt(2, "heartbeat")]),
      batchOf([trackAt(1, "heartbeat", { mode: "workers" }), trackAt(2, "queued", { mode: "workers" })]),
    ];
    expect(renderFrame(sceneOf([], { environments }), screen(80, 24))).toEqual([
      "Berth demo  0:42  serving sessions                   Kubernetes v1.37.2, 2 cores",
      "",
      "research   a Pod each   queue 1   warm 2   running 3   sleeping 1   served 1/2",
      "   #  pod       steps    opened  heartbeat  tools  stopped",
      "   2  pod2xyz   ●●●●●○    0.11s      0.81s    0/2           Add up the numbers ~",
      "   1  pod1xyz   ●●●●●●    0.11s      0.81s    2/2    4.10s  $ echo two → two",
      "",
      "batch      always-on workers   queue 3   ready 2/3   busy 1   served 0/2",
      "   #  worker    steps   claimed  heartbeat  tools  stopped",
      "   2            ●○○○                          0/2           Add up the numbers ~",
      "   1  pod1xyz   ●●●○      0.02s      0.81s    0/2           Add up the numbers ~",
      "",
      LEGEND,
      "Ctrl-C ends it cleanly; watch it at http://127.0.0.1:20001",
      "inspect it with: npm run cluster -- kubectl get benv,pods -n berth-demo",
    ]);
  });

  test("fits two-digit counts on 80 columns", () => {
    const environments = [batchOf([], { queue: { depth: 40, pending: 2 } })];
    const [, , counts] = renderFrame(sceneOf([], { environments }), screen(80, 24));
    expect(counts).toBe("batch   always-on workers   queue 42   ready 2/3   busy 1   served 0/0");
  });

  test("gives both the same space, and what one does not need to the other", () => {
    const numbers = (sessions: number, workers: number) => {
      const lines = renderFrame(sceneOf([], { environments: both(sessions, workers) }), screen(80, 24));
      expect(lines).toHaveLength(23);
      const second = lines.findIndex((line) => line.startsWith("batch"));
      const count = (some: string[]) => some.filter((line) => /^ +\d/.test(line)).length;
      return [count(lines.slice(0, second)), count(lines.slice(second))];
    };
    expect(numbers(50, 50)).toEqual([6, 6]);
    expect(numbers(50, 2)).toEqual([10, 2]);
    expect(numbers(3, 50)).toEqual([3, 9]);
  });
});

describe("the rows", () => {
  test.each<[number[], number, number[]]>([
    [[5, 5], 20, [5, 5]],
    [[50, 50], 20, [10, 10]],
    [[50, 4], 20, [16, 4]],
    [[4, 50], 20, [4, 16]],
    [[50, 0], 20, [20, 0]],
    [[3, 3], 5, [2, 3]],
    [[3, 3], -4, [0, 0]],
    [[7], 4, [4]],
    [[], 4, []],
  ])("are shared: %j in %i rows", (wanted, rows, parts) => {
    expect(share(wanted, rows)).toEqual(parts);
  });
});

describe("for any screen and sessions", () => {
  const tracks = fc
    .array(fc.record({ step: fc.constantFrom(...STEPS), trouble: fc.boolean(), text: fc.string({ maxLength: 80 }) }), {
      maxLength: 60,
    })
    .map((all) =>
      all.map(({ step, trouble, text }, index) => {
        const what = text.replaceAll(/[^ -~]/g, "?");
        return trackAt(index + 1, step, {
          mode: index % 3 === 0 ? "workers" : "sessions",
          ...(trouble && { trouble: "was queued again" }),
          tools: [{ id: "a", what, result: index % 2 === 0 ? what : undefined, failed: false }],
        });
      }),
    );
  const sizes = { columns: fc.integer({ min: 1, max: 250 }), rows: fc.integer({ min: 1, max: 70 }) };
  const notices = fc.array(fc.constant("protocol violation: something rather long ".repeat(3)), { maxLength: 5 });

  test("a frame fits, and its colors change nothing else", () => {
    fc.assert(
      fc.property(tracks, fc.record(sizes), notices, (all, { columns, rows }, texts) => {
        const of = (name: string) => all.filter(({ environment }) => environment === name);
        const environments = [researchOf(of("research")), batchOf(of("batch"), { obstacle: texts[0] })];
        const scene = sceneOf([], { environments, notices: texts });
        const plain = renderFrame(scene, screen(columns, rows));
        expect(plain.length).toBeLessThanOrEqual(Math.max(1, rows - 1));
        for (const line of plain) {
          expect([...line].length).toBeLessThanOrEqual(columns);
          expect(line).not.toContain("\x1b");
        }
        const coloured = renderFrame(scene, screen(columns, rows, true));
        expect(coloured.map((line) => stripVTControlCharacters(line).trimEnd())).toEqual(plain);
      }),
    );
  });
});
