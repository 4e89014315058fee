import { expect, test } from "vitest";
import { parseArguments } from "../../bench/options.ts";

const KNOWN = ["pickup", "throughput"];
const DEFAULTS = {
  ...{ names: [], check: false, quick: false, seed: 1, starts: 200, minutes: 1_440, kinds: [] },
  ...{ wakes: 50, gaps: [10, 300, 1_500], parts: [], out: "bench-report" },
};
const words = (text: string) => (text === "" ? [] : text.split(" "));

test.each([
  ["", {}],
  ["--check", { check: true }],
  ["--quick --seed 7", { quick: true, seed: 7 }],
  [
    "throughput --starts 500 --minutes 50 --kinds shell,floor-shell",
    { names: ["throughput"], starts: 500, minutes: 50, kinds: ["shell", "floor-shell"] },
  ],
  ["pickup --wakes 7 --gaps 5,60 --parts turns", { names: ["pickup"], wakes: 7, gaps: [5, 60], parts: ["turns"] }],
  ["throughput --out there", { names: ["throughput"], out: "there" }],
  ["throughput pickup", { names: ["throughput", "pickup"] }],
])("npm run bench -- %s", (args, changed) => {
  expect(parseArguments(words(args), KNOWN)).toEqual({ kind: "run", options: { ...DEFAULTS, ...changed } });
});

test.each([
  ["pikup", /unknown scenario 'pikup'; use one or more of pickup, throughput/],
  ["--seed x", /whole number/],
  ["--kinds shell,shel", /The names are key, .*shell/],
  ["--parts turn", /The names are sleeping, .*turns/],
  ["--gaps 5,x", /whole number/],
  ["--chek", /unknown option.*did you mean --check/is],
])("npm run bench -- %s is rejected with the reason", (args, message) => {
  expect(parseArguments(words(args), KNOWN)).toMatchObject({
    kind: "mistake",
    message: expect.stringMatching(message),
  });
});

test("--help names every scenario", () => {
  expect(parseArguments(["--help"], KNOWN)).toMatchObject({
    kind: "help",
    text: expect.stringContaining("pickup, throughput"),
  });
});
