/** `npm run test:faults`: what tries to break Berth's promises, with a seed. See docs/faults.md. */
import { runNode, splitFlags, vitestFile } from "../support/run-vitest.ts";
import { chooseSeed, LONG, SEED } from "./support/settings.ts";

const EXIT_USAGE = 2;

const OPTIONS = { seed: { type: "string" }, long: { type: "boolean" } } as const;

process.exitCode = await main(process.argv.slice(2));

async function main(argv: readonly string[]): Promise<number> {
  const { values, rest } = splitFlags(argv, OPTIONS);
  const long = values["long"] === true;
  let seed: number;
  try {
    const asked = values["seed"];
    seed = chooseSeed(asked === undefined ? undefined : String(asked), process.env["CI"] === "true");
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    return EXIT_USAGE;
  }
  const again = ["npm run test:faults --", ...(long ? ["--long"] : []), "--seed", seed, ...rest].join(" ");
  console.log(`Seed ${seed}. The same run again: ${again}`);
  const env = { ...process.env, [SEED]: String(seed), [LONG]: String(long) };
  const code = await runNode([vitestFile(), "run", "--project", "faults", ...rest], env);
  if (code !== 0) console.error(`Seed ${seed}. The same run again: ${again}`);
  return code;
}
