import type { LookupAddress } from "node:dns";
import { beforeEach, describe, expect, test } from "vitest";
import { Lookups, MAX_DOUBTFUL } from "../../src/work/lookups.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const PUBLIC: LookupAddress = { address: "203.0.113.1", family: 4 };

let clock: VirtualClock;
/** Lookups under way, by name. */
let underWay: Map<string, (error?: Error) => void>;
let most: number;
let answers: string[];
let lookups: Lookups;

beforeEach(() => {
  clock = new VirtualClock();
  underWay = new Map();
  most = 0;
  answers = [];
  lookups = new Lookups(clock, (name, _options, callback) => {
    expect(underWay.has(name)).toBe(false);
    underWay.set(name, (error) => {
      underWay.delete(name);
      callback(error ?? null, error ? [] : [PUBLIC]);
    });
    most = Math.max(most, underWay.size);
  });
});

function ask(name: string): void {
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
  test("hold a few lookups, and none of a name that was answered before", () => {
    ask("api.example");
    answer("api.example");
    for (const name of tarpits(100)) ask(name);
    expect(underWay.size).toBe(MAX_DOUBTFUL);
    ask("api.example");
    answer("api.example");
    expect(answers).toEqual(["api.example 203.0.113.1", "api.example 203.0.113.1"]);
  });

  test("each have their turn, and a new name among them", async () => {
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
    expect(most).toBe(MAX_DOUBTFUL);
  });

  test("are no better for having answered once", async () => {
    const names = tarpits(MAX_DOUBTFUL + 4);
    for (const name of names) {
      ask(name);
      answer(name);
    }
    for (const name of names) ask(name);
    expect(underWay.size).toBe(names.length);
    await clock.advance(5_000);
    for (const name of names) answer(name, new Error("EAI_AGAIN"));
    for (const name of names) ask(name);
    expect(underWay.size).toBe(MAX_DOUBTFUL);
  });
});

test("a name is looked up once for all who ask at a time, and anew for who asks later", () => {
  for (let times = 0; times < 3; times += 1) ask("api.example");
  answer("api.example");
  expect(answers).toHaveLength(3);
  expect(underWay.size).toBe(0);
  ask("api.example");
  expect(underWay.size).toBe(1);
});

test("a failure that comes at once makes no name doubtful", () => {
  for (const name of tarpits(MAX_DOUBTFUL)) ask(name);
  const missing = () => answer("missing.example", new Error("ENOTFOUND"));
  ask("missing.example");
  answer("x0.tarpit.example");
  missing();
  ask("missing.example");
  missing();
  expect(answers.slice(1)).toEqual(["missing.example ENOTFOUND", "missing.example ENOTFOUND"]);
});
