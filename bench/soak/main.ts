/** `npm run soak` finds out whether the operator's memory grows. See options.ts for its options, and docs/soak.md. */
import { writeFile } from "node:fs/promises";
import { EXIT, obey } from "../../tools/command-line.ts";
import { parseArguments, type SoakOptions, USAGE } from "./options.ts";
import { HEADER, problemsOf, roundLine, summaryLines, wrongsOf } from "./report.ts";
import { type Outcome, soak } from "./soak.ts";

process.exitCode = await obey(parseArguments(process.argv.slice(2)), USAGE, run);

async function run(options: SoakOptions): Promise<number> {
  const { rate, seed, forMs } = options;
  console.log(
    `${rate} sessions per second for ${forMs / 1_000} s, seed ${seed}; memory in MiB after a garbage collection`,
  );
  console.log(HEADER);
  let outcome: Outcome;
  try {
    outcome = await soak(options, (round) => console.log(roundLine(round)));
  } catch (error) {
    console.error(`the soak failed: ${error instanceof Error ? error.stack : error}`);
    return EXIT.failed;
  }
  console.log(summaryLines(outcome).join("\n"));
  const problems = problemsOf(outcome);
  if (options.json !== undefined) {
    const report = { ...outcome, problems, wrongs: wrongsOf(outcome) };
    await writeFile(options.json, `${JSON.stringify(report, null, 2)}\n`);
  }
  return problems.length === 0 ? EXIT.ok : EXIT.failed;
}
