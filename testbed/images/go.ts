import { findGo } from "../cluster/go.ts";
import { buildGoWorkers } from "../workers/programs.ts";
import { runProgram } from "./commands.ts";
import { entriesKey, keyOf, treeKey } from "./keys.ts";
import type { LayerRecipe } from "./store.ts";
import type { TarEntry } from "./tar.ts";
import { directory, treeEntries } from "./tree.ts";

/** Increase this when the same inputs give a different result. */
const RECIPE = 1;
/** Where examples/images/go.Dockerfile puts the program. */
const PROGRAMS = "usr/local/bin";

/**
 * Compiles the Go workers with this machine's Go.
 * @param source the folder of the module
 */
export async function goWorkerRecipe(source: string, more: readonly TarEntry[]): Promise<LayerRecipe> {
  const go = await findGo(process.env);
  const version = await runProgram(go, ["env", "GOVERSION"], { env: { ...process.env, GOTOOLCHAIN: "local" } });
  return {
    name: "Go worker",
    key: keyOf("go worker", RECIPE, process.arch, version, await treeKey(source), entriesKey(more)),
    make: async (work) => {
      await buildGoWorkers(work, source);
      return [
        directory("usr"),
        directory("usr/local"),
        directory(PROGRAMS),
        ...(await treeEntries(work, { at: PROGRAMS })),
        ...more,
      ];
    },
  };
}
