/** Replacements for the actions of release.yml. */
import { execFile } from "node:child_process";
import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Buildah } from "../images/buildah.ts";
import { copyContext } from "../images/operator.ts";
import type { ReleasePrograms } from "./programs.ts";
import { ACCOUNT, type Registry } from "./registry.ts";
import type { Action, Inputs, Job } from "./workflow.ts";

const PROGRAM_MODE = 0o755;
const LOCAL_TAG = "localhost/rehearsal:1";
/** The types by which clients find attestations. */
const PROVENANCE = "https://slsa.dev/provenance/v1";
const SBOM = "https://cyclonedx.org/bom";

/** What the actions work with. */
export interface Stage {
  readonly workspace: string;
  readonly permissions: Job["permissions"];
  readonly programs: ReleasePrograms;
  readonly registry: Registry;
  readonly buildah: Buildah;
  /** The folder for the files that the Dockerfile can read; it doesn't exist yet. */
  readonly context: string;
  /** The folder of commands, which is first on PATH. */
  readonly bin: string;
  /** The folder of the client's credentials (DOCKER_CONFIG). */
  readonly credentials: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Signs in place of the workflow's identity, which needs Sigstore's services. */
  readonly key: { readonly file: string; readonly password: string };
  /** The folder for attestations of files. */
  readonly attestations: string;
  /** What the workflow's identity would say about the build. */
  readonly source: { readonly repository: string; readonly ref: string; readonly commit: string };
}

/** Signs with a key, and logs nothing publicly. */
const WITH_KEY = ["--use-signing-config=false", "--tlog-upload=false", "--yes"];

/** The stand-ins by the action's name. */
export function actionsOf(stage: Stage): Readonly<Record<string, Action>> {
  return {
    "actions/checkout": (inputs) => checkout(inputs),
    "actions/setup-node": (inputs) => setupNode(inputs, stage),
    "docker/setup-buildx-action": async () => ({}),
    "docker/login-action": (inputs) => login(inputs, stage),
    "docker/build-push-action": (inputs) => buildAndPush(inputs, stage),
    "sigstore/cosign-installer": (inputs) => installCosign(inputs, stage),
    "oras-project/setup-oras": (inputs) => installOras(inputs, stage),
    "actions/attest": (inputs) => attest(inputs, stage),
  };
}

/** @throws {Error} the job's token lacks a permission */
function permit(stage: Stage, wanted: Readonly<Record<string, "read" | "write">>): void {
  for (const [name, level] of Object.entries(wanted)) {
    const given = stage.permissions[name];
    if (given !== level && given !== "write") throw new Error(`the job needs the permission ${name}: ${level}`);
  }
}

async function checkout(inputs: Inputs) {
  if (inputs.need("persist-credentials") !== "false") throw new Error("the checkout keeps a token");
  return {};
}

async function setupNode(inputs: Inputs, { env }: Stage) {
  inputs.read("package-manager-cache");
  const wanted = inputs.need("node-version");
  const { stdout } = await promisify(execFile)("node", ["--version"], { env });
  if (!stdout.startsWith(`v${wanted}.`)) throw new Error(`Node ${stdout.trim()} runs here instead of ${wanted}`);
  return {};
}

/** Checks the password at the registry, and writes it where docker, buildah, helm, cosign and oras read it. */
async function login(inputs: Inputs, stage: Stage) {
  permit(stage, { packages: "write" });
  const { registry, credentials } = stage;
  const [address, user, password] = [inputs.need("registry"), inputs.need("username"), inputs.need("password")];
  if (address !== registry.address) throw new Error(`nothing is at ${address}`);
  const { status } = await registry.get("", "*/*", password);
  if (status !== 200 || user !== ACCOUNT.user) throw new Error(`the registry answered ${status} to ${user}`);
  const auth = Buffer.from(`${user}:${password}`).toString("base64");
  await writeFile(join(credentials, "config.json"), JSON.stringify({ auths: { [address]: { auth } } }));
  return {};
}

/** Builds for this machine's platform only, without BuildKit's own provenance and bill of materials. */
async function buildAndPush(inputs: Inputs, stage: Stage) {
  const { workspace, buildah, credentials, env } = stage;
  const platforms = inputs.need("platforms").split(",");
  for (const platform of platforms)
    if (!/^linux\/(amd64|arm64)$/.test(platform)) throw new Error(`no platform is called ${platform}`);
  for (const name of ["push", "sbom"]) if (inputs.need(name) !== "true") throw new Error(`${name} is not true`);
  if (inputs.need("provenance") !== "mode=max") throw new Error("provenance is not complete");
  if (inputs.need("context") !== ".") throw new Error("the context is not the checkout");
  const context = await copyContext(workspace, stage.context);
  const reference = inputs.need("tags");
  await buildah.build(context, LOCAL_TAG, {
    args: pairs(inputs.need("build-args")),
    labels: pairs(inputs.need("labels")),
  });
  const auth = { ...env, REGISTRY_AUTH_FILE: join(credentials, "config.json") };
  return { digest: await buildah.push(LOCAL_TAG, reference, auth) };
}

/** Parses lines of NAME=VALUE. */
function pairs(lines: string): Record<string, string> {
  const all = lines.split("\n").filter((line) => line.trim() !== "");
  return Object.fromEntries(all.map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]));
}

