/**
 * Runs tests against one mutation at a time, in one warm vitest, because starting it is slow. No file changes: vitest's
 * transformer receives the mutated text. Code that a test starts in another process is therefore not mutated.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { createVitest, type TestModule } from "vitest/node";
import { type Mutation, mutated } from "./mutation.ts";

/** The test result of one mutation. */
export type Result =
  | { readonly is: "killed"; readonly by: string }
  | { readonly is: "survived" }
  /** The mutation does not apply, or its tests could not run: the result says nothing. */
  | { readonly is: "invalid"; readonly why: string };

/** A null `mutation` tests the unchanged code. */
export type Task = { readonly mutation: Mutation | null; readonly tests: readonly string[] };

const ROOT = join(import.meta.dirname, "..", "..");

let current: Mutation | null = null;

const vitest = await createVitest(
  {
    // Do not use the repository's config: its projects are separate servers, which the plugins here don't reach.
    config: false,
    root: ROOT,
    include: ["test/**/*.test.ts"],
    // A cached module would not be mutated.
    cache: false,
    fsModuleCache: false,
    watch: false,
    bail: 1,
    maxWorkers: 1,
    // A slow machine must not look like a failing test.
    testTimeout: 30_000,
    expect: { poll: { timeout: 10_000 } },
    reporters: [{}],
    silent: true,
  },
  {
    plugins: [
      {
        name: "mutation",
        enforce: "pre",
        transform: (code, id) =>
          current !== null && id.split("?")[0] === join(ROOT, current.file) ? mutated(code, current) : null,
      },
    ],
  },
);

process.on("message", (task: Task) => {
  void run(task).then(
    (result) => process.send?.(result),
    (error: unknown) => process.send?.({ is: "invalid", why: String(error) } satisfies Result),
  );
});
// Neither this process nor its test processes may outlive the tool; they form one process group.
process.on("disconnect", () => process.kill(-process.pid, "SIGKILL"));

async function run({ mutation, tests }: Task): Promise<Result> {
  if (mutation) mutated(await readFile(join(ROOT, mutation.file), "utf8"), mutation);
  current = mutation;
  const files = mutation ? [join(ROOT, mutation.file)] : [];
  for (const file of files) vitest.invalidateFile(file);
  try {
    for (const test of tests) {
      const result = await runFile(test);
      if (result.is !== "survived") return result;
    }
    return { is: "survived" };
  } finally {
    current = null;
    for (const file of files) vitest.invalidateFile(file);
  }
}

async function runFile(test: string): Promise<Result> {
  const specifications = await vitest.globTestSpecifications([join(ROOT, test)]);
  if (specifications.length !== 1) return { is: "invalid", why: `${test}: ${specifications.length} files` };
  const { testModules, unhandledErrors } = await vitest.runTestSpecifications(specifications);
  const module = testModules.find(({ moduleId }) => moduleId === join(ROOT, test));
  if (!module) return { is: "invalid", why: `${test} did not run` };
  const failed = failedTest(module);
  if (failed !== null) return { is: "killed", by: `${test}: ${failed}` };
  if (module.ok() && unhandledErrors.length === 0) return { is: "survived" };
  const [error] = [...module.errors(), ...(unhandledErrors as Error[])];
  return { is: "invalid", why: `${test}: ${error?.message ?? "the file failed, but none of its tests did"}` };
}

function failedTest(module: TestModule): string | null {
  for (const test of module.children.allTests("failed")) return test.fullName;
  return null;
}
