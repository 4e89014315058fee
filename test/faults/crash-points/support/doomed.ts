import { spawn } from "node:child_process";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Death } from "../../../support/sudden-death.ts";
import { TEST_TIME_SCALE, type World } from "../../../support/world.ts";
import { PATIENCE_MS } from "../../support/patience.ts";

/** Log lines in the message of a death that did not happen. */
const LINES_KEPT = 40;

/** Compiled sources, shared by all processes of a run. This halves the cost of a start. */
const COMPILE_CACHE = join(tmpdir(), "berth-compile-cache");

const MAIN = new URL("../../../support/operator-main.ts", import.meta.url).pathname;

/** An operator that will die at a point. */
export interface Doomed {
  /** Resolves when the operator has died as planned. Rejects if it ended in another way or stays alive. */
  readonly died: Promise<void>;
}

/**
 * Starts an operator that kills itself with SIGKILL as `death` says.
 * @param timeScale divides the operator's own pauses
 */
export function startDoomed(world: World, death: Death, timeScale = TEST_TIME_SCALE): Doomed {
  const flags = [...world.flags(), "--leader-elect=false", "--log-level", "info"];
  const args = [MAIN, String(timeScale), "--death", JSON.stringify(death), ...flags];
  const child = spawn(process.execPath, args, {
    stdio: ["pipe", "ignore", "pipe"],
    env: { ...withoutSettings(process.env), NODE_COMPILE_CACHE: COMPILE_CACHE },
  });
  const tail: string[] = [];
  createInterface({ input: child.stderr }).on("line", (line) => {
    tail.push(line);
    if (tail.length > LINES_KEPT) tail.shift();
  });
  const wait = async () => {
    const ended = once(child, "exit") as Promise<[number | null, string | null]>;
    const bound = new AbortController();
    const late = once(AbortSignal.any([bound.signal, AbortSignal.timeout(PATIENCE_MS)]), "abort").then(() => null);
    const end = await Promise.race([ended, late]);
    bound.abort();
    if (end?.[1] === "SIGKILL") return;
    child.kill("SIGKILL");
    const what = end ? `ended with ${end[0] ?? end[1]}` : "never came there";
    const { point, phase } = death;
    throw new Error(
      `the operator was to die at ${point} (${phase}) and ${what}:\n${tail.join("\n")}\n${world.describe()}`,
    );
  };
  return { died: wait() };
}

/** The tests' own variables must not reach the operator, which rejects unknown variables with its prefix. */
function withoutSettings(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !name.startsWith("BERTH_")));
}
