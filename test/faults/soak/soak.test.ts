import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import type { Outcome } from "../../../bench/soak/soak.ts";
import { LEAST_RESTS } from "../../../bench/soak/verdict.ts";
import { readFaultSettings } from "../support/settings.ts";

const MAIN = new URL("../../../bench/soak/main.ts", import.meta.url).pathname;
const { seed, long, sample } = readFaultSettings();

/**
 * Runs the command as users do. The long run finds small leaks. The shortest run has too few idle phases to tell a leak
 * from noise, so the test prints its growth verdict and checks only the problems with sessions.
 */
const FOR = long ? "1h" : "30s";
const BOUND_MS = long ? 3 * 3_600_000 : 900_000;

/** Fields that the command adds to the outcome in its JSON. */
interface Report {
  readonly problems: readonly string[];
  readonly wrongs: readonly string[];
}

// Even the shortest run takes minutes, and the sequences have the same faults.
test.skipIf(sample)(
  "rounds of sessions with faults of every kind do not make the operator grow",
  async () => {
    const dir = await mkdtemp(join(tmpdir(), "berth-soak-"));
    try {
      const json = join(dir, "soak.json");
      const args = [MAIN, "--for", FOR, "--seed", String(seed), "--json", json];
      console.log(await outputOf(args));
      const outcome = JSON.parse(await readFile(json, "utf8")) as Outcome & Report;
      expect(long ? outcome.problems : outcome.wrongs).toEqual([]);
      expect(outcome.rounds.filter(({ isWarmUp }) => !isWarmUp).length).toBeGreaterThanOrEqual(LEAST_RESTS);
      expect(outcome.returns.times).toBeGreaterThan(0);
      // Sessions were served and faults occurred; without them, memory is always flat.
      expect(outcome.account.beaten).toBeGreaterThan(20);
      const { "faults of the Work API": faults, ...made } = outcome.trouble;
      for (const [trouble, count] of Object.entries(made)) expect(count, trouble).toBeGreaterThan(0);
      expect(faults).toBeGreaterThan(0);
      expect(Object.values(outcome.watchesEnded).reduce((sum, count) => sum + count, 0)).toBeGreaterThan(0);
    } finally {
      await rm(dir, { recursive: true });
    }
  },
  BOUND_MS,
);

/** The command's output. If the soak failed without a verdict, the error contains all of its output. */
async function outputOf(args: readonly string[]): Promise<string> {
  try {
    return (await promisify(execFile)(process.execPath, args, { timeout: BOUND_MS })).stdout;
  } catch (error) {
    const { code, stdout = "", stderr = "" } = error as { code?: unknown; stdout?: string; stderr?: string };
    if (code === 1 && stdout.includes("NOT FLAT")) return stdout;
    throw new Error(`${stdout}\n${stderr}`, { cause: error });
  }
}
