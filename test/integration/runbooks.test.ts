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

/** What wants a metrics server, which a cluster may have. */
const ELSEWHERE = /^kubectl (-n \S+ )?top /;

/** Every command of the pages, once. */
async function commands(): Promise<string[]> {
  const pages = await Promise.all((await readdir(FOLDER)).map((name) => readFile(join(FOLDER, name), "utf8")));
  const blocks = pages.flatMap((page) => [...page.matchAll(/^```sh\n([\s\S]*?)^```/gm)].map(([, block = ""]) => block));
  return [...new Set(blocks.flatMap((block) => block.trim().split("\n")))].sort();
}

test("the commands of the runbooks are commands, for objects and columns that there are", async () => {
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
  // Without a home kubectl keeps its cache in the working directory.
  const home = await mkdtemp(join(tmpdir(), "berth-runbooks-"));
  onTestFinished(() => rm(home, { recursive: true }));
  const env = { PATH: `${await findClientTools()}:/usr/bin:/bin`, KUBECONFIG: cluster.kubeconfig, HOME: home };
  for (const command of all) {
    expect(command).toMatch(/^kubectl /);
    // Looking only: what changes something stands in the text, where somebody reads it first.
    expect(command).toMatch(/^kubectl (-n \S+ )?(get|describe|logs|events|top) /);
    if (ELSEWHERE.test(command)) continue;
    const here = command.replace("-n agents", `-n ${namespace}`);
    const { stderr } = await promisify(execFile)("sh", ["-c", here], { env });
    // An empty list is told there.
    expect(stderr.replace(/^No (resources|events) found.*\n/, ""), command).toBe("");
  }
});
