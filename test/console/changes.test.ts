import { expect, test } from "vitest";
import { Changes, type Look } from "../../src/console/changes.ts";
import { Seen } from "../../src/console/seen.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { ended, StagedSource, session } from "./support/staged.ts";

const KEY = "agents/research";
const replica = { identity: "operator_1", version: "0.1.0", docsUrl: "", shards: 1, served: [0] };

function staged() {
  const seen = new Seen(new VirtualClock());
  const source = new StagedSource();
  seen.serves(KEY, source);
  const changes = new Changes();
  const look = (nowMs: number): Look => ({
    nowMs,
    replica,
    environments: seen.environments(),
    sessions: seen.sessions(),
  });
  const take = (nowMs: number) => {
    const text = changes.take(look(nowMs));
    return text === null ? null : JSON.parse(text);
  };
  return { seen, source, changes, take };
}

test("sends everything first, and nothing for an unchanged snapshot", () => {
  const { source, take } = staged();
  source.live = [session("a")];
  expect(take(1)).toMatchObject({
    nowMs: 1,
    replica,
    environments: { set: [{ key: KEY }], gone: [] },
    sessions: { set: [{ pod: "research-a", phase: "running" }], gone: [] },
  });
  expect(take(2)).toBeNull();
});

test("sends only the changes, and the ids of what is gone", () => {
  const { source, take } = staged();
  source.live = [session("a"), session("b"), session("c")];
  const id = take(1).sessions.set[1].id;
  source.live = [session("a"), session("c", { phase: "stopping", reason: "MaxDuration" })];
  const change = take(2);
  expect(Object.keys(change)).toEqual(["nowMs", "sessions"]);
  expect(change.sessions.gone).toEqual([id]);
  expect(change.sessions.set).toMatchObject([{ pod: "research-c", phase: "stopping", reason: "MaxDuration" }]);
});

test("keeps the id of a session that ends", () => {
  const { seen, source, take } = staged();
  source.live = [session("a")];
  const id = take(1).sessions.set[0].id;
  source.live = [];
  seen.sessionEnded(KEY, ended("a"));
  expect(take(2).sessions).toMatchObject({ set: [{ id, phase: "ended", reason: "Completed" }], gone: [] });
});

test("sends the whole last snapshot to a later viewer", () => {
  const { source, changes, take } = staged();
  source.live = [session("a"), session("b")];
  take(1);
  source.live = [session("b")];
  take(2);
  const whole = JSON.parse(changes.whole());
  expect(whole).toMatchObject({ nowMs: 2, whole: true, replica, environments: { set: [{ key: KEY }] } });
  expect(whole.sessions.set).toMatchObject([{ pod: "research-b" }]);
});

test("redacts a credential inside a text and keeps the rest readable", () => {
  const { seen, source, changes, take } = staged();
  const key = "sk-ant-oat01-AAAABBBBCCCCDDDD";
  const token = `eyJ${Buffer.from('{"session":"sesn_1","token":"t"}').toString("base64url").slice(3)}`;
  seen.warned(KEY, "QueueUnreachable", `the proxy said: "Bearer abcdefgh12345678" for ${key}`);
  source.live = [session("a", { message: `exit code 1: ${token}` })];
  const first = JSON.stringify(take(1));
  for (const text of [first, changes.whole()]) {
    for (const secret of [key, "abcdefgh12345678", token]) expect(text).not.toContain(secret);
    expect(JSON.parse(text).sessions.set).toMatchObject([{ message: "exit code 1: [redacted]" }]);
  }
});
