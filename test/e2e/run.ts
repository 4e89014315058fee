/** `npm run test:e2e`: the end-to-end tests, on their own node or on a given cluster. See docs/e2e.md. */
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { runNode, splitFlags, vitestFile } from "../support/run-vitest.ts";
import { ATTACH_TO, IMAGE_PREFIX, IMAGE_TAG, LONG, USE_CLUSTER, USER_NAMESPACES } from "./support/settings.ts";

const EXIT_USAGE = 2;

/** Our flags; all others are passed to vitest. */
const OPTIONS = {
  "use-cluster": { type: "boolean" },
  keep: { type: "boolean" },
  attach: { type: "string" },
  long: { type: "boolean" },
  "user-namespaces": { type: "boolean" },
  "image-prefix": { type: "string" },
  "image-tag": { type: "string" },
} as const;

process.exitCode = await main(process.argv.slice(2));

async function main(argv: readonly string[]): Promise<number> {
  const { values, rest } = splitFlags(argv, OPTIONS);
  const env: NodeJS.ProcessEnv = { ...process.env };
  if (values["use-cluster"]) {
    if (!env["KUBECONFIG"]) {
      console.error("--use-cluster: set KUBECONFIG to the kubeconfig of the cluster; see docs/e2e.md");
      return EXIT_USAGE;
    }
    env[USE_CLUSTER] = "true";
  }
  if (values["long"]) env[LONG] = "true";
  if (values["user-namespaces"]) env[USER_NAMESPACES] = "true";
  const text = (flag: keyof typeof OPTIONS) => (values[flag] === undefined ? undefined : String(values[flag]));
  const attach = text("attach");
  env[ATTACH_TO] = attach === undefined ? env[ATTACH_TO] : resolve(attach);
  env[IMAGE_PREFIX] = text("image-prefix") ?? env[IMAGE_PREFIX];
  env[IMAGE_TAG] = text("image-tag") ?? env[IMAGE_TAG];
  const keep = fileURLToPath(new URL("./keep.ts", import.meta.url));
  return runNode(values["keep"] ? [keep] : [vitestFile(), "run", "--project", "e2e*", ...rest], env);
}
