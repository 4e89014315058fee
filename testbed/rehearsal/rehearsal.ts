/** Rehearses a release: runs the steps of release.yml on this machine, against a registry on loopback. */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { delimiter, dirname, join } from "node:path";
import { promisify } from "node:util";
import { cacheRoot } from "../cluster/cache.ts";
import { type Progress, silentProgress } from "../cluster/progress.ts";
import type { Supervisor } from "../cluster/supervisor.ts";
import { Buildah, leanDriver } from "../images/buildah.ts";
import { requireRoot } from "../images/commands.ts";
import { writeNodeImage } from "../images/images.ts";
import { actionsOf, install, type Stage } from "./actions.ts";
import { findReleasePrograms, type ReleasePrograms } from "./programs.ts";
import { ACCOUNT, type Registry, startRegistry } from "./registry.ts";
import { type Done, readJob, runJob, type Values } from "./workflow.ts";

const ROOT = join(import.meta.dirname, "..", "..");
const WORKFLOW = ".github/workflows/release.yml";
const BASE = "docker.io/library/node:24-slim";
const MAX_OUTPUT_BYTES = 16 * 1024 ** 2;
const KEY_PASSWORD = "rehearsal";

/** With capitals, which registries refuse. */
const REPOSITORY = { owner: "Some-Owner", name: "Some-Owner/Berth", server: "https://github.com" };
const COMMIT = createHash("sha1").update("rehearsal").digest("hex");
export const ARTIFACT_HUB_ID = "3f0a1c9e-0000-4000-8000-000000000000";

/** What the replacement of gh received to publish. */
export interface Published {
  readonly tag: string;
  readonly title: string;
  readonly verifyTag: boolean;
  readonly prerelease: boolean;
  readonly notes: string;
  readonly files: readonly string[];
}

/** What a rehearsal left. */
export interface Rehearsed {
  readonly version: string;
  /** The repository's address. */
  readonly source: string;
  readonly commit: string;
  readonly steps: readonly Done[];
  readonly values: Values;
  readonly programs: ReleasePrograms;
  readonly registry: Registry;
  /** The public key of the signatures. */
  readonly publicKey: string;
  /** The signed statement about the files. */
  readonly fileBundle: string;
  /** For programs that read the registry, as its user. */
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly published: Published;
  /** The folder with the published files. */
  readonly files: string;
  /** The folder of the checkout in which the steps ran. */
  readonly workspace: string;
}

/**
 * Runs the job `publish`. Everything is below the supervisor's folder, and ends with it.
 * @throws MissingToolError if this machine lacks something
 */