/** `sign` gets a key, because keyless signing needs Sigstore's services. Other commands are unchanged. */
async function installCosign(inputs: Inputs, stage: Stage) {
  const { programs, bin, env, key } = stage;
  const { stdout } = await promisify(execFile)(programs.cosign, ["version", "--json"], { env });
  same("cosign", JSON.parse(stdout).gitVersion, inputs.need("cosign-release"));
  const sign = `COSIGN_PASSWORD='${key.password}' exec '${programs.cosign}' sign --key '${key.file}' ${WITH_KEY.join(" ")} "$@"`;
  const script = `#!/bin/sh\nif [ "$1" = sign ]; then shift; ${sign}; fi\nexec '${programs.cosign}' "$@"\n`;
  await install(join(bin, "cosign"), script);
  return {};
}

async function installOras(inputs: Inputs, { programs, bin, env }: Stage) {
  const { stdout } = await promisify(execFile)(programs.oras, ["version"], { env });
  same("oras", /^Version:\s+(\S+)$/m.exec(stdout)?.[1], inputs.need("version"));
  await install(join(bin, "oras"), `#!/bin/sh\nexec '${programs.oras}' "$@"\n`);
  return {};
}

function same(program: string, here: unknown, wanted: string): void {
  if (here !== wanted) throw new Error(`${program} ${here} is here instead of ${wanted}: see testbed/rehearsal/tools`);
}

/** Writes a command. */
export async function install(file: string, script: string): Promise<void> {
  await writeFile(file, script);
  await chmod(file, PROGRAM_MODE);
}

/** Makes the statement that the action makes for the same inputs, and signs it with a key. */
async function attest(inputs: Inputs, stage: Stage) {
  permit(stage, { "id-token": "write", attestations: "write" });
  const [digest, name, checksums] = ["subject-digest", "subject-name", "subject-checksums"].map((of) =>
    inputs.read(of),
  );
  const pushes = inputs.read("push-to-registry") === "true";
  const bill = inputs.read("sbom-path");
  if ((digest === undefined) === (checksums === undefined))
    throw new Error("name one of subject-digest and -checksums");
  const predicate = bill === undefined ? provenanceOf(stage.source) : await billOf(join(stage.workspace, bill));
  const type = bill === undefined ? PROVENANCE : SBOM;
  if (checksums !== undefined) {
    await attestFiles(await subjectsOf(join(stage.workspace, checksums)), { type, predicate }, stage);
    return {};
  }
  if (!name || !/^sha256:[0-9a-f]{64}$/.test(digest ?? "")) throw new Error("subject-digest needs a name and a digest");
  if (!pushes) throw new Error("nothing reads an attestation of an image that is not in the registry");
  permit(stage, { packages: "write", "artifact-metadata": "write" });
  const file = await write(stage, "predicate.json", predicate);
  await cosign(stage, "attest", ["--type", type, "--predicate", file, `${name}@${digest}`]);
  return {};
}

/** The subjects of a file that sha256sum wrote. */
async function subjectsOf(file: string) {
  const lines = (await readFile(file, "utf8")).split("\n").filter((line) => line !== "");
  return lines.map((line) => ({ name: line.slice(66), digest: { sha256: line.slice(0, 64) } }));
}

async function attestFiles(
  subject: readonly { readonly name: string }[],
  { type, predicate }: { readonly type: string; readonly predicate: unknown },
  stage: Stage,
): Promise<void> {
  const statement = { _type: "https://in-toto.io/Statement/v1", subject, predicateType: type, predicate };
  const file = await write(stage, "statement.json", statement);
  await cosign(stage, "attest-blob", [
    "--statement",
    file,
    "--bundle",
    join(stage.attestations, "files.sigstore.json"),
  ]);
}

async function write(stage: Stage, name: string, value: unknown): Promise<string> {
  await mkdir(stage.attestations, { recursive: true });
  const file = join(stage.attestations, name);
  await writeFile(file, JSON.stringify(value));
  return file;
}

async function cosign({ programs, env, key }: Stage, command: string, args: readonly string[]): Promise<void> {
  const all = [command, "--key", key.file, ...WITH_KEY, ...args];
  await promisify(execFile)(programs.cosign, all, { env: { ...env, COSIGN_PASSWORD: key.password } });
}

/** What the action says about a build: SLSA's provenance, version 1, of GitHub's workflows. */
function provenanceOf({ repository, ref, commit }: Stage["source"]) {
  const workflow = { ref, repository, path: ".github/workflows/release.yml" };
  return {
    buildDefinition: {
      buildType: "https://actions.github.io/buildtypes/workflow/v1",
      externalParameters: { workflow },
      resolvedDependencies: [{ uri: `git+${repository}@${ref}`, digest: { gitCommit: commit } }],
    },
    runDetails: { builder: { id: `${repository}/${workflow.path}@${ref}` } },
  };
}

/** The action knows a CycloneDX bill by these fields. */
async function billOf(file: string): Promise<Record<string, unknown>> {
  const bill = JSON.parse(await readFile(file, "utf8")) as Record<string, unknown>;
  for (const field of ["bomFormat", "serialNumber", "specVersion"])
    if (!bill[field]) throw new Error(`the bill of materials has no ${field}`);
  return bill;
}
