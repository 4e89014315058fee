import { describe, expect, test } from "vitest";
import { conditionFor } from "../../src/api/conditions.ts";
import { EndedSessions } from "../../src/console/ended-sessions.ts";
import { Seen } from "../../src/console/seen.ts";
import { sessionShown } from "../../src/console/shown.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { ended, StagedSource, session } from "./support/staged.ts";

const KEY = "agents/research";
const clock = new VirtualClock();
const invalid = [conditionFor("InvalidSpec", "spec.sessions is missing", 1)];
const names = (seen: Seen) => [...seen.sessions()].map(({ pod }) => pod);

describe("what is seen", () => {
  test("an Environment is shown as its loops report it, with what is not well", () => {
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

  test("sessions that live are asked for, those that ended are kept, and both go with their Environment", () => {
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

  test("the end of an earlier term does not take away what the next one serves", () => {
    const seen = new Seen(clock);
    const [before, now] = [new StagedSource(), new StagedSource()];
    seen.serves(KEY, before);
    seen.serves(KEY, now);
    seen.gone(KEY, before);
    expect(seen.environments()).toHaveLength(1);
  });

  test("a spec that cannot be served is shown, with and without loops, until it can", () => {
    const seen = new Seen(clock);
    seen.cannotServe(KEY, { mode: "Workers", max: 3, conditions: invalid });
    expect(seen.environments()).toMatchObject([{ mode: "Workers", max: 3, ready: { reason: "InvalidSpec" } }]);
    seen.serves(KEY, new StagedSource());
    expect(seen.environments()).toMatchObject([{ mode: "Sessions", max: 50, ready: { reason: "InvalidSpec" } }]);
    seen.cannotServe(KEY, null);
    expect(seen.environments()).toMatchObject([{ ready: { status: "True" } }]);
  });

  test("a spec that never could be served leaves nothing behind when it is gone", () => {
    const seen = new Seen(clock);
    seen.cannotServe(KEY, { mode: "Sessions", max: 0, conditions: invalid });
    seen.warned(KEY, "InvalidSpec", "spec.sessions is missing");
    seen.cannotServe(KEY, null);
    expect(seen.environments()).toEqual([]);
  });

  test("the last ten warnings are kept, the newest first, and one that comes again is counted", () => {
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

  test("last words about what is gone are not kept", () => {
    const seen = new Seen(clock);
    const source = new StagedSource();
    seen.serves(KEY, source);
    seen.gone(KEY, source);
    seen.warned(KEY, "DrainGivenUp", "1 work items were not settled");
    seen.sessionEnded(KEY, ended("late"));
    expect([seen.environments(), names(seen)]).toEqual([[], []]);
  });

  test("a text of any length takes a line", () => {
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

  test("each Environment keeps its last", () => {
    const all = new EndedSessions({ perEnvironment: 2, inAll: 100 });
    for (const name of ["1", "2", "3"]) all.add(of("a", name));
    all.add(of("b", "1"));
    expect(kept(all)).toEqual(["a 2", "a 3", "b 1"]);
  });

  test("all together keep no more than a bound, the oldest goes", () => {
    const all = new EndedSessions({ perEnvironment: 2, inAll: 3 });
    for (const [environment, name] of ["a1", "b1", "c1", "d1", "a2"].map((text) => [...text])) {
      all.add(of(environment ?? "", name ?? ""));
    }
    expect(kept(all)).toEqual(["c 1", "d 1", "a 2"]);
  });

  test("one that is told twice is kept once", () => {
    const all = new EndedSessions({ perEnvironment: 2, inAll: 3 });
    all.add(of("a", "1"));
    all.add(of("a", "2"));
    all.add(of("a", "1"));
    expect(kept(all)).toEqual(["a 2", "a 1"]);
  });

  test("nothing is left of an Environment that is forgotten", () => {
    const all = new EndedSessions();
    all.add(of("a", "1"));
    all.add(of("b", "1"));
    all.forget("a");
    expect(kept(all)).toEqual(["b 1"]);
    expect(all.has(of("a", "1").id)).toBe(false);
  });
});
