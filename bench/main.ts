/**
 * `npm run bench` measures how fast Berth is compared with what is possible. See options.ts for its options, and
 * docs/performance.md.
 */
import { EXIT, obey } from "../tools/command-line.ts";
import { type BenchOptions, parseArguments, USAGE } from "./options.ts";
import { writeReport } from "./report/report.ts";
import { gateLine, tableLines } from "./report/text.ts";
import { type Answer, isKept, type Report, type Scenario } from "./scenario.ts";
import { SCENARIOS } from "./scenarios/scenarios.ts";

const request = parseArguments(
  process.argv.slice(2),
  SCENARIOS.map(({ name }) => name),
);
process.exitCode = await obey(request, USAGE, run);

async function run(options: BenchOptions): Promise<number> {
  const chosen = SCENARIOS.filter(({ name, needsNode }) => {
    return options.names.length === 0 ? !needsNode : options.names.includes(name);
  });
  const answers: Answer[] = [];
  for (const scenario of chosen) {
    console.log(`\n${scenario.title}`);
    answers.push(await answer(scenario, options));
    // Write the report after each scenario, so that its results survive if a later one fails.
    await writeReport(options.out, reportOf(options, answers));
  }
  console.log(`\nThe whole report is in ${options.out}/report.md.`);
  const broken = answers.filter(({ error }) => error !== undefined);
  const missed = answers.flatMap(({ findings }) => findings?.gates ?? []).filter((gate) => !isKept(gate));
  for (const gate of missed) console.log(gateLine(gate));
  for (const { name, error } of broken) console.log(`${name} failed: ${error}`);
  const isWrong = broken.length > 0 || (options.check && !options.quick && missed.length > 0);
  return isWrong ? EXIT.failed : EXIT.ok;
}

/** Runs one scenario and returns its error instead of throwing it, so that the others still run. */
async function answer(scenario: Scenario, options: BenchOptions): Promise<Answer> {
  const { name, title, about } = scenario;
  const startedAt = performance.now();
  const seconds = () => (performance.now() - startedAt) / 1_000;
  try {
    const findings = await scenario.run({ options, log: (line) => console.log(`  ${line}`) });
    for (const table of findings.tables) console.log(tableLines(table).join("\n"));
    for (const gate of findings.gates) console.log(gateLine(gate));
    return { name, title, about, seconds: seconds(), findings };
  } catch (error) {
    console.error(error);
    return { name, title, about, seconds: seconds(), error: error instanceof Error ? error.message : String(error) };
  }
}

function reportOf({ seed, quick }: BenchOptions, answers: readonly Answer[]): Report {
  return { madeAt: new Date().toISOString(), seed, quick, answers };
}
