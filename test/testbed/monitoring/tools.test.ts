import { existsSync } from "node:fs";
import { chmod, mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { MissingToolError } from "../../../testbed/cluster/missing.ts";
import { findMonitoringTools } from "../../../testbed/monitoring/tools.ts";

const PROGRAMS = ["prometheus", "promtool", "prometheus-alertmanager", "amtool"];

let dir: string;
let bin: string;
let env: NodeJS.ProcessEnv;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "berth-test-"));
  bin = join(dir, "bin");
  await mkdir(bin);
  env = { PATH: bin, XDG_CACHE_HOME: join(dir, "cache"), HOME: dir };
});
afterEach(() => rm(dir, { recursive: true }));

async function script(name: string, text: string): Promise<void> {
  await writeFile(join(bin, name), `#!/bin/sh\nPATH=/usr/bin:/bin\n${text}\n`);
  await chmod(join(bin, name), 0o755);
}

test("programs on the PATH are used without a download", async () => {
  for (const name of PROGRAMS) await script(name, "");
  await script("apt-get", "exit 1");
  const found = await findMonitoringTools(env);
  expect(found).toEqual(Object.fromEntries(PROGRAMS.map((name) => [name, join(bin, name)])));
});

test("packages are downloaded once, and leftovers are removed", async () => {
  await script("apt-get", `echo "$2" >>'${dir}/asked'; touch "$2_1_all.deb"`);
  // Simulates dpkg-deb --extract FILE FOLDER.
  await script(
    "dpkg-deb",
    `mkdir -p "$3/usr/bin" && cd "$3/usr/bin" && touch ${PROGRAMS.join(" ")} && chmod 755 ${PROGRAMS.join(" ")}`,
  );
  const found = await findMonitoringTools(env);
  for (const name of PROGRAMS) expect(existsSync(found[name as keyof typeof found]), name).toBe(true);

  await script("apt-get", "exit 1");
  expect(await findMonitoringTools(env)).toEqual(found);
  expect((await readdir(join(dir, "cache", "berth", "debian"))).sort()).toEqual([
    "prometheus",
    "prometheus-alertmanager",
  ]);
});

test("if the programs aren't available, the error says how to get them, and nothing is left behind", async () => {
  await script("apt-get", "echo 'E: Unable to locate package prometheus' >&2; exit 100");
  const failed = findMonitoringTools(env);
  await expect(failed).rejects.toBeInstanceOf(MissingToolError);
  await expect(failed).rejects.toThrow(/Unable to locate package prometheus.*npm run setup:node/s);
  expect(await readdir(join(dir, "cache", "berth", "debian"))).toEqual([]);
});
