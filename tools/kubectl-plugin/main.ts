/**
 * `node tools/kubectl-plugin/main.ts [--source URL] --output FOLDER`: writes the kubectl plugin. With the repository's
 * address, also its archive and its manifest for krew, as a release publishes them.
 */
import { createHash } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { gzipSync } from "node:zlib";
import { stringify } from "yaml";
import { type TarEntry, tarBytes } from "../../testbed/images/tar.ts";
import { buildPlugin, PLUGIN } from "./build.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const PROGRAM = 0o755;
const DOCUMENT = 0o644;

/** What krew reads: https://krew.sigs.k8s.io/docs/developer-guide/plugin-manifest/ */
export function krewManifest({ version, source, sha256 }: { version: string; source: string; sha256: string }): string {
  return stringify({
    apiVersion: "krew.googlecontainertools.github.com/v1alpha2",
    kind: "Plugin",
    metadata: { name: "berth" },
    spec: {
      version: `v${version}`,
      homepage: source,
      shortDescription: "Check and explain self-hosted agent sandboxes",
      description:
        "Checks a cluster with Berth, its operators and its Environments, explains what happened to a session, " +
        "and shows what an Environment becomes. It changes nothing.\n",
      caveats: "Needs Node 24 or newer on your PATH.\n",
      platforms: [
        {
          // The file has a #! line, so krew can't start it on Windows.
          selector: { matchExpressions: [{ key: "os", operator: "In", values: ["darwin", "linux"] }] },
          uri: `${source}/releases/download/v${version}/${archiveName(version)}`,
          sha256,
          bin: PLUGIN,
        },
      ],
    },
  });
}

function archiveName(version: string): string {
  return `${PLUGIN}-${version}.tar.gz`;
}

/** Writes the plugin's files into a folder, and returns their names. */
export async function writePlugin(output: string, source: string | undefined): Promise<string[]> {
  const { version } = JSON.parse(await readFile(join(ROOT, "package.json"), "utf8")) as { version: string };
  const program = Buffer.from(await buildPlugin(version));
  await mkdir(output, { recursive: true });
  await writeFile(join(output, PLUGIN), program, { mode: PROGRAM });
  if (source === undefined) return [PLUGIN];
  const license = await readFile(join(ROOT, "LICENSE"));
  const members = [member(PLUGIN, PROGRAM, program), member("LICENSE", DOCUMENT, license)];
  const archive = gzipSync(await buffer(tarBytes(members)));
  const sha256 = createHash("sha256").update(archive).digest("hex");
  await writeFile(join(output, archiveName(version)), archive);
  await writeFile(join(output, "krew.yaml"), krewManifest({ version, source, sha256 }));
  return [PLUGIN, archiveName(version), "krew.yaml"];
}

function member(path: string, mode: number, content: Buffer): TarEntry {
  return { type: "file", path, mode, uid: 0, gid: 0, content };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({ options: { source: { type: "string" }, output: { type: "string" } } });
  const { output, source } = values;
  if (!output) throw new Error("--output is missing: name a folder");
  for (const name of await writePlugin(output, source)) console.log(join(output, name));
}
