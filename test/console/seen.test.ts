import { describe, expect, test } from "vitest";
import { conditionFor } from "../../src/api/conditions.ts";
import { EndedSessions } from "../../src/console/ended-sessions.ts";
import { Seen } from "../../src/console/seen.ts";
import { sessionShown } from "../../src/console/shown.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { asleep, ended, StagedSource, session } from "./support/staged.ts";

const KEY = "agents/research";
const clock = new VirtualClock();
const invalid = [conditionFor("InvalidSpec", "spec.sessions is missing", 1)];
const names = (seen: Seen) => [...seen.sessions()].map(({ pod }) => pod);

describe("Seen", () => {
  test("shows an Environment as its reconciler reports it, with its problems", () => {
    const seen = new Seen(clock);
    const source = new StagedSource();
    const key = conditionFor("KeyRejected", "the Work API answers 401", 1);
    source.now = { ...source.now, conditions: [{ ...key, type: "Ready" }, key] };
    seen.serves(KEY, source);
    const [shown] = seen.environments();
    expect(shown).toMatchObject({ key: KEY, mode: "Sessions", max: 50, queue: { depth: 3, pending: 1 } });
    expect(shown?.ready).toMatchObject({ status: "False", reason: "KeyRejected" });
    expect(shown?.wrong).toEqual([
      { type: "Authenticated", reason: "KeyRejected", message: "the Work API answers 401" },
    ]);
  });

  test("shows live sessions and keeps ended ones until their Environment is gone", () => {
    const seen = new Seen(clock);
    const source = new StagedSource();
    seen.serves(KEY, source);
    source.live = [session("a"), session("b")];
    seen.sessionEnded(KEY, ended("c"));
    expect(names(seen)).toEqual(["research-a", "research-b", "research-c"]);
    seen.gone(KEY, source);
    expect(names(seen)).toEqual([]);
    expect(seen.environments()).toEqual([]);
  });

  test("continues the view of a work item while its session sleeps, and shows its end again after that", () => {
    const seen = new Seen(clock);
    const source = new StagedSource();
    seen.serves(KEY, source);
    seen.sessionEnded(KEY, ended("a"));
    source.live = [asleep("a"), asleep("b")];
    const [first, second, ...more] = [...seen.sessions()];
    expect(first).toMatchObject({ ...ended("a"), phase: "sleeping", sleepsUntilMs: asleep("a").sleepsUntilMs });
    expect(second).toMatchObject({ pod: "research-b", phase: "sleeping", queuedAtMs: null, reason: null });
    expect(more).toEqual([]);
    source.live = [];
    expect([...seen.sessions()]).toMatchObject([{ pod: "research-a", phase: "ended", reason: "Completed" }]);
  });

  test("keeps the next term's Environment when an earlier term ends", () => {
    const seen = new Seen(clock);
    const [before, now] = [new StagedSource(), new StagedSource()];
    seen.serves(KEY, before);
    seen.serves(KEY, now);
    seen.gone(KEY, before);
    expect(seen.environments()).toHaveLength(1);
  });

  test("shows a spec that can't be served until it can, whether or not an earlier one still runs", () => {
    const seen = new Seen(clock);
    seen.cannotServe(KEY, { mode: "Workers", max: 3, conditions: invalid });
    expect(seen.environments()).toMatchObject([{ mode: "Workers", max: 3, ready: { reason: "InvalidSpec" } }]);
    seen.serves(KEY, new StagedSource());
    expect(seen.environments()).toMatchObject([{ mode: "Sessions", max: 50, ready: { reason: "InvalidSpec" } }]);
    seen.cannotServe(KEY, null);
    expect(seen.environments()).toMatchObject([{ ready: { status: "True" } }]);
  });

  test("forgets a spec that could never be served when it is deleted", () => {
    const seen = new Seen(clock);
    seen.cannotServe(KEY, { mode: "Sessions", max: 0, conditions: invalid });
    seen.warned(KEY, "InvalidSpec", "spec.sessions is missing");
    seen.cannotServe(KEY, null);
    expect(seen.environments()).toEqual([]);
  });

  test("keeps the last ten warnings, newest first, and counts repeats", () => {
    const seen = new Seen(clock);
    seen.serves(KEY, new StagedSource());
    for (let index = 0; index < 12; index += 1) seen.warned(KEY, "Failed", `session ${index}`);
    seen.warned(KEY, "Failed", "session 5");
    const warnings = seen.environments()[0]?.warnings ?? [];
    expect(warnings.map(({ message }) => message)).toEqual(
      [5, 11, 10, 9, 8, 7, 6, 4, 3, 2].map((index) => `session ${index}`),
    );
    expect(warnings[0]).toMatchObject({ times: 2 });
  });

  test("ignores late warnings of a removed Environment", () => {
    const seen = new Seen(clock);
    const source = new StagedSource();
    seen.serves(KEY, source);
    seen.gone(KEY, source);
    seen.warned(KEY, "DrainGivenUp", "1 work items were not settled");
    seen.sessionEnded(KEY, ended("late"));
    expect([seen.environments(), names(seen)]).toEqual([[], []]);
  });

  test("truncates long texts", () => {
    const seen = new Seen(clock);
    seen.serves(KEY, new StagedSource());
    seen.warned(KEY, "Failed", "x".repeat(10_000));
    seen.sessionEnded(KEY, ended("long", { message: "y".repeat(10_000) }));
    expect(seen.environments()[0]?.warnings[0]?.message).toHaveLength(300);
    expect([...seen.sessions()][0]?.message).toHaveLength(300);
  });
});

describe("ended sessions", () => {
  const of = (environment: string, name: string) => sessionShown(environment, ended(name));
  const kept = (all: EndedSessions) => [...all].map(({ environment, pod }) => `${environment} ${pod.slice(-1)}`);

  test("are limited per Environment", () => {
    const all = new EndedSessions({ perEnvironment: 2, inAll: 100 });
    for (const name of ["1", "2", "3"]) all.add(of("a", name));
    all.add(of("b", "1"));
    expect(kept(all)).toEqual(["a 2", "a 3", "b 1"]);
  });

  test("are limited in total, and the oldest is dropped first", () => {
    const all = new EndedSessions({ perEnvironment: 2, inAll: 3 });
    for (const [environment, name] of ["a1", "b1", "c1", "d1", "a2"].map((text) => [...text])) {
      all.add(of(environment ?? "", name ?? ""));
    }
    expect(kept(all)).toEqual(["c 1", "d 1", "a 2"]);
  });

  test("are kept once if reported twice", () => {
    const all = new EndedSessions({ perEnvironment: 2, inAll: 3 });
    all.add(of("a", "1"));
    all.add(of("a", "2"));
    all.add(of("a", "1"));
    expect(kept(all)).toEqual(["a 2", "a 1"]);
  });

  test("are forgotten with their Environment", () => {
    const all = new EndedSessions();
    all.add(of("a", "1"));
    all.add(of("b", "1"));
    all.forget("a");
    expect(kept(all)).toEqual(["b 1"]);
    expect(all.get(of("a", "1").id)).toBeUndefined();
  });
});
