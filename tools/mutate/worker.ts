/**
 * Runs tests against one mutation at a time, in one warm vitest: what costs is its start. No file is changed: the mutated
 * text is what vitest's transformer gets to see, so code that a test starts in a process of its own is not mutated.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { createVitest, type TestModule } from "vitest/node";
import { type Mutation, mutated } from "./mutation.ts";

/** What the tests of one mutation came to. */
export type Result =
  | { readonly is: "killed"; readonly by: string }
  | { readonly is: "survived" }
  /** The mutation does not apply, or the tests could not be run with it: that says nothing. */
  | { readonly is: "invalid"; readonly why: string };

/** Null for the code as it is. */
export type Task = { readonly mutation: Mutation | null; readonly tests: readonly string[] };

const ROOT = join(import.meta.dirname, "..", "..");

let current: Mutation | null = null;

const vitest = await createVitest(
  {
    // Not the repository's own: its projects are servers of their own, which plugins given here do not reach.
    config: false,
    root: ROOT,
    include: ["test/**/*.test.ts"],
    // A cached module would not be mutated.
    cache: false,
    fsModuleCache: false,
    watch: false,
    bail: 1,
    maxWorkers: 1,
    // A busy machine must not look like a test that noticed.
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
// Neither this process nor the ones that run tests may outlive the tool: they are one process group.
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
  return { is: "invalid", why: `${test}: ${error?.message ?? "it failed, but none of its tests did"}` };
}

function failedTest(module: TestModule): string | null {
  for (const test of module.children.allTests("failed")) return test.fullName;
  return null;
}
