import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { ROOT } from "./lint-gate.ts";

/** A main that prints its name and arguments, and ends with 7. */
const main = (name: string) =>
  `export async function main(argv) { console.log(JSON.stringify({ name: "${name}", argv })); return 7; }\n`;

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "berth-bin-"));
  await cp(join(ROOT, "bin"), join(folder, "bin"), { recursive: true });
  await writeFile(join(folder, "package.json"), '{"type": "module"}\n');
});
afterEach(() => rm(folder, { recursive: true }));

async function place(path: string, text: string): Promise<void> {
  await mkdir(dirname(join(folder, path)), { recursive: true });
  await writeFile(join(folder, path), text);
}

function berth(...argv: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [join(folder, "bin/berth.mjs"), ...argv], (_error, stdout, stderr) =>
      resolve({ code: child.exitCode ?? -1, stdout, stderr }),
    );
  });
}

describe("bin/berth.mjs", () => {
  test("runs the sources of a checkout, passes on the arguments, and ends with main's exit code", async () => {
    await place("src/main.ts", main("src"));
    await place("dist/main.js", main("dist, built yesterday"));
    expect(await berth("run", "--namespace", "one")).toEqual({
      code: 7,
      stdout: '{"name":"src","argv":["run","--namespace","one"]}\n',
      stderr: "",
    });
  });

  test("runs the bundle where there are no sources", async () => {
    await place("dist/main.js", main("dist"));
    expect(await berth("version")).toEqual({ code: 7, stdout: '{"name":"dist","argv":["version"]}\n', stderr: "" });
  });

  test("reports the fix where there is neither", async () => {
    const { code, stderr } = await berth("run");
    expect(code).toBe(1);
    expect(stderr).toMatch(/neither src\/main\.ts nor dist\/main\.js is here; run `npm run build`/);
  });
});
