import { existsSync } from "node:fs";
import { join } from "node:path";
import { BaseSequencer, type TestSpecification } from "vitest/node";

/**
 * Files that take minutes, roughly the longest first. A long file that starts last would run alone at the end. Vitest
 * remembers durations, but after a fresh install it sorts by file size.
 */
const LONGEST = [
  "model/scopes",
  "faults/sequences/workers",
  "faults/soak/soak",
  "faults/sequences/sessions",
  "faults/hostile/kubernetes",
  "faults/hostile/work-api",
  "faults/replicas/replicas",
  "faults/crash-points/sessions",
  "integration/shards",
  "integration/chart-install",
  "integration/sessions-faults",
  "integration/shards-operator-lease",
  "integration/conditions-faults",
].map((name) => join(import.meta.dirname, "..", `${name}.test.ts`));

for (const file of LONGEST)
  if (!existsSync(file)) throw new Error(`${file} is not there any more: strike it out, or rename it`);

/** Vitest's own order, but with the known longest files first. */
export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    const projects = Map.groupBy(sorted, ({ project }) => project);
    return [...projects.values()].flatMap((some) => some.toSorted((a, b) => rank(a.moduleId) - rank(b.moduleId)));
  }
}

function rank(file: string): number {
  const at = LONGEST.indexOf(file);
  return at === -1 ? LONGEST.length : at;
}
