import { execFile } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { findClientTools } from "../../testbed/cluster/client-tools.ts";
import { showProgress } from "../../testbed/cluster/progress.ts";
import { Supervisor } from "../../testbed/cluster/supervisor.ts";
import { ARTIFACT_HUB_ID, type Rehearsed, rehearse } from "../../testbed/rehearsal/rehearsal.ts";

// The steps of release.yml run once. These tests look at what they left, as users do (docs/releasing.md). Not rehearsed:
// the second platform, BuildKit's own attestations, and Sigstore's services, in whose place a key signs.

/** The first run builds the programs, on a machine that may be busy. */
const REHEARSAL_TIMEOUT_MS = 2_400_000;
const RUN_TIMEOUT_MS = 60_000;
/** The type of statement that `cosign sign` makes. */
const SIGNATURE = "https://sigstore.dev/cosign/sign/v1";
const MAX_OUTPUT_BYTES = 64 * 1024 ** 2;

let supervisor: Supervisor;
let done: Rehearsed;
let image: string;
let digest: string;
let chart: string;
let chartDigest: string;

beforeAll(async () => {
  supervisor = await Supervisor.start(join(tmpdir(), `berth-rehearsal-${randomBytes(6).toString("hex")}`));
  const progress = showProgress();
  done = await rehearse(supervisor, progress);
  progress.clear();
  const output = (path: string) => done.values.get(`steps.${path}`) ?? "";
  image = output("names.outputs.image");
  digest = output("build.outputs.digest");
  chart = `${output("names.outputs.charts")}/berth`;
  chartDigest = output("chart.outputs.digest");
}, REHEARSAL_TIMEOUT_MS);
// buildah's store has thousands of files.
afterAll(() => supervisor?.end(), REHEARSAL_TIMEOUT_MS);

async function run(file: string, ...args: readonly string[]): Promise<string> {
  return (await promisify(execFile)(file, args, { env: done.env, maxBuffer: MAX_OUTPUT_BYTES })).stdout;
}

/** Runs cosign as a user who has the public key. */
const verified = (command: string, ...args: readonly string[]) =>
  run(done.programs.cosign, command, "--key", done.publicKey, "--insecure-ignore-tlog", ...args);

/** The statements of a type about an image, after a check of their signatures. */
async function statements(type: string, reference: string) {
  const lines = (await verified("verify-attestation", "--type", type, reference))
    .split("\n")
    .filter((line) => line !== "");
  return lines.map((line) => JSON.parse(Buffer.from(JSON.parse(line).payload, "base64").toString()));
}

async function manifestOf(reference: string, wanted: string) {
  const path = reference.slice(reference.indexOf("/") + 1);
  const accept = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json";
  const { status, headers, body } = await done.registry.get(`${path}/manifests/${wanted}`, accept);
  expect(status, `${reference} ${wanted}`).toBe(200);
  return { digest: headers["docker-content-digest"], manifest: JSON.parse(body), path };
}

const packages = async (): Promise<Set<string>> => {
  const lock = JSON.parse(await readFile(join(done.workspace, "package-lock.json"), "utf8"));
  const names = Object.keys(lock.packages[""].dependencies);
  return new Set(names.map((name) => `${name}@${lock.packages[`node_modules/${name}`].version}`));
};

