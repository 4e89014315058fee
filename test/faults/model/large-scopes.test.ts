import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { describe, expect, test } from "vitest";
import { CODE } from "../../../model/rules.ts";
import { holdingScopes, type Scope } from "../../../model/scopes.ts";
import { SHELL_SCOPES } from "../../../model/shell-scopes.ts";
import { SLEEP_SCOPES } from "../../../model/sleep-scopes.ts";
import { VOLUME_SCOPES } from "../../../model/volume-scopes.ts";
import { type Verdict, wordsOf } from "../../model/judge.ts";
import { readFaultSettings } from "../support/settings.ts";

// Scopes that take minutes and up to a gigabyte each. A short run explores a quick one for each way of parking, one with
// sessions that sleep, one with volumes, and each kind of lease. A sample is one in four of these.

const QUICK =
  /^\w+: .* 2 Pods each|Shell: .* Environment deleted|sleeping: .* Environment deleted|volumes: 1 item, 2 Pods with one volume$/;

const large = [...holdingScopes(CODE), ...SHELL_SCOPES, ...SLEEP_SCOPES, ...VOLUME_SCOPES].filter(
  ({ isLarge }) => isLarge,
);
const { long, sample, seed } = readFaultSettings();
const every = sample ? 4 : 1;
const scopes = long
  ? large
  : large.filter(({ name }) => QUICK.test(name)).filter((_, at) => at % every === seed % every);

describe("the protocol keeps its promises in large scopes", () => {
  const runs = startAll(scopes);

  test.each(scopes)("$name", async (scope) => {
    const verdict = await runs(scope);
    process.stdout.write(`model: ${scope.name}: ${verdict.states.toLocaleString("en")} states\n`);
    expect(verdict.fails, wordsOf(verdict)).toEqual([]);
  });
});

/** Starts to explore all scopes on the first request, one per core at a time. */
function startAll(all: readonly Scope[]): (scope: Scope) => Promise<Verdict> {
  const results = new Map(all.map((scope) => [scope.name, Promise.withResolvers<Verdict>()]));
  // Each test awaits its own result, possibly long after it failed.
  for (const { promise } of results.values()) promise.catch(() => {});
  const waiting = [...all];
  const exploreNext = async (): Promise<void> => {
    for (let scope = waiting.shift(); scope !== undefined; scope = waiting.shift()) {
      const result = results.get(scope.name);
      await judgeInThread(scope).then(result?.resolve, result?.reject);
    }
  };
  let isStarted = false;
  return async ({ name }) => {
    if (!isStarted) for (let core = 0; core < availableParallelism(); core += 1) void exploreNext();
    isStarted = true;
    const result = results.get(name);
    if (!result) throw new Error(`${name}: was not started`);
    return result.promise;
  };
}

function judgeInThread(scope: Scope): Promise<Verdict> {
  return new Promise((resolve, reject) => {
    const thread = new Worker(new URL("./judge-thread.ts", import.meta.url), { workerData: scope });
    thread.once("message", resolve);
    thread.once("error", reject);
    thread.once("exit", (code) => reject(new Error(`${scope.name}: its thread ended with ${code}`)));
  });
}
