/** `node testbed/cluster/build-main.ts` builds the control plane if needed, and prints the folder of its binaries. */
import { findBinaries } from "./build.ts";
import { MissingToolError } from "./missing.ts";
import { showProgress } from "./progress.ts";

const progress = showProgress();
try {
  const { dir } = await findBinaries({ progress });
  progress.clear();
  console.log(dir);
} catch (error) {
  progress.clear();
  if (!(error instanceof MissingToolError)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}
