import { join } from "node:path";
import { type Plugin, rolldown } from "rolldown";
import { LICENCES_FILE, licences } from "../bundle/licences.ts";
import { oneByteText, SOURCES, undiciInParts } from "../bundle/rolldown.config.ts";

/** kubectl runs a file of this name for `kubectl berth`. */
export const PLUGIN = "kubectl-berth";

/** Node 20 can parse the file, so that it can say what is wrong. Older ones are out of use. */
const OLDEST_PARSER = "node20";
const OLDEST_MAJOR = 24;

const HEAD = `#!/usr/bin/env node
if (Number(process.versions.node.split(".")[0]) < ${OLDEST_MAJOR}) {
  process.stderr.write(
    "kubectl berth: needs Node ${OLDEST_MAJOR} or newer; this is Node " + process.versions.node + " (" + process.execPath + ").\\n" +
      "Install Node ${OLDEST_MAJOR} (https://nodejs.org), and put it first on PATH.\\n",
  );
  process.exit(1);
}`;

/** The text of the plugin: one file that needs only Node, with the licenses of its packages at its end. */
export async function buildPlugin(version: string): Promise<string> {
  await using bundle = await rolldown({
    input: join(import.meta.dirname, "entry.ts"),
    platform: "node",
    transform: { target: OLDEST_PARSER },
    plugins: [undiciInParts(), fixedVersion(version), oneByteText(), licences()],
  });
  const { output } = await bundle.generate({
    // A file without an extension, in a folder without a package.json, is CommonJS for every version of Node.
    format: "cjs",
    codeSplitting: false,
    comments: false,
    keepNames: true,
    banner: HEAD,
  });
  const [program] = output;
  const texts = output.find(({ fileName }) => fileName === LICENCES_FILE);
  if (texts?.type !== "asset") throw new Error("the bundle has no licenses");
  return `${program.code}\n/*\n${String(texts.source).replaceAll("*/", "* /")}\n*/\n`;
}

/** There is no package.json beside the file. */
function fixedVersion(version: string): Plugin {
  return {
    name: "fixed-version",
    load(id) {
      if (id !== join(SOURCES, "settings", "version.ts")) return null;
      return `export const berthVersion = () => ${JSON.stringify(version)};\nexport const docsUrl = () => "";\n`;
    },
  };
}
