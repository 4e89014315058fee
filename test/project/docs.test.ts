import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { MOMENTS } from "../../src/explain/timeline.ts";
import { startHealthServer } from "../../src/observe/health.ts";
import { createMetrics } from "../../src/observe/metrics.ts";
import { readiness } from "../../src/operator.ts";
import { POLICY_KEYS, POLICY_RULES } from "../../src/policy/policy-rules.ts";
import { environmentVariable } from "../../src/settings/environment-variables.ts";
import { FLAGS } from "../../src/settings/flags.ts";
import { SLEEP_ENDS } from "../../src/sleep/sleep-plan.ts";
import { cliRun } from "../support/cli-run.ts";
import { closedLabels, documentedValues, expectDocumentedLabels } from "../support/label-values.ts";
import { ROOT } from "./lint-gate.ts";

const read = (path: string) => readFile(join(ROOT, path), "utf8");

/** Cells of a page's table rows, by their first cell. Backquotes are removed, and `\|` becomes a bar. */
async function rowsOf(path: string, first: RegExp): Promise<Map<string, string[]>> {
  const rows = (await read(path))
    .split("\n")
    .filter((line) => line.startsWith("|"))
    .map((line) =>
      line
        .split(/(?<!\\)\|/)
        .slice(1, -1)
        .map((cell) => cell.replaceAll("`", "").replaceAll("\\|", "|").trim()),
    )
    .filter(([name = ""]) => first.test(name));
  const byName = new Map(rows.map((cells) => [cells[0] ?? "", cells]));
  expect(byName.size, `${path} documents something twice`).toBe(rows.length);
  return byName;
}

async function sourceFiles(): Promise<{ path: string; text: string }[]> {
  const entries = await readdir(join(ROOT, "src"), { recursive: true });
  const paths = entries.filter((path) => path.endsWith(".ts")).map((path) => `src/${path}`);
  return Promise.all(paths.map(async (path) => ({ path, text: await read(path) })));
}

describe("docs/metrics.md", () => {
  /** Runtime fields of a metric; prom-client's types omit the label names. */
  interface KnownMetric {
    readonly name: string;
    readonly type: string;
    readonly labelNames: readonly string[];
  }
  const { registry } = createMetrics();
  const metrics = registry.getMetricsAsArray() as unknown as readonly KnownMetric[];

  test("documents every metric, and no other", async () => {
    const rows = await rowsOf("docs/metrics.md", /^berth_/);
    expect([...rows.keys()].sort()).toEqual(metrics.map(({ name }) => name).sort());
  });

  test("has the type, labels, meaning and use of each", async () => {
    const rows = await rowsOf("docs/metrics.md", /^berth_/);
    for (const { name, type, labelNames } of metrics) {
      const [, writtenType, labels = "", meaning = "", fix = "", ...more] = rows.get(name) ?? [];
      expect({ name, type: writtenType, labels }).toEqual({ name, type, labels: labelNames.join(", ") });
      expect(meaning, name).toMatch(/\w.*[.?]$/);
      expect(fix, name).toMatch(/\w.*[.?]$/);
      expect(more, name).toEqual([]);
    }
  });

  test("names only existing metrics, also in its alerts", async () => {
    const names = new Set(metrics.map(({ name }) => name));
    for (const [name] of (await read("docs/metrics.md")).matchAll(/\bberth_[a-z_]+[a-z]\b/g)) {
      expect(names).toContain(name);
    }
  });

  test("names follow the conventions: base units, and _total for counters only", () => {
    for (const { name, type } of metrics) {
      expect(name).toMatch(/^berth_[a-z_]+$/);
      expect(name.endsWith("_total"), name).toBe(type === "counter");
      expect(name, name).not.toMatch(/_(ms|milliseconds|minutes|hours|kb|mb)(_|$)/);
      if (type === "histogram") expect(name).toMatch(/_seconds$/);
    }
  });
});

describe("docs/metric-labels.md", () => {
  test("has every label with a closed set of values, and no other", () => {
    const { registry } = createMetrics();
    const metrics = registry.getMetricsAsArray() as unknown as { name: string; labelNames: readonly string[] }[];
    const documented = documentedValues();
    expect([...documented.keys()].sort()).toEqual(closedLabels(metrics).sort());
    for (const [label, values] of documented) expect(values.size, label).toBeGreaterThan(0);
  });

  test("has every reason for which a sleep ends", () => {
    expect(documentedValues().get("berth_sleeps_ended_total reason")).toEqual(new Set(Object.keys(SLEEP_ENDS)));
  });

  test("reports a missing value", async () => {
    const own = createMetrics();
    own.journals.inc({ namespace: "n", environment: "e", result: "created" });
    await expectDocumentedLabels(own.registry);
    own.journals.inc({ namespace: "n", environment: "e", result: "eaten" });
    await expect(expectDocumentedLabels(own.registry)).rejects.toThrow('berth_journals_total{result="eaten"}');
  });
});

