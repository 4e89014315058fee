import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { ROOT } from "./lint-gate.ts";

interface Step {
  readonly uses?: string;
  readonly run?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly with?: Readonly<Record<string, unknown>>;
}
interface Job {
  readonly uses?: string;
  readonly steps?: readonly Step[];
  readonly permissions?: Readonly<Record<string, string>>;
  readonly "timeout-minutes"?: number;
  readonly strategy?: { readonly matrix?: Readonly<Record<string, readonly unknown[]>> };
}
interface Workflow {
  readonly on: Readonly<Record<string, unknown>>;
  readonly permissions?: Readonly<Record<string, string>>;
  readonly concurrency?: unknown;
  readonly jobs: Readonly<Record<string, Job>>;
}

const DIR = ".github/workflows";
const read = (path: string) => readFile(join(ROOT, path), "utf8");
const manifest = JSON.parse(await read("package.json")) as {
  readonly scripts: Readonly<Record<string, string>>;
  readonly engines: { readonly node: string };
};

const files = (await readdir(join(ROOT, DIR))).filter((name) => name.endsWith(".yml"));
const workflows = await Promise.all(
  files.map(async (name) => ({
    name,
    text: await read(join(DIR, name)),
    workflow: parse(await read(join(DIR, name))) as Workflow,
  })),
);

const stepsOf = ({ jobs }: Workflow) => Object.values(jobs).flatMap(({ steps = [] }) => steps);

test("there are workflows for changes, insecure code, a real cluster, releases, and the site", () => {
  expect(files.sort()).toEqual(["ci.yml", "code-scanning.yml", "e2e.yml", "release.yml", "site.yml"]);
});

