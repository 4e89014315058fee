import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { requiredVersion, type ToolModule } from "../cluster/versions.ts";

/** The Go modules of a release's programs. release.yml installs the versions of their go.mod files, as a rehearsal checks. */
const TOOLS_DIR = join(import.meta.dirname, "tools");
const COSIGN = "github.com/sigstore/cosign/v3";
const ORAS = "oras.land/oras";

/** The programs that are downloaded or built. The registry comes from Debian. */
export const RELEASE_BINARIES = ["cosign", "oras"] as const;

/** Returns the modules to build, the small one first. */
export async function releaseModules(): Promise<ToolModule[]> {
  return [await orasModule(), await cosignModule()];
}

async function cosignModule(): Promise<ToolModule> {
  const dir = join(TOOLS_DIR, "cosign");
  const version = requiredVersion(await readFile(join(dir, "go.mod"), "utf8"), COSIGN);
  const folder = `github.com/sigstore/cosign/releases/download/${version}`;
  return {
    dir,
    module: COSIGN,
    version,
    commands: { cosign: `${COSIGN}/cmd/cosign` },
    ldflags: `-s -w -X sigs.k8s.io/release-utils/version.gitVersion=${version}`,
    release: (arch) => [
      { address: `${folder}/cosign-linux-${arch}`, checksums: `${folder}/cosign_checksums.txt`, command: "cosign" },
    ],
  };
}

async function orasModule(): Promise<ToolModule> {
  const dir = join(TOOLS_DIR, "oras");
  const version = requiredVersion(await readFile(join(dir, "go.mod"), "utf8"), ORAS);
  const number = version.replace(/^v/, "");
  const folder = `github.com/oras-project/oras/releases/download/${version}/oras_${number}`;
  return {
    dir,
    module: ORAS,
    version,
    commands: { oras: `${ORAS}/cmd/oras` },
    ldflags: `-s -w -X ${ORAS}/internal/version.Version=${number} -X ${ORAS}/internal/version.BuildMetadata=`,
    release: (arch) => [
      { address: `${folder}_linux_${arch}.tar.gz`, checksums: `${folder}_checksums.txt`, members: ["oras"] },
    ],
  };
}
