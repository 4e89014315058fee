/** `npm run images`: makes the images of the end-to-end tests and tells where they are. */
import { MissingToolError } from "../cluster/missing.ts";
import { showProgress } from "../cluster/progress.ts";
import { buildImages } from "./images.ts";

const progress = showProgress();
try {
  const { archive, images, from } = await buildImages({ progress });
  progress.clear();
  console.log(`${archive} (${from})`);
  for (const { reference, digest, layers } of Object.values(images)) {
    console.log(`${reference} ${digest}`);
    for (const layer of layers) console.log(`  ${megabytes(layer.size)} ${layer.digest.slice(0, 19)} ${layer.name}`);
  }
} catch (error) {
  progress.clear();
  // It tells what to do; a stack trace would only hide that.
  if (!(error instanceof MissingToolError)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1).padStart(6)} MB`;
}