describe.each(workflows)("$name", ({ text, workflow }) => {
  test("runs no third-party code with this repository's rights", () => {
    for (const event of ["pull_request_target", "workflow_run", "issue_comment"]) {
      expect(Object.keys(workflow.on)).not.toContain(event);
    }
    // A title or a branch name inside a script's text would be executed.
    for (const { run = "" } of stepsOf(workflow)) {
      expect(run).not.toMatch(/\$\{\{[^}]*\b(event\.|head_ref|inputs\.|steps\.|github\.ref)/);
    }
  });

  test("has only read access to the code, except for the publish job", () => {
    expect(workflow.permissions).toEqual({ contents: "read" });
    const findings = { contents: "read", "security-events": "write" };
    for (const [name, { permissions = findings }] of Object.entries(workflow.jobs)) {
      if (name !== "publish") expect(permissions, name).toEqual(findings);
    }
    expect(text).not.toMatch(/permissions: (write|read)-all/);
  });

  test("pins every action to a commit with its version beside it, and keeps no token in the checkout", () => {
    for (const { uses, with: inputs } of stepsOf(workflow)) {
      if (uses === undefined) continue;
      expect(uses).toMatch(/^[\w.-]+\/[\w.-]+(\/[\w.-]+)*@[0-9a-f]{40}$/);
      expect(text).toMatch(new RegExp(`uses: ${uses} # v\\d+\\.\\d+\\.\\d+$`, "m"));
      if (uses.startsWith("actions/checkout@")) expect(inputs).toMatchObject({ "persist-credentials": false });
    }
    for (const { uses } of Object.values(workflow.jobs))
      if (uses !== undefined) expect(files).toContain(uses.replace(`./${DIR}/`, ""));
  });

  test("names existing scripts and files", async () => {
    const matrix = Object.values(workflow.jobs)
      .flatMap(({ strategy }) => strategy?.matrix?.["suite"] ?? [])
      .map(String);
    const named = [...text.matchAll(/npm run (?:--silent )?([\w:]+)/g)].map(([, name = ""]) => name);
    const scripts = [...named, ...matrix.map((line) => line.split(" ")[0] ?? "")];
    expect(scripts.filter((name) => !(name in manifest.scripts))).toEqual([]);
    for (const [path] of text.matchAll(/(?<![\w./])(tools|charts|testbed|docs)\/[\w./-]*\w/g)) {
      await expect(stat(join(ROOT, path)), path).resolves.toBeDefined();
    }
  });

  test("fails a step if any command of a pipe fails", () => {
    // By default a step uses the status of a pipe's last command, and tee never fails.
    for (const { run = "" } of stepsOf(workflow)) if (/[^|]\|[^|]/.test(run)) expect(run).toMatch(/^set -o pipefail$/m);
  });

  test("limits its duration and concurrency", () => {
    expect(workflow.concurrency).toBeDefined();
    for (const [name, job] of Object.entries(workflow.jobs)) {
      if (job.uses === undefined) expect(job["timeout-minutes"], name).toBeGreaterThan(0);
    }
  });
});

test("the workflows run the Node version of package.json", () => {
  const versions = workflows
    .flatMap(({ workflow }) => stepsOf(workflow))
    .filter(({ uses = "" }) => uses.startsWith("actions/setup-node@"))
    .map(({ with: inputs }) => `>=${inputs?.["node-version"]}`);
  expect(new Set(versions)).toEqual(new Set([manifest.engines.node]));
});

test("Dependabot updates every kind of dependency, but no version of the last days", async () => {
  const { updates } = parse(await read(".github/dependabot.yml")) as {
    readonly updates: readonly { readonly "package-ecosystem": string; readonly cooldown?: object }[];
  };
  const kinds = updates.map((update) => update["package-ecosystem"]);
  expect(kinds.sort()).toEqual(["docker", "github-actions", "gomod", "npm", "pip"]);
  for (const { cooldown } of updates) expect(cooldown).toEqual({ "default-days": 7 });
});

test("the workflows use one version of each action", () => {
  const lines = workflows.flatMap(({ text }) => [...text.matchAll(/uses: ([\w./-]+)@(.+)$/gm)]);
  const versions = new Map<string, Set<string>>();
  for (const [, name = "", version = ""] of lines) versions.set(name, (versions.get(name) ?? new Set()).add(version));
  expect(versions.size).toBeGreaterThan(10);
  expect([...versions].filter(([, { size }]) => size !== 1)).toEqual([]);
});

test("a release publishes the chart with the digest of the image that it pushed", () => {
  const steps = stepsOf(workflows.find(({ name }) => name === "release.yml")?.workflow as Workflow);
  const step = steps.find(({ run }) => run?.includes("released-chart.ts"));
  expect(step?.run).toMatch(
    /released-chart\.ts --image "\$IMAGE" --digest "\$DIGEST" --source "\$GITHUB_SERVER_URL\/\$GITHUB_REPOSITORY" --charts "\$CHARTS" --output "(.*)"\n.*helm\.ts package "\1\/berth"/,
  );
  const output = (name: string) => `\${{ steps.${name} }}`;
  const image = output("names.outputs.image");
  expect(step?.env).toMatchObject({ IMAGE: image, DIGEST: output("build.outputs.digest") });
  const pushed = steps.find(({ uses = "" }) => uses.startsWith("docker/build-push-action@"));
  expect(pushed).toMatchObject({ id: "build", with: { tags: `${image}:${output("names.outputs.version")}` } });
});

test("a release tells the image where its version's pages are, before it builds it", () => {
  const steps = stepsOf(workflows.find(({ name }) => name === "release.yml")?.workflow as Workflow);
  const told = steps.findIndex(({ run }) => run === 'npm pkg set "repository=$GITHUB_SERVER_URL/$GITHUB_REPOSITORY"');
  const built = steps.findIndex(({ uses = "" }) => uses.startsWith("docker/build-push-action@"));
  expect(told).toBeGreaterThanOrEqual(0);
  expect(told).toBeLessThan(built);
});

test("the workflows run every suite of the project's own gate", async () => {
  const gate = await read(".ci/run");
  const all = workflows.map(({ text }) => text).join("\n");
  const wanted = [...gate.matchAll(/npm run ([a-z0-9:]+)|^suite ([a-z0-9:]+)/gm)].map(
    ([, step, suite]) => step ?? suite ?? "",
  );
  for (const name of new Set(wanted)) {
    // On a hosted runner, kind provides the node.
    if (name !== "setup:node" && name !== "") expect(all, name).toMatch(new RegExp(`(npm run |")${name}\\b`));
  }
});
