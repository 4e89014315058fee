import { EventEmitter } from "node:events";
import type { ServerResponse } from "node:http";
import { describe, expect, test } from "vitest";
import { Changes } from "../../src/console/changes.ts";
import { Seen } from "../../src/console/seen.ts";
import { ALIVE_EVERY_MS, isOwnHost, LOOK_EVERY_MS, MAX_VIEWERS, STUCK_MS, Viewers } from "../../src/console/viewers.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { StagedSource, session } from "./support/staged.ts";

/** A fake connection that can report a full buffer. */
class Connection extends EventEmitter {
  readonly sent: string[] = [];
  takes = true;
  destroyed = false;

  write(text: string): boolean {
    this.sent.push(text);
    return this.takes;
  }

  destroy(): void {
    this.destroyed = true;
    this.emit("close");
  }

  /** The events since the last call. */
  events() {
    return this.sent.splice(0).map((text) => JSON.parse(/^data: (.*)\n\n$/.exec(text)?.[1] ?? ""));
  }
}

function staged() {
  const clock = new VirtualClock();
  const seen = new Seen(clock);
  const source = new StagedSource();
  seen.serves("agents/research", source);
  const errors: unknown[] = [];
  const viewers = new Viewers({
    clock,
    changes: new Changes(),
    look: () => ({
      nowMs: clock.now(),
      replica: { identity: "i", version: "v", docsUrl: "", shards: 1, served: [] },
      environments: seen.environments(),
      sessions: seen.sessions(),
    }),
    onError: (error) => errors.push(error),
  });
  const join = () => {
    const connection = new Connection();
    viewers.add(connection as unknown as ServerResponse);
    return connection;
  };
  return { clock, source, viewers, errors, join };
}

describe("viewers", () => {
  test("take no snapshot and run no timer without a viewer", async () => {
    const { clock, source, join } = staged();
    await clock.advance(10 * LOOK_EVERY_MS);
    expect([source.asked, clock.pendingTimers]).toEqual([0, 0]);
    const viewer = join();
    await clock.advance(3 * LOOK_EVERY_MS);
    expect(source.asked).toBe(4);
    viewer.destroy();
    await clock.advance(10 * LOOK_EVERY_MS);
    expect([source.asked, clock.pendingTimers]).toEqual([4, 0]);
  });

  test("get everything first, then one event for all changes of a second", async () => {
    const { clock, source, join } = staged();
    source.live = [session("a")];
    const first = join();
    expect(first.events()).toMatchObject([{ whole: true, sessions: { set: [{ pod: "research-a" }] } }]);
    source.live = [session("a"), session("b")];
    source.live = [...source.live, session("c")];
    await clock.advance(LOOK_EVERY_MS);
    expect(first.events()).toMatchObject([{ sessions: { set: [{ pod: "research-b" }, { pod: "research-c" }] } }]);
    const second = join();
    expect(second.events()).toMatchObject([{ whole: true, sessions: { set: { length: 3 } } }]);
    expect(first.events()).toEqual([]);
  });

  test("get a keep-alive event when nothing changes", async () => {
    const { clock, join } = staged();
    const viewer = join();
    viewer.events();
    await clock.advance(ALIVE_EVERY_MS - 1);
    expect(viewer.events()).toEqual([]);
    await clock.advance(1);
    expect(viewer.events()).toEqual([{ nowMs: clock.now() }]);
  });

  test("get nothing more while slow, then everything at once, and do not delay others", async () => {
    const { clock, source, join } = staged();
    const [slow, quick] = [join(), join()];
    slow.takes = false;
    source.live = [session("a")];
    await clock.advance(LOOK_EVERY_MS);
    slow.events();
    quick.events();
    for (const name of ["b", "c", "d"]) {
      source.live = [...source.live, session(name)];
      await clock.advance(LOOK_EVERY_MS);
    }
    expect(slow.events()).toEqual([]);
    expect(quick.events()).toHaveLength(3);
    slow.takes = true;
    slow.emit("drain");
    await clock.advance(LOOK_EVERY_MS);
    expect(slow.events()).toMatchObject([{ whole: true, sessions: { set: { length: 4 } } }]);
  });

  test("miss nothing if they were slow while nothing changed", async () => {
    const { clock, source, join } = staged();
    const viewer = join();
    viewer.takes = false;
    source.live = [session("a")];
    await clock.advance(LOOK_EVERY_MS);
    await clock.advance(LOOK_EVERY_MS);
    viewer.takes = true;
    viewer.emit("drain");
    viewer.events();
    source.live = [];
    await clock.advance(LOOK_EVERY_MS);
    const [event] = viewer.events();
    expect(event).not.toHaveProperty("whole");
    expect(event).toMatchObject({ sessions: { gone: { length: 1 } } });
  });

  test("are disconnected after reading nothing for half a minute", async () => {
    const { clock, source, viewers, join } = staged();
    const stuck = join();
    stuck.takes = false;
    source.live = [session("a")];
    await clock.advance(LOOK_EVERY_MS);
    await clock.advance(STUCK_MS - LOOK_EVERY_MS);
    expect([stuck.destroyed, viewers.size]).toEqual([false, 1]);
    await clock.advance(LOOK_EVERY_MS);
    expect([stuck.destroyed, viewers.size]).toEqual([true, 0]);
  });

  test("are limited in number", () => {
    const { viewers, join } = staged();
    const all = Array.from({ length: MAX_VIEWERS }, join);
    expect(viewers.isFull).toBe(true);
    all[0]?.destroy();
    expect(viewers.isFull).toBe(false);
  });

  test("keep working after an Environment could not be read", async () => {
    const { clock, source, errors, join } = staged();
    const viewer = join();
    viewer.events();
    const look = source.look;
    source.look = () => {
      throw new Error("the cache is gone");
    };
    await clock.advance(LOOK_EVERY_MS);
    expect(errors).toMatchObject([{ message: "the cache is gone" }]);
    source.look = look;
    source.live = [session("a")];
    await clock.advance(LOOK_EVERY_MS);
    expect(viewer.events()).toMatchObject([{ sessions: { set: [{ pod: "research-a" }] } }]);
  });
});

describe("the Host header", () => {
  test.each([
    "localhost",
    "localhost:8082",
    "LOCALHOST:8082",
    "127.0.0.1",
    "127.0.0.1:8082",
    "10.1.2.3:80",
    "[::1]",
    "[::1]:8082",
  ])("%s is this server", (host) => {
    expect(isOwnHost(host)).toBe(true);
  });

  test.each([
    "rebound.example",
    "rebound.example:8082",
    "localhost.rebound.example",
    "127.0.0.1.rebound.example",
    "a-localhost",
    "[rebound.example]",
    "[127.0.0.1]",
    "",
    undefined,
  ])("%s is refused, because its name may be another site's", (host) => {
    expect(isOwnHost(host)).toBe(false);
  });
});
