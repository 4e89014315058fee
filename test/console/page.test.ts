import { execFileSync } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { describe, expect, test } from "vitest";
import { PAGE_FILES } from "../../src/console/page-files.ts";
import { ROOT } from "../project/lint-gate.ts";
import { asleep, ended, session } from "./support/staged.ts";

const FOLDER = join(ROOT, "src/page");

/** Imports a module of the page, which has its own types. */
const pageModule = (name: string) => import(pathToFileURL(join(FOLDER, name)).href);

describe("the page's files", () => {
  test("are all served, and no other files", async () => {
    const there = (await readdir(FOLDER)).filter((name) => name !== "tsconfig.json");
    expect(
      Object.values(PAGE_FILES)
        .map(({ file }) => file)
        .sort(),
    ).toEqual(there.sort());
  });

  test("load only each other", async () => {
    const paths = new Set(Object.keys(PAGE_FILES).map((path) => path.slice(1)));
    for (const { file } of Object.values(PAGE_FILES)) {
      const text = await readFile(join(FOLDER, file), "utf8");
      const named = [...text.matchAll(/(?:\bfrom |\b(?:src|href)=|url\()"([^"#][^"]*)"/g)].map(([, name = ""]) => name);
      for (const name of named) expect(paths, `${file}: ${name}`).toContain(name.replace(/^\.\//, ""));
    }
  });
});

test("a command contains an odd id as one word of the shell, or is left out", async () => {
  const { commandsOf } = await pageModule("detail.js");
  const explains = (sessionId: string): string | undefined =>
    commandsOf({ environment: "agents/research", pod: "p", phase: "ended", failed: false, sessionId }).at(-1);
  expect(explains("sesn_01")).toBe("berth explain sesn_01 -n agents");
  for (const id of ["x;curl$IFS-o;#", "$(id)", "it's", "a b", "`id`", "!!", "~root"]) {
    const [, word = ""] = /^berth explain (.*) -n agents$/.exec(explains(id) ?? "") ?? [];
    expect(execFileSync("sh", ["-c", `printf %s ${word}`], { encoding: "utf8" })).toBe(id);
  }
  for (const id of ["a\nid", "-n", "\u001b[2J"]) expect(explains(id)).toBeUndefined();
});

test("the count tells work items from sessions", async () => {
  const { countText } = await pageModule("text.js");
  const of = (sessionId: string) => ({ environment: "agents/research", sessionId });
  expect(countText([of("a"), of("a"), of("b")], 5)).toBe("3 of 5 work items, 2 sessions");
  expect(countText([of("a")], 1)).toBe("1 of 1 work items, 1 session");
});

describe("a lane", async () => {
  const { partsOf, placeOf } = await pageModule("lane.js");
  const fromMs = Date.UTC(2030, 0, 1);
  const window = { fromMs, toMs: fromMs + 10_000 };
  const kinds = (parts: { kind: string }[]) => parts.map(({ kind }) => kind);

  test("has each step at its time, in percent of the time window", () => {
    const steps = { queuedAtMs: fromMs, claimedAtMs: fromMs + 1_000, openedAtMs: fromMs + 2_000 };
    const shown = ended("a", { ...steps, beatAtMs: fromMs + 4_000, stoppedAtMs: fromMs + 9_000 });
    expect(partsOf(shown, window)).toEqual([
      { kind: "waits", left: 0, width: 10 },
      { kind: "claimed", left: 10, width: 10 },
      { kind: "opened", left: 20, width: 20 },
      { kind: "runs", left: 40, width: 50 },
    ]);
    expect(placeOf(shown.stoppedAtMs, window)).toBe(90);
  });

  test("of a live session extends to now", () => {
    const parts = partsOf(session("a", { queuedAtMs: fromMs }), window);
    expect(parts.at(-1)).toMatchObject({ kind: "runs", left: 6, width: 94 });
  });

  test("is cut off at the beginning of the time window", () => {
    const parts = partsOf(session("a", { queuedAtMs: fromMs - 60_000 }), window);
    expect(parts).toEqual([{ kind: "runs", left: 0, width: 100 }]);
  });

  test("skips steps that are unknown after a restart of the operator", () => {
    const parts = partsOf(session("a", { queuedAtMs: fromMs, openedAtMs: null, beatAtMs: null }), window);
    expect(kinds(parts)).toEqual(["waits", "claimed", "opened"]);
    expect(kinds(partsOf(session("b", { queuedAtMs: null, claimedAtMs: null }), window))).toEqual(["opened", "runs"]);
  });

  test("of a sleeping session sleeps from the end of its work item to now", () => {
    const sleep = { phase: "sleeping", stoppedAtMs: fromMs + 5_000 } as const;
    const parts = partsOf(ended("a", { queuedAtMs: fromMs, ...sleep }), window);
    expect(kinds(parts)).toEqual(["waits", "claimed", "opened", "runs", "sleeps"]);
    expect(parts.at(-2)).toMatchObject({ left: 6, width: 44 });
    expect(parts.at(-1)).toMatchObject({ left: 50, width: 50 });
    expect(partsOf(asleep("b", sleep), window)).toEqual([{ kind: "sleeps", left: 50, width: 50 }]);
  });

  test("runs from its start if the operator sends the heartbeats, which begin earlier", () => {
    const steps = { queuedAtMs: fromMs, beatAtMs: fromMs + 50, startedAtMs: fromMs + 3_000 };
    expect(partsOf(session("a", { ...steps, lease: "Operator" }), window).at(-1)).toMatchObject({
      kind: "runs",
      left: 30,
    });
  });
});

describe("Environments", async () => {
  const { inOrder, healthOf } = await pageModule("state.js");
  const { problemsOf } = await pageModule("problems.js");
  const environment = (key: string, status: string, reason: string, wrong: object[] = []) => ({
    key,
    ready: { status, reason, message: `${reason}: the message` },
    wrong,
  });
  const shared = { type: "EnvironmentIdShared", reason: "Shared", message: "two of them" };

  test("are in the order in which they need attention, then by name", () => {
    const all = [
      environment("agents/a", "True", "Ready"),
      environment("agents/b", "False", "Paused"),
      environment("agents/c", "Unknown", "Pending"),
      environment("agents/d", "True", "Ready", [shared]),
      environment("agents/f", "False", "KeyRejected"),
      environment("agents/e", "False", "KeyRejected"),
    ];
    expect(inOrder(all).map((it: { key: string }) => [it.key.slice(-1), healthOf(it)])).toEqual([
      ["e", "not-ready"],
      ["f", "not-ready"],
      ["d", "degraded"],
      ["c", "unknown"],
      ["b", "stopped"],
      ["a", "ready"],
    ]);
  });

  test("whose work items fail are no good news, although they are ready", async () => {
    const { headlineOf } = await pageModule("summary.js");
    const all = [environment("agents/a", "True", "Ready"), environment("agents/b", "True", "Ready")];
    const headline = (failed: number, completed: number) => {
      const of = (count: number, isFailed: boolean) =>
        Array.from({ length: count }, () => ({ environment: "agents/b", failed: isFailed }));
      return headlineOf([0], all, [...of(failed, true), ...of(completed, false)]);
    };
    expect(headline(15, 4)).toEqual({ text: "Work items fail in 1 of 2 Environments", state: "bad" });
    for (const [failed, completed] of [
      [2, 0],
      [3, 12],
    ] as const) {
      expect(headline(failed, completed)).toEqual({ text: "All Environments are ready", state: "good" });
    }
  });

  test("with the same problem are listed together, and wanted states are no problems", () => {
    const all = [
      environment("agents/a", "False", "KeyRejected"),
      environment("agents/b", "False", "Unreachable", [{ ...shared, reason: "Unreachable" }]),
      environment("agents/c", "True", "Ready", [{ ...shared, reason: "Unreachable" }]),
      environment("agents/d", "False", "Paused"),
      environment("agents/e", "Unknown", "Pending"),
    ];
    expect(problemsOf(all)).toMatchObject([
      { reason: "KeyRejected", type: "Ready", message: "KeyRejected: the message", keys: ["agents/a"] },
      { reason: "Unreachable", keys: ["agents/b", "agents/c"] },
    ]);
  });
});

describe("texts", async () => {
  const { axisTime, duration, stateText, laneText } = await pageModule("text.js");

  test("of a duration fit its size, and are never negative when clocks differ", () => {
    expect([120, 12_340, 243_000, 7_380_000, -50].map(duration)).toEqual([
      "0.12 s",
      "12.3 s",
      "4 min 03 s",
      "2 h 03 min",
      "0.00 s",
    ]);
  });

  test("of an axis have no seconds if it covers an hour or more", () => {
    expect(axisTime(0, 900_000)).toMatch(/^\d\d:\d\d:\d\d$/);
    expect(axisTime(0, 86_400_000)).toMatch(/^\d\d:\d\d$/);
  });

  test("of an end do not depend on color", () => {
    expect(stateText(ended("a"))).toBe("✓ Completed");
    expect(stateText(ended("a", { reason: "OOMKilled", failed: true }))).toBe("✕ OOMKilled");
    expect(stateText(session("a"))).toBe("running");
  });

  test("of a sleeping session say until when, as a date if that is far", () => {
    expect(stateText(asleep("a", { sleepsUntilMs: Date.now() + 60_000 }))).toMatch(/^sleeping until \d\d:\d\d:\d\d$/);
    const far = stateText(asleep("a", { sleepsUntilMs: Date.now() + 7 * 86_400_000 }));
    expect(far).toMatch(/^sleeping until [^:]+$/);
    expect(laneText(asleep("a"))).toMatch(/^sleeping until /);
    expect(laneText({ ...ended("a"), phase: "sleeping", sleepsUntilMs: Date.now() })).toMatch(
      /^queued [\d:]+, .*ended after 5.00 s, sleeping until [\d:]+$/,
    );
  });

  test("of a lane describe it for readers who can't see it", () => {
    expect(laneText(ended("a"))).toMatch(
      /^queued [\d:]+, claimed after 0.04 s, opened after 0.09 s, first heartbeat after 0.60 s, ended after 5.00 s$/,
    );
  });
});
