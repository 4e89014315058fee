import { execFile } from "node:child_process";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, onTestFinished, test } from "vitest";
import { API_VERSION, KIND } from "../../src/api/names.ts";
import { findClientTools } from "../../testbed/cluster/client-tools.ts";
import { useCluster } from "../support/cluster.ts";

const cluster = useCluster();
const FOLDER = join(import.meta.dirname, "..", "..", "docs", "runbooks");

/** Commands that need a metrics server, which this cluster lacks. */
const ELSEWHERE = /^kubectl (-n \S+ )?top /;

/** Every command of the pages, without duplicates. */
async function commands(): Promise<string[]> {
  const pages = await Promise.all((await readdir(FOLDER)).map((name) => readFile(join(FOLDER, name), "utf8")));
  const blocks = pages.flatMap((page) => [...page.matchAll(/^```sh\n([\s\S]*?)^```/gm)].map(([, block = ""]) => block));
  return [...new Set(blocks.flatMap((block) => block.trim().split("\n")))].sort();
}

test("the runbooks contain valid commands for existing objects and columns", async () => {
  const namespace = await cluster.createNamespace("runbooks");
  await cluster.api.create(`/apis/${API_VERSION}/namespaces/${namespace}/environments`, {
    apiVersion: API_VERSION,
    kind: KIND,
    metadata: { name: "research", namespace },
    spec: {
      environmentId: "env_runbooks",
      api: { keySecretRef: { name: "research-key" } },
      sessions: { maxConcurrent: 1, template: { spec: { containers: [{ name: "worker", image: "worker:1" }] } } },
    },
  });
  const all = await commands();
  expect(all.length).toBeGreaterThan(20);
  // Without a home directory, kubectl keeps its cache in the working directory.
  const home = await mkdtemp(join(tmpdir(), "berth-runbooks-"));
  onTestFinished(() => rm(home, { recursive: true }));
  const env = { PATH: `${await findClientTools()}:/usr/bin:/bin`, KUBECONFIG: cluster.kubeconfig, HOME: home };
  for (const command of all) {
    expect(command).toMatch(/^kubectl /);
    // Commands only read. A command that changes something is in the text, where it is read before it is run.
    expect(command).toMatch(/^kubectl (-n \S+ )?(get|describe|logs|events|top) /);
    if (ELSEWHERE.test(command)) continue;
    const here = command.replace("-n agents", `-n ${namespace}`);
    const { stderr } = await promisify(execFile)("sh", ["-c", here], { env });
    // kubectl reports an empty list on stderr.
    expect(stderr.replace(/^No (resources|events) found.*\n/, ""), command).toBe("");
  }
});
