/** `npm run test:faults`: tests that try to break Berth's promises, with a seed. See docs/faults.md. */
import { runNode, splitFlags, vitestFile } from "../support/run-vitest.ts";
import { chooseSeed, LONG, SAMPLE, SEED } from "./support/settings.ts";

const EXIT_USAGE = 2;

const OPTIONS = { seed: { type: "string" }, long: { type: "boolean" }, sample: { type: "boolean" } } as const;

process.exitCode = await main(process.argv.slice(2));

async function main(argv: readonly string[]): Promise<number> {
  const { values, rest } = splitFlags(argv, OPTIONS);
  const long = values["long"] === true;
  const sample = values["sample"] === true;
  let seed: number;
  try {
    if (long && sample) throw new RangeError("--long tries more than a plain run, and --sample less: give one of them");
    const asked = values["seed"];
    seed = chooseSeed(asked === undefined ? undefined : String(asked), process.env["CI"] === "true");
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    return EXIT_USAGE;
  }
  const again = [
    "npm run test:faults --",
    ...(long ? ["--long"] : []),
    ...(sample ? ["--sample"] : []),
    "--seed",
    seed,
    ...rest,
  ].join(" ");
  console.log(`Seed ${seed}. The same run again: ${again}`);
  const env = { ...process.env, [SEED]: String(seed), [LONG]: String(long), [SAMPLE]: String(sample) };
  const code = await runNode([vitestFile(), "run", "--project", "faults", ...rest], env);
  if (code !== 0) console.error(`Seed ${seed}. The same run again: ${again}`);
  return code;
}
