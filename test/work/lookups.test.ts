import type { LookupAddress } from "node:dns";
import { beforeEach, describe, expect, test } from "vitest";
import {
  Lookups,
  MAX_DOUBTFUL,
  MAX_KNOWN,
  MAX_WAITING,
  type Resolve,
  TENANT_SHARE,
} from "../../src/work/guarded-connect.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const LISTED = "api.anthropic.com";
const PUBLIC: LookupAddress = { address: "203.0.113.1", family: 4 };

/** The number of one tenant's doubtful names that are looked up at a time. */
const EACH = MAX_DOUBTFUL * TENANT_SHARE;

let clock: VirtualClock;
/** Lookups in flight, by name. */
let underWay: Map<string, (error?: Error) => void>;
let most: number;
let answers: string[];
let lookups: Lookups;

beforeEach(() => {
  clock = new VirtualClock();
  underWay = new Map();
  most = 0;
  answers = [];
  const resolve: Resolve = (name, _options, callback) => {
    expect(underWay.has(name)).toBe(false);
    underWay.set(name, (error) => {
      underWay.delete(name);
      callback(error ?? null, error ? [] : [PUBLIC]);
    });
    most = Math.max(most, underWay.size);
  };
  lookups = new Lookups(clock, resolve, (name) => name === LISTED);
});

/** Requests the name for this tenant. */
function ask(name: string, tenant?: string): void {
  lookups.request(name, tenant);
  lookups.resolve(name, { all: true }, (error, found) =>
    answers.push(`${name} ${error ? error.message : found.map(({ address }) => address)}`),
  );
}

function answer(name: string, error?: Error): void {
  const settle = underWay.get(name);
  if (!settle) throw new Error(`${name} is not looked up`);
  settle(error);
}

const tarpits = (count: number) => Array.from({ length: count }, (_, index) => `x${index}.tarpit.example`);

describe("names whose server does not answer", () => {
  test("use a few lookups, and none of those for names that were answered before", () => {
    ask("api.example");
    answer("api.example");
    for (const name of tarpits(100)) ask(name);
    expect(underWay.size).toBe(EACH);
    ask("api.example");
    answer("api.example");
    expect(answers).toEqual(["api.example 203.0.113.1", "api.example 203.0.113.1"]);
  });

  test("each get their turn, and so does a new name", async () => {
    const names = tarpits(20);
    for (const name of names) ask(name);
    ask("new.example");
    for (const name of names) {
      if (!underWay.has(name)) continue;
      await clock.advance(2_000);
      answer(name, new Error("EAI_AGAIN"));
    }
    answer("new.example");
    expect(answers).toEqual([...names.map((name) => `${name} EAI_AGAIN`), "new.example 203.0.113.1"]);
    expect(most).toBe(EACH);
  });

  test("become doubtful again after a slow answer", async () => {
    const names = tarpits(EACH + 4);
    for (const name of names) {
      ask(name);
      answer(name);
    }
    for (const name of names) ask(name);
    expect(underWay.size).toBe(names.length);
    await clock.advance(5_000);
    for (const name of names) answer(name, new Error("EAI_AGAIN"));
    for (const name of names) ask(name);
    expect(underWay.size).toBe(EACH);
  });

  test("use a bounded number of lookups when their server stops answering", () => {
    const names = (tenant: string) => tarpits(100).map((name) => `${tenant}.${name}`);
    for (const tenant of ["a", "b", "c"]) {
      for (const name of names(tenant)) {
        ask(name, tenant);
        answer(name);
      }
    }
    for (const tenant of ["a", "b", "c"]) for (const name of names(tenant)) ask(name, tenant);
    expect(underWay.size).toBe(MAX_KNOWN);
    ask("new.example", "d");
    expect([...underWay.keys()]).toContain("new.example");
  });
});

describe("tenants", () => {
  const slow = async (name: string) => {
    await clock.advance(5_000);
    answer(name, new Error("EAI_AGAIN"));
  };
  const begun = () => [...underWay.keys()];

  test("take turns: a name of one waits for at most one name of each other", async () => {
    for (const tenant of ["a", "b"]) for (const name of tarpits(50)) ask(`${tenant}.${name}`, tenant);
    expect(begun()).toHaveLength(MAX_DOUBTFUL);
    for (const name of ["first", "second"]) ask(`${name}.example`, "c");
    expect(begun()).not.toContain("first.example");
    await slow("a.x0.tarpit.example");
    await slow("b.x0.tarpit.example");
    await slow("a.x1.tarpit.example");
    expect(begun()).toContain("first.example");
    expect(most).toBe(MAX_DOUBTFUL);
  });

  test("always find a free lookup when another tenant has many names", () => {
    for (const name of tarpits(400)) ask(name, "many");
    expect(begun()).toHaveLength(EACH);
    ask("first.example", "other");
    expect(begun()).toContain("first.example");
  });

  test("share one lookup of the same name, in the turn that comes first", async () => {
    for (const name of tarpits(50)) ask(name, "many");
    ask("shared.example", "many");
    expect(begun()).not.toContain("shared.example");
    ask("shared.example", "other");
    expect(begun()).toContain("shared.example");
    answer("shared.example");
    expect(answers).toEqual(["shared.example 203.0.113.1", "shared.example 203.0.113.1"]);
    for (const name of tarpits(50)) await slow(name);
    expect(begun()).toEqual([]);
  });

  test("keep no turn for a request that has ended", async () => {
    const end = lookups.request("shared.example", "gone");
    end();
    for (const name of tarpits(50)) ask(name, "many");
    lookups.request("shared.example", "many");
    lookups.resolve("shared.example", { all: true }, () => {});
    expect(begun()).not.toContain("shared.example");
  });

  test("have a bounded number of waiting names each", () => {
    for (const name of tarpits(EACH + MAX_WAITING)) ask(name, "many");
    expect(answers).toEqual([]);
    ask("one-more.example", "many");
    expect(answers).toEqual([expect.stringMatching(/^one-more\.example .*too many names of its namespace wait$/)]);
    for (const name of ["a", "b", "c", "d", "e"]) ask(`${name}.example`, "other");
    expect(answers).toHaveLength(1);
  });
});

test("a listed name never waits, and concurrent requests share its lookup", () => {
  for (const tenant of ["a", "b", "c"]) for (const name of tarpits(50)) ask(`${tenant}.${name}`, tenant);
  expect(underWay.size).toBe(MAX_DOUBTFUL);
  ask(LISTED, "a");
  ask(LISTED, "d");
  answer(LISTED);
  expect(answers).toEqual([`${LISTED} 203.0.113.1`, `${LISTED} 203.0.113.1`]);
});

test("concurrent requests for a name share one lookup, and a later one starts another", () => {
  for (let times = 0; times < 3; times += 1) ask("api.example");
  answer("api.example");
  expect(answers).toHaveLength(3);
  expect(underWay.size).toBe(0);
  ask("api.example");
  expect(underWay.size).toBe(1);
});

test("a fast failure does not make a name doubtful", () => {
  for (const name of tarpits(EACH)) ask(name);
  const missing = () => answer("missing.example", new Error("ENOTFOUND"));
  ask("missing.example");
  answer("x0.tarpit.example");
  missing();
  ask("missing.example");
  missing();
  expect(answers.slice(1)).toEqual(["missing.example ENOTFOUND", "missing.example ENOTFOUND"]);
});
