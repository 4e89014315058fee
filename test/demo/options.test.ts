import { readFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { type DemoOptions, parseArguments, USAGE } from "../../demo/options.ts";

const DEFAULTS: DemoOptions = {
  forMs: undefined,
  rate: 0.5,
  warm: 2,
  max: 10,
  workers: 3,
  seed: 1,
  scripted: false,
  useCluster: false,
};

const GOOD: readonly (readonly [args: string, changed: Partial<DemoOptions>])[] = [
  ["", {}],
  ["--for 60s", { forMs: 60_000 }],
  ["--for 30", { forMs: 30_000 }],
  ["--for=2m", { forMs: 120_000 }],
  ["--for 1.5m", { forMs: 90_000 }],
  ["--for 24h", { forMs: 86_400_000 }],
  ["--rate 0.1", { rate: 0.1 }],
  ["--scripted", { scripted: true, rate: 2, workers: 8 }],
  ["--scripted --rate 10 --warm 20 --max 100", { scripted: true, workers: 8, rate: 10, warm: 20, max: 100 }],
  ["--workers 5", { workers: 5 }],
  ["--workers 0", { workers: 0 }],
  ["--scripted --workers 0", { scripted: true, rate: 2, workers: 0 }],
  ["--seed 7 --use-cluster", { seed: 7, useCluster: true }],
  ["--warm 0", { warm: 0 }],
  // The default of the other flag adapts.
  ["--warm 20", { warm: 20, max: 20 }],
  ["--max 1", { warm: 1, max: 1 }],
];

const BAD: readonly (readonly [args: string, complaint: RegExp])[] = [
  ["--for soon", /--for.*'soon'.*such as 30s/],
  ["--for 60 s", /too many arguments/],
  ["--for 0s", /at least 5s/i],
  ["--for -5s", /--for/],
  ["--for 1d", /such as 30s/],
  ["--for 25h", /at most 24h/i],
  ["--for 1e9s", /such as 30s/],
  ["--for", /argument missing/],
  ["--rate 0", /greater than 0/],
  ["--rate many", /greater than 0/],
  ["--rate Infinity", /at most 100/],
  ["--rate 101", /at most 100/],
  ["--warm 1.5", /whole number/],
  ["--warm -1", /--warm/],
  ["--max 0", /from 1 to/],
  ["--max 1001", /to 1000/],
  ["--workers 1001", /to 1000/],
  ["--workers -1", /--workers/],
  ["--seed x", /whole number/],
  ["--warm 3 --max 2", /--warm 3 is more than --max 2: lower --warm or raise --max/],
  ["--nonesuch", /unknown option '--nonesuch'/],
  ["--sripted", /unknown option.*did you mean --scripted/is],
  ["60s", /too many arguments/],
];

const split = (args: string) => args.split(" ").filter((word) => word !== "");

describe("parseArguments", () => {
  test.each(GOOD)("accepts `%s`", (args, changed) => {
    expect(parseArguments(split(args))).toEqual({ kind: "run", options: { ...DEFAULTS, ...changed } });
  });

  test.each(BAD)("refuses `%s`", (args, complaint) => {
    const request = parseArguments(split(args));
    expect(request).toEqual({ kind: "mistake", message: expect.stringMatching(complaint) });
  });

  test("an empty value is refused, not read as zero", () => {
    for (const flag of ["--rate", "--warm", "--workers", "--seed", "--for"]) {
      expect(parseArguments([flag, ""]).kind, flag).toBe("mistake");
    }
  });

  test("the help, the usage line and the documentation name every flag", async () => {
    const request = parseArguments(["--help"]);
    if (request.kind !== "help") throw new Error(`not help: ${request.kind}`);
    const page = await readFile(new URL("../../docs/demo.md", import.meta.url), "utf8");
    const documented = [...page.matchAll(/^\| `(--[a-z-]+)/gm)].map(([, flag]) => flag);
    const flags = ["--for", "--rate", "--warm", "--max", "--workers", "--seed", "--scripted", "--use-cluster"];
    expect(documented).toEqual(flags);
    for (const flag of flags) {
      expect(request.text).toContain(flag);
      expect(USAGE).toContain(flag);
    }
  });

  test("two calls do not share flags", () => {
    parseArguments(["--scripted", "--max", "50"]);
    expect(parseArguments([])).toEqual({ kind: "run", options: DEFAULTS });
  });
});