export async function rehearse(supervisor: Supervisor, progress: Progress = silentProgress): Promise<Rehearsed> {
  requireRoot("Building the image");
  const programs = await findReleasePrograms({ progress });
  const dir = supervisor.dir;
  const folder = async (name: string) => {
    await mkdir(join(dir, name));
    return join(dir, name);
  };
  const [workspace, bin, credentials] = [await folder("workspace"), await folder("bin"), await folder("credentials")];
  const [temp, keys] = [await folder("temp"), await folder("keys")];
  const version = await copyCheckout(workspace);
  const registry = await startRegistry(programs.registry, supervisor);
  const buildah = new Buildah(join(dir, "buildah"), await leanDriver(dir));
  const base = join(dir, "base.tar");
  await writeNodeImage(base, BASE, { progress });
  await buildah.load(base);

  const { job, env: own } = await readJob(join(workspace, WORKFLOW), "publish");
  const source = `${REPOSITORY.server}/${REPOSITORY.name}`;
  const release = join(dir, "release");
  const env = {
    ...process.env,
    PATH: [bin, dirname(process.execPath), process.env["PATH"]].join(delimiter),
    // The user's own caches, but not the user's own credentials.
    XDG_CACHE_HOME: dirname(cacheRoot()),
    DOCKER_CONFIG: credentials,
    HELM_CONFIG_HOME: join(dir, "helm"),
    SSL_CERT_FILE: registry.ca,
    CI: "true",
    RUNNER_TEMP: temp,
    GITHUB_WORKSPACE: workspace,
    GITHUB_SERVER_URL: REPOSITORY.server,
    GITHUB_REPOSITORY: REPOSITORY.name,
    GITHUB_REPOSITORY_OWNER: REPOSITORY.owner,
    GITHUB_REF_NAME: `v${version}`,
    GITHUB_ACTOR: ACCOUNT.user,
    GITHUB_SHA: COMMIT,
    ...own,
    REGISTRY: registry.address,
    REHEARSAL_RELEASE: release,
    REHEARSAL_BASE: BASE.split("/").at(-1),
    REHEARSAL_BASE_DIGEST: await digestOf(base),
  };
  const node = (main: string) => `#!/bin/sh\nexec '${process.execPath}' '${join(import.meta.dirname, main)}' "$@"\n`;
  await install(join(bin, "docker"), node("docker-main.ts"));
  await install(join(bin, "gh"), node("gh-main.ts"));
  await run(programs.cosign, ["generate-key-pair"], { cwd: keys, env: { ...env, COSIGN_PASSWORD: KEY_PASSWORD } });

  const attestations = join(dir, "attestations");
  const stage: Stage = {
    ...{ workspace, programs, registry, buildah, bin, credentials, env, attestations },
    context: join(dir, "context"),
    permissions: job.permissions,
    key: { file: join(keys, "cosign.key"), password: KEY_PASSWORD },
    source: { repository: source, ref: `refs/tags/v${version}`, commit: COMMIT },
  };
  const { done, values } = await runJob(job, {
    ...{ workspace, temp, env },
    actions: actionsOf(stage),
    onStep: (title) => progress.update(title),
    values: new Map([
      ["env.REGISTRY", registry.address],
      ["github.actor", ACCOUNT.user],
      ["github.repository", REPOSITORY.name],
      ["github.server_url", REPOSITORY.server],
      ["github.sha", COMMIT],
      ["runner.temp", temp],
      ["secrets.GITHUB_TOKEN", ACCOUNT.password],
      ["vars.ARTIFACTHUB_REPOSITORY_ID", ARTIFACT_HUB_ID],
    ]),
  });
  return {
    ...{ version, source, values, programs, registry, env, workspace },
    commit: COMMIT,
    steps: done,
    publicKey: join(keys, "cosign.pub"),
    fileBundle: join(attestations, "files.sigstore.json"),
    published: JSON.parse(await readFile(join(release, "release.json"), "utf8")) as Published,
    files: join(release, "files"),
  };
}

/** Copies what git tracks and what is about to be added. Resolves with the version. */
async function copyCheckout(to: string): Promise<string> {
  const list = ["ls-files", "--cached", "--others", "--exclude-standard", "-z"];
  const { stdout } = await promisify(execFile)("git", list, { cwd: ROOT, maxBuffer: MAX_OUTPUT_BYTES });
  const paths = stdout.split("\0").filter((path) => path !== "");
  await Promise.all(
    paths.map(async (path) => {
      await mkdir(dirname(join(to, path)), { recursive: true });
      await cp(join(ROOT, path), join(to, path), { verbatimSymlinks: true });
    }),
  );
  const { version } = JSON.parse(await readFile(join(to, "package.json"), "utf8")) as { version: string };
  // The one edit of a release that its version doesn't show.
  const changelog = join(to, "CHANGELOG.md");
  const text = await readFile(changelog, "utf8");
  if (!text.includes(`\n## ${version}\n`))
    await writeFile(changelog, text.replace("\n## Unreleased\n", `\n## ${version}\n`));
  return version;
}

/** The digest of an OCI archive's only image. */
async function digestOf(archive: string): Promise<string> {
  const { stdout } = await promisify(execFile)("tar", ["-xOf", archive, "index.json"]);
  const { manifests } = JSON.parse(stdout) as { manifests: readonly { readonly digest: string }[] };
  return manifests[0]?.digest ?? "";
}

async function run(
  file: string,
  args: readonly string[],
  options: { readonly cwd: string; readonly env: Readonly<Record<string, string | undefined>> },
): Promise<void> {
  await promisify(execFile)(file, args, options);
}