describe("a release, rehearsed", { timeout: RUN_TIMEOUT_MS }, () => {
  test("runs every step of the workflow", () => {
    expect(done.steps.filter(({ skipped }) => skipped)).toEqual([]);
    expect(done.steps.length).toBeGreaterThan(15);
  });

  test("leaves the image in the registry, with its origin, for a user that is not root", async () => {
    const { digest: pushed, manifest, path } = await manifestOf(image, done.version);
    expect(pushed).toBe(digest);
    const { body } = await done.registry.get(`${path}/blobs/${manifest.config.digest}`);
    const { config, architecture } = JSON.parse(body);
    expect(config.User).toBe("65532:65532");
    expect(["amd64", "arm64"]).toContain(architecture);
    expect(config.Labels).toMatchObject({
      "org.opencontainers.image.source": done.source,
      "org.opencontainers.image.revision": done.commit,
      "org.opencontainers.image.version": done.version,
    });
  });

  test("leaves a chart that installs this image by its digest, and names its repository", async () => {
    expect((await manifestOf(chart, done.version)).digest).toBe(chartDigest);
    const helm = join(await findClientTools(), "helm");
    const dir = join(supervisor.dir, "pulled");
    await mkdir(dir);
    await run(helm, "pull", `oci://${chart}`, "--version", done.version, "--destination", dir);
    const archive = join(dir, `berth-${done.version}.tgz`);
    expect(await readFile(archive)).toEqual(await readFile(join(done.files, `berth-${done.version}.tgz`)));
    const objects = await run(helm, "template", "berth", archive, "--namespace", "berth-system");
    const images = [...objects.matchAll(/^\s+image: (.*)$/gm)].map(([, name = ""]) => parse(name));
    expect(new Set(images)).toEqual(new Set([`${image}@${digest}`]));
    const { sources, version } = parse(await run(helm, "show", "chart", archive));
    expect({ sources, version }).toEqual({ sources: [done.source], version: done.version });
    const { manifest } = await manifestOf(chart, done.version);
    expect(manifest.annotations["org.opencontainers.image.source"]).toBe(done.source);
  });

  test.each([
    ["image", () => [image, digest]],
    ["chart", () => [chart, chartDigest]],
  ])("signs the %s by its digest", async (_what, of) => {
    const [reference, wanted] = of();
    // cosign verify would also accept an attestation as a signature.
    await verified("verify", `${reference}:${done.version}`);
    const all = await statements(SIGNATURE, `${reference}:${done.version}`);
    expect(all.map(({ subject }) => subject[0].digest.sha256)).toEqual([wanted?.replace("sha256:", "")]);
  });

  test("leaves no signature that another key verifies, or of what it didn't sign", async () => {
    const keys = join(supervisor.dir, "other");
    const env = { ...done.env, COSIGN_PASSWORD: "" };
    await promisify(execFile)(done.programs.cosign, ["generate-key-pair", "--output-key-prefix", keys], { env });
    const other = ["verify", "--key", `${keys}.pub`, "--insecure-ignore-tlog", `${image}:${done.version}`];
    await expect(run(done.programs.cosign, ...other)).rejects.toThrow(/failed to verify signature/);
    await expect(verified("verify", `${chart}:artifacthub.io`)).rejects.toThrow(/no signatures found/);
  });

  test.each([
    ["image", () => [image, digest]],
    ["chart", () => [chart, chartDigest]],
  ])("states how the %s was built: from this commit, by this workflow", async (_what, of) => {
    const [reference, wanted] = of();
    const all = await statements("slsaprovenance1", `${reference}@${wanted}`);
    expect(all).toHaveLength(1);
    const [{ subject, predicate }] = all;
    expect(subject).toEqual([{ name: reference, digest: { sha256: wanted?.replace("sha256:", "") } }]);
    const { externalParameters, resolvedDependencies } = predicate.buildDefinition;
    expect(externalParameters.workflow.path).toBe(".github/workflows/release.yml");
    expect(resolvedDependencies[0].digest.gitCommit).toBe(done.commit);
  });

  test("states the packages in the image, as the published bill of materials lists them", async () => {
    const all = await statements("cyclonedx", `${image}@${digest}`);
    expect(all).toHaveLength(1);
    const [{ subject, predicate }] = all;
    expect(subject[0].digest.sha256).toBe(digest.replace("sha256:", ""));
    const bill = JSON.parse(await readFile(join(done.files, "berth-sbom.cdx.json"), "utf8"));
    expect(predicate).toEqual(bill);
    expect(bill.bomFormat).toBe("CycloneDX");
    const listed = bill.components.map(({ name, version }: { name: string; version: string }) => `${name}@${version}`);
    expect(listed).toEqual(expect.arrayContaining([...(await packages())]));
  });

  test("claims the chart on Artifact Hub", async () => {
    const { manifest, path } = await manifestOf(chart, "artifacthub.io");
    expect(manifest.config.mediaType).toBe("application/vnd.cncf.artifacthub.config.v1+yaml");
    const [layer] = manifest.layers;
    expect(layer.mediaType).toBe("application/vnd.cncf.artifacthub.repository-metadata.layer.v1.yaml");
    const { body } = await done.registry.get(`${path}/blobs/${layer.digest}`);
    expect(parse(body)).toEqual({ repositoryID: ARTIFACT_HUB_ID });
  });

  test("publishes the files with their digests and a statement about each, and the notes of this version", async () => {
    const { files, notes, ...about } = done.published;
    const prerelease = done.version.includes("-");
    expect(about).toEqual({ tag: `v${done.version}`, title: `Berth ${done.version}`, verifyTag: true, prerelease });
    const names = [`berth-${done.version}.tgz`, "berth-sbom.cdx.json", "krew.yaml", "kubectl-berth"];
    const plugin = `kubectl-berth-${done.version}.tar.gz`;
    expect([...files].sort()).toEqual(["SHA256SUMS", ...names, plugin].sort());
    expect((await readdir(done.files)).sort()).toEqual([...files].sort());
    expect(notes).toContain(`](${done.source}/blob/v${done.version}/`);
    expect(notes).not.toMatch(/^## /m);

    const sums = (await readFile(join(done.files, "SHA256SUMS"), "utf8")).trimEnd().split("\n");
    const listed = new Map(sums.map((line) => [line.slice(66), line.slice(0, 64)] as const));
    expect([...listed.keys()].sort()).toEqual([...names, plugin].sort());
    for (const [name, sum] of listed) {
      const file = join(done.files, name);
      expect(
        createHash("sha256")
          .update(await readFile(file))
          .digest("hex"),
        name,
      ).toBe(sum);
      await verified("verify-blob-attestation", "--bundle", done.fileBundle, "--type", "slsaprovenance1", file);
    }
    const changed = join(supervisor.dir, "kubectl-berth");
    await writeFile(changed, "changed");
    const wrong = ["--bundle", done.fileBundle, "--type", "slsaprovenance1", changed];
    await expect(verified("verify-blob-attestation", ...wrong)).rejects.toThrow();
  });

  test("publishes a plugin that prints the version, and a manifest for krew with its digest", async () => {
    expect(await run(join(done.files, "kubectl-berth"), "version")).toBe(`${done.version}\n`);
    const [platform] = parse(await readFile(join(done.files, "krew.yaml"), "utf8")).spec.platforms;
    const name = platform.uri.replace(`${done.source}/releases/download/v${done.version}/`, "");
    expect(
      createHash("sha256")
        .update(await readFile(join(done.files, name)))
        .digest("hex"),
    ).toBe(platform.sha256);
  });
});
