/**
 * `npm run sbom -- [--output FILE]`: writes the npm packages of the operator's image as a CycloneDX bill of materials.
 */
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
/** A hundred packages take 200 kB. */
const MAX_OUTPUT_BYTES = 64 * 1024 ** 2;

/** A package in package-lock.json; the fields are npm's. */
export interface LockedPackage {
  readonly version?: string;
  readonly license?: string;
  readonly integrity?: string;
  readonly resolved?: string;
  readonly link?: boolean;
  readonly dev?: boolean;
  readonly optional?: boolean;
  readonly devOptional?: boolean;
}

interface Lock {
  readonly packages: Readonly<Record<string, LockedPackage>>;
}

/** The packages that the Dockerfile installs, by path: no development packages and no second Node. */
export function shippedPackages({ packages }: Lock): Map<string, LockedPackage> {
  const isShipped = ([place, { dev, optional, devOptional }]: [string, LockedPackage]) =>
    place !== "" && !dev && !optional && !devOptional;
  return new Map(Object.entries(packages).filter(isShipped));
}

/**
 * The text of the bill of materials. `npm sbom --omit=dev` omits packages that a development dependency also needs (npm
 * 11: yaml and zod among others). So it runs on a project without development dependencies.
 */
export async function billOfMaterials(root: string = ROOT): Promise<string> {
  const manifest = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
  const lock = JSON.parse(await readFile(join(root, "package-lock.json"), "utf8"));
  const dir = await mkdtemp(join(tmpdir(), "berth-sbom-"));
  try {
    // npm names the project after its folder.
    const project = join(dir, manifest.name);
    await mkdir(project);
    const shipped = { [""]: withoutDevelopment(lock.packages[""]), ...Object.fromEntries(shippedPackages(lock)) };
    await writeFile(join(project, "package.json"), JSON.stringify(withoutDevelopment(manifest)));
    await writeFile(join(project, "package-lock.json"), JSON.stringify({ ...lock, packages: shipped }));
    const args = ["sbom", "--package-lock-only", "--sbom-format=cyclonedx", "--sbom-type=application"];
    const options = { cwd: project, maxBuffer: MAX_OUTPUT_BYTES };
    return (await promisify(execFile)("npm", args, options)).stdout;
  } finally {
    await rm(dir, { recursive: true });
  }
}

function withoutDevelopment(manifest: Record<string, unknown>): Record<string, unknown> {
  const { devDependencies: _dev, optionalDependencies: _optional, ...rest } = manifest;
  return rest;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({ options: { output: { type: "string" } } });
  const text = await billOfMaterials();
  if (values.output === undefined) process.stdout.write(text);
  else await writeFile(values.output, text);
}