describe("docs/flags.md", () => {
  test("documents every flag with its variable, default and meaning, and no other", async () => {
    const rows = await rowsOf("docs/flags.md", /^--\w/);
    const expected = Object.values(FLAGS).map(({ name, value, about, ...flag }) => [
      `--${name} ${value}`,
      environmentVariable(name),
      "default" in flag ? flag.default : flag.defaultText,
      about,
    ]);
    expect([...rows.values()]).toEqual(expected);
  });

  test("shows the output of /readyz for a replica that is not ready", async () => {
    await using server = await startHealthServer({
      bindAddress: "127.0.0.1:0",
      ready: readiness({ hasSynced: false, stalled: null }),
    });
    const said = await (await fetch(`http://${server.address}/readyz`)).text();
    expect(await read("docs/flags.md")).toContain(`\n\`\`\`\n${said}\`\`\`\n`);
  });
});

describe("docs/cli.md", () => {
  test("names every event of a time line", async () => {
    const rows = await rowsOf("docs/cli.md", /^what$/);
    expect(rows.get("what")?.[1]).toBe(MOMENTS.join(", "));
  });

  test("has a section for every command without its own page", async () => {
    const page = await read("docs/cli.md");
    const { err } = await cliRun([]);
    const [, names = ""] = /name a command: (.+) or help/.exec(err) ?? [];
    const elsewhere = ["run", "uninstall", "version"];
    for (const name of names.split(", ").filter((each) => !elsewhere.includes(each))) {
      expect(page).toContain(`\n## berth ${name}\n`);
    }
    expect(names).toContain("doctor");
  });

  test.each(["doctor", "explain", "template"])("has every flag of berth %s", async (name) => {
    const page = await read("docs/cli.md");
    const [, section = ""] = page.split(`\n## berth ${name}\n`);
    const { out } = await cliRun([name, "--help"]);
    const flags = [...out.matchAll(/^ {2}(?:-\w, )?(--[\w-]+)/gm)].map(([, flag = ""]) => flag);
    expect(flags.length).toBeGreaterThan(3);
    const [own = ""] = section.split("\n## ");
    for (const flag of flags.filter((each) => each !== "--help")) expect(own, flag).toContain(flag);
  });
});

describe("docs/pod-policy.md", () => {
  test("documents every rule of the policy for Pods with its default, and no other", async () => {
    const rows = await rowsOf("docs/pod-policy.md", /^[a-z][A-Za-z]+$/);
    const expected = POLICY_KEYS.map((key) => {
      const { kind, about } = POLICY_RULES[key];
      return [key, kind === "switch" ? "false" : "[]", about];
    });
    expect([...rows.values()]).toEqual(expected);
  });
});

describe("docs/errors.md", () => {
  /** All classes that extend OperatorError, directly or not, with their codes. */
  async function codes(): Promise<Map<string, string>> {
    const classes = (await sourceFiles()).flatMap(({ path, text }) =>
      [...text.matchAll(/class (\w+) extends (\w+)(?:<[^>]*>)? \{([\s\S]*?)\n\}/g)].map(
        ([, name = "", base = "", body = ""]) => ({ path, name, base, code: /\bsuper\(\s*"(\w+)"/.exec(body)?.[1] }),
      ),
    );
    const known = new Map<string, string>();
    for (let size = -1; size !== known.size; ) {
      size = known.size;
      for (const { name, base, code, path } of classes) {
        if (base === "OperatorError") {
          expect(code, `${path}: ${name} hands a code to OperatorError as a plain string`).toBeDefined();
          known.set(name, code ?? "");
        } else if (known.has(base)) known.set(name, known.get(base) ?? "");
      }
    }
    return known;
  }

  test("documents the code of every error class, and no other", async () => {
    const rows = await rowsOf("docs/errors.md", /^[A-Z]\w+$/);
    rows.delete("Code");
    const documented = [...rows.values()].map(([code, name]) => `${code}: ${name}`);
    const written = [...(await codes())].map(([name, code]) => `${code}: ${name}`);
    expect(documented.sort()).toEqual(written.sort());
  });

  test("has a different code for each class", async () => {
    const all = [...(await codes()).values()];
    expect(new Set(all).size).toBe(all.length);
  });

  test("has Berth's reaction and the fix for each code", async () => {
    for (const [code, cells] of await rowsOf("docs/errors.md", /^[A-Z]\w+$/)) {
      expect(cells, code).toHaveLength(5);
      for (const cell of cells) expect(cell, code).not.toBe("");
    }
  });
});
