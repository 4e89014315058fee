import { expect, test } from "vitest";
import { parseArguments, USAGE } from "../../../bench/soak/options.ts";
import { planRounds } from "../../../bench/soak/plan.ts";
import { LEAST_RESTS } from "../../../bench/soak/verdict.ts";

const DEFAULTS = { forMs: 300_000, rate: 2, seed: 1, json: undefined, kinds: [], kills: false };

test.each([
  ["", {}],
  ["--for 15m", { forMs: 900_000 }],
  ["--for=8h --rate 10", { forMs: 28_800_000, rate: 10 }],
  ["--seed 7 --json out.json", { seed: 7, json: "out.json" }],
  ["--kinds sleeping,shell --kills", { kinds: ["sleeping", "shell"], kills: true }],
])("npm run soak -- %s", (args, changed) => {
  const options = { ...DEFAULTS, ...changed };
  expect(parseArguments(args.split(" ").filter(Boolean))).toEqual({ kind: "run", options });
});

test.each([
  ["--for 10s", /At least 30s/],
  ["--for soon", /such as 30s or 2m/],
  ["--rate 0", /greater than 0/],
  ["--seed x", /whole number/],
  ["--kinds shell,sleep", /The names are worker-lease, /],
  ["--fast", /unknown option/],
  ["now", /too many arguments/],
])("npm run soak -- %s is rejected with the reason", (args, message) => {
  expect(parseArguments(args.split(" "))).toMatchObject({ kind: "mistake", message: expect.stringMatching(message) });
});

test("the help describes every flag in the usage line", () => {
  const request = parseArguments(["--help"]);
  expect(request.kind).toBe("help");
  for (const [flag] of USAGE.matchAll(/--[a-z]+(?=[ \]])/g))
    expect(request).toMatchObject({ text: expect.stringContaining(flag) });
});

test.each([30, 60, 300, 900, 28_800])("the rounds fill a soak of %i s, and enough of them are judged", (seconds) => {
  const { rounds, warmUpRounds, roundMs } = planRounds(seconds * 1_000);
  expect(rounds * roundMs).toBeCloseTo(seconds * 1_000);
  expect(rounds - warmUpRounds).toBeGreaterThanOrEqual(LEAST_RESTS);
  expect(warmUpRounds).toBeGreaterThan(0);
  expect(roundMs).toBeLessThanOrEqual(60_000);
});
