/** Runs the repository's lint rules on given files, and exports the repository's root folder. */
import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** The root of the repository. */
export const ROOT = fileURLToPath(new URL("../..", import.meta.url));

export interface Finding {
  readonly rule: string;
  readonly message: string;
}

/**
 * Lints `files` (path -> text) with the repository's rules, in a temporary folder that contains only those rules.
 * @returns the findings by path; paths without findings are missing.
 */
export async function lintFiles(files: Readonly<Record<string, string>>): Promise<Map<string, Finding[]>> {
  const folder = await mkdtemp(join(tmpdir(), "berth-lint-"));
  try {
    for (const rules of ["biome.json", "package.json", ".gitignore", "tools/lint"]) {
      await cp(join(ROOT, rules), join(folder, rules), { recursive: true });
    }
    for (const [path, text] of Object.entries(files)) {
      await mkdir(dirname(join(folder, path)), { recursive: true });
      await writeFile(join(folder, path), text);
    }
    return byPath(await runBiome(folder));
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** Biome exits with 1 if it finds something. Only an answer that is no JSON is a failure. */
function runBiome(cwd: string): Promise<BiomeReport> {
  const biome = join(ROOT, "node_modules/@biomejs/biome/bin/biome");
  const args = [biome, "lint", "--reporter=json", "--max-diagnostics=none", "."];
  return new Promise((resolve, reject) => {
    execFile(process.execPath, args, { cwd, maxBuffer: 64 * 2 ** 20 }, (error, stdout, stderr) => {
      try {
        resolve(JSON.parse(stdout) as BiomeReport);
      } catch {
        reject(new Error(`biome gave no report: ${stderr}`, { cause: error }));
      }
    });
  });
}

interface BiomeReport {
  readonly diagnostics: readonly {
    category: string;
    severity: string;
    message: string;
    location: { path: string };
  }[];
}

/** Errors and warnings, which fail the lint. Hints are left out. */
function byPath(report: BiomeReport): Map<string, Finding[]> {
  const found = new Map<string, Finding[]>();
  for (const { category, severity, message, location } of report.diagnostics) {
    if (severity !== "error" && severity !== "warning") continue;
    const path = location.path.replaceAll("\\", "/");
    found.set(path, [...(found.get(path) ?? []), { rule: category.split("/").at(-1) ?? category, message }]);
  }
  return found;
}
