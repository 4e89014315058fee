/** `npm run images` builds the images of the end-to-end tests and prints where they are. */
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
  // The message says what to do. A stack trace would hide that.
  if (!(error instanceof MissingToolError)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1).padStart(6)} MB`;
}
