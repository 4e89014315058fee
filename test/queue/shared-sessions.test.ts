import { beforeEach, describe, expect, test } from "vitest";
import type { Environment } from "../../src/api/environment.ts";
import { SharedSessions, type Sharer } from "../../src/queue/shared-sessions.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const SESSION = "sesn_1";

interface Facts {
  readonly id?: string;
  readonly key?: string;
  readonly isKeyRead?: boolean;
  readonly isRecovered?: boolean;
  readonly accepted?: boolean;
}

/** An Environment that runs SESSION. */
function sharer(
  namespace: string,
  { id = "env_1", key = "key", isKeyRead = true, isRecovered = true, accepted }: Facts = {},
): Sharer {
  return {
    context: {
      namespace,
      name: "research",
      environment: () => ({ spec: { environmentId: id, api: { baseUrl: "https://work.test" } } }) as Environment,
      environmentKey: () => key,
      isKeyRead: () => isKeyRead,
    },
    isRecovered: () => isRecovered,
    isAccepted: () => accepted ?? null,
    runs: (sessionId) => sessionId === SESSION,
  };
}

let clock: VirtualClock;
let served: string[];
let shared: SharedSessions;
let own: Sharer;

beforeEach(() => {
  clock = new VirtualClock();
  served = ["own/research"];
  shared = new SharedSessions({ clock, served: () => served });
  own = sharer("own");
  shared.join(own);
});

describe("an Environment that runs a session", () => {
  test.each<[string, Facts, boolean]>([
    ["with the same key counts", {}, true],
    ["with the same key counts before it has recovered", { isRecovered: false }, true],
    ["with another key that the Work API accepted counts", { key: "other", accepted: true }, true],
    ["with a rejected key doesn't count", { key: "other", accepted: false }, false],
    ["with a key that was not judged yet doesn't count", { key: "other" }, false],
    ["without a key doesn't count", { key: "" }, false],
    ["of another environment doesn't count", { id: "env_2" }, false],
  ])("%s", (_title, facts, counts) => {
    shared.join(sharer("other", facts));
    expect(shared.mayRunElsewhere(own, SESSION)).toBe(counts);
    expect(shared.mayRunElsewhere(own, "sesn_2")).toBe(false);
  });

  test("doesn't count once it has left", () => {
    const other = sharer("other");
    shared.join(other);
    shared.leave(other);
    expect(shared.mayRunElsewhere(own, SESSION)).toBe(false);
  });

  test("without a key doesn't count for another one without a key", () => {
    const keyless = sharer("keyless", { key: "" });
    shared.leave(own);
    shared.join(keyless);
    shared.join(sharer("other", { key: "" }));
    expect(shared.mayRunElsewhere(keyless, SESSION)).toBe(false);
  });
});

describe("after a term begins", () => {
  beforeEach(() => {
    served = ["own/research", "other/research"];
    shared.termBegins();
  });

  test.each<[string, Facts | null, boolean]>([
    ["no loops yet", null, true],
    ["not recovered yet", { isRecovered: false }, true],
    ["recovered, with a key that was not judged yet", { key: "other" }, true],
    ["recovered, with a key that was not read yet", { key: "", isKeyRead: false }, true],
    ["recovered, without a key", { key: "" }, false],
    ["recovered, with the same key", {}, false],
    ["recovered, with a rejected key", { key: "other", accepted: false }, false],
  ])("an Environment that is served here (%s) may run any session: %#", (_title, facts, mayRun) => {
    if (facts) shared.join(sharer("other", facts));
    expect(shared.mayRunElsewhere(own, "sesn_2")).toBe(mayRun);
  });

  test("an Environment in an unknown state blocks the others for 30 s after each beginning of a term", async () => {
    await clock.advance(29_999);
    expect(shared.mayRunElsewhere(own, "sesn_2")).toBe(true);
    await clock.advance(1);
    expect(shared.mayRunElsewhere(own, "sesn_2")).toBe(false);
    shared.termBegins();
    expect(shared.mayRunElsewhere(own, "sesn_2")).toBe(true);
  });

  test("an Environment that is not served here blocks no other", () => {
    served = ["own/research"];
    expect(shared.mayRunElsewhere(own, "sesn_2")).toBe(false);
  });
});
