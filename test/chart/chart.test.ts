import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { DNS_PODS_PATTERN } from "../../src/api/cluster-dns.ts";
import { CIDR_PATTERN } from "../../src/api/network-spec.ts";
import { parseAllowance } from "../../src/policy/pod-policy.ts";
import { POLICY_KEYS, POLICY_RULES } from "../../src/policy/policy-rules.ts";
import { originSchema } from "../../src/settings/flag-values.ts";
import { FLAGS } from "../../src/settings/flags.ts";
import { chartValues, readmeWithValues } from "../../tools/chart-values.ts";
import { CHART, helm } from "../../tools/helm.ts";
import { ROOT } from "../project/lint-gate.ts";

const read = (path: string) => readFile(join(ROOT, path), "utf8");

describe("Chart.yaml", () => {
  test("has the version of the operator, twice", async () => {
    const { version } = JSON.parse(await read("package.json"));
    expect(parse(await read("charts/berth/Chart.yaml"))).toMatchObject({ version, appVersion: version });
  });
});

interface Schema {
  readonly type?: string;
  /** What replaces a removed value. */
  readonly const?: string;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly additionalProperties?: unknown;
  readonly items?: Schema;
  readonly pattern?: string;
  readonly not?: Schema;
  readonly enum?: readonly string[];
}

/** Whether a schema of strings accepts this one. */
function takes(schema: Schema | undefined, text: string): boolean {
  if (schema?.enum) return schema.enum.includes(text);
  return new RegExp(schema?.pattern ?? "").test(text) && !(schema?.not && takes(schema.not, text));
}

function isAllowance(word: string): boolean {
  try {
    parseAllowance(word);
    return true;
  } catch {
    return false;
  }
}

/** Dotted keys of all values in a schema, without the removed ones. `resources` counts as one value. */
function keysOf(schema: Schema, prefix = ""): string[] {
  return Object.entries(schema.properties ?? {}).flatMap(([name, value]) => {
    const key = prefix + name;
    if (value.const !== undefined) return [];
    return value.properties && key !== "resources" ? keysOf(value, `${key}.`) : [key];
  });
}

describe("the chart's values", () => {
  const values = chartValues();

  test("each have a comment about their effect", () => {
    for (const { key, about } of values) expect(about, key).toMatch(/\w.*[.:\]]$/);
  });

  test("match the schema", async () => {
    const schema: Schema = JSON.parse(await read("charts/berth/values.schema.json"));
    expect(keysOf(schema).sort()).toEqual(values.map(({ key }) => key).sort());
  });

  test("name the same Pods of the cluster's DNS as the default of the operator's flag", async () => {
    const { clusterDns } = parse(await read("charts/berth/values.yaml"));
    expect(clusterDns.pods.join(",")).toBe(FLAGS.clusterDnsPods.default);
  });

  test("have every rule of the operator's policy for Pods, and allow nothing by default", async () => {
    const { podPolicy } = parse(await read("charts/berth/values.yaml"));
    const expected = POLICY_KEYS.map((key) => [key, POLICY_RULES[key].kind === "switch" ? false : []]);
    expect(Object.entries(podPolicy)).toEqual(expected);
  });

  test("accept the same words for the policy for Pods as the operator's flag", async () => {
    const schema: Schema = JSON.parse(await read("charts/berth/values.schema.json"));
    const rules = schema.properties?.["podPolicy"]?.properties ?? {};
    const words = [
      "*",
      "NET_ADMIN",
      "CAP_NET_ADMIN",
      "net_admin",
      "hostPID",
      "default",
      "a/b",
      "a,b",
      "a=b",
      "a b",
      "",
    ];
    const folders = [
      ...["/", "/data", "/data/x.y", "/data/..x", "/data/.x", "data", "/data/", "//data", "/da ta", "/a,b", "/a'b"],
      ...["/data/../etc", "/..", "/data/..", "/data/.", "/./data"],
    ];
    for (const key of POLICY_KEYS) {
      const { kind } = POLICY_RULES[key];
      if (kind === "switch") expect(rules[key], key).toEqual({ type: "boolean" });
      else
        for (const word of kind === "paths" ? folders : words) {
          // The chart lists these namespaces. The operator accepts other names, which no template can request.
          if (key === "hostNamespaces" && word !== "hostPID") continue;
          expect(takes(rules[key]?.items, word), `${key}=${word}`).toBe(isAllowance(`${key}=${word}`));
        }
    }
  });

  test("accept common severities, and durations of Prometheus", async () => {
    const schema: Schema = JSON.parse(await read("charts/berth/values.schema.json"));
    const at = (...path: readonly string[]) =>
      path.reduce<Schema | undefined>((inner, key) => inner?.properties?.[key], schema);
    const alert = at("prometheusRule", "alerts")?.additionalProperties as Schema;
    const durations = [
      alert.properties?.["for"],
      at("metrics", "serviceMonitor", "interval"),
      at("metrics", "podMonitor", "interval"),
    ];
    for (const duration of durations) {
      for (const text of ["30s", "1h30m", "1d", "2w", "1y", "500ms"]) expect(takes(duration, text), text).toBe(true);
      for (const text of ["30", "1 m", "-5m", "soon", "1M"]) expect(takes(duration, text), text).toBe(false);
    }
    const severity = alert.properties?.["severity"];
    for (const text of ["critical", "sev2", "P1", "page-now", "4.5_x"]) expect(takes(severity, text), text).toBe(true);
    for (const text of ["", "-x", "a b", "a\nb", 'a"b']) expect(takes(severity, text), text).toBe(false);
  });

  test("accept the same networks and origins as the operator's flags", async () => {
    const { properties }: Schema = JSON.parse(await read("charts/berth/values.schema.json"));
    expect(properties?.["apiCidrs"]?.items?.pattern).toBe(CIDR_PATTERN);
    const clusterDns = properties?.["clusterDns"]?.properties;
    expect(clusterDns?.["cidrs"]?.items?.pattern).toBe(CIDR_PATTERN);
    expect(clusterDns?.["pods"]?.items?.pattern).toBe(DNS_PODS_PATTERN);
    const origins = [
      ...["https://api.anthropic.com", "http://b.example:8080", "https://[2001:db8::1]:8443"],
      ...["https://A.example", "https://a.example:443", "http://a.example:80", "http://a.example:443"],
      ...[
        "https://a.example/v1",
        "https://a.example?x",
        "https://u@a.example",
        "ftp://a.example",
        "https://",
        "a.example",
      ],
    ];
    for (const text of origins) {
      const isTaken = takes(properties?.["allowedApiOrigins"]?.items, text);
      expect(isTaken, text).toBe(originSchema.safeParse(text).success);
    }
    // A URL parser accepts these characters, but they would end a string in the admission policy, or split the flag.
    for (const text of ['https://a".example', "https://a'.example", "https://a,https://b", "https://a\\b"])
      expect(takes(properties?.["allowedApiOrigins"]?.items, text), text).toBe(false);
  });

  test("are refused at every level when they are unknown, all at once", async () => {
    const blocks = new Set(values.map(({ key }) => key.replace(/[^.]+$/, "")));
    // A parent chart's global values are for all its charts, so most are unknown to this one.
    blocks.delete("global.");
    const unknown = [...blocks].map((block) => `${block}surprise`);
    const { code, stderr } = await install(...unknown.map((key) => `${key}=1`), "global.surprise=1");
    expect(code).not.toBe(0);
    const named = [...stderr.matchAll(/at '\/?([^']*)': additional properties 'surprise' not allowed/g)];
    expect(named.map(([, block]) => (block ? `${block.replaceAll("/", ".")}.surprise` : "surprise")).sort()).toEqual(
      unknown.sort(),
    );
  });

  test("are all used, and templates use no others", async () => {
    const folder = "charts/berth/templates";
    const texts = await Promise.all((await readdir(join(ROOT, folder))).map((name) => read(`${folder}/${name}`)));
    const used = new Set(texts.flatMap((text) => [...text.matchAll(/\.Values((?:\.\w+)+)/g)].map(([, path]) => path)));
    const known = values.map(({ key }) => `.${key}`);
    for (const path of used) {
      expect(
        known.some((key) => key === path || key.startsWith(`${path}.`)),
        `.Values${path}`,
      ).toBe(true);
    }
    const roots = new Set([...used].map((path) => path?.split(".")[1]));
    roots.add("enabled"); // only used by a parent chart's condition
    for (const key of known) expect(roots, key).toContain(key.split(".")[1]);
  });

  test("are all in the chart's README", async () => {
    expect(await read("charts/berth/README.md")).toBe(readmeWithValues());
  });
});

/** A client-side dry run of an install with these values, which needs no cluster. */
const install = (...values: readonly string[]) =>
  helm(["install", "berth", CHART, "--dry-run=client", ...values.flatMap((value) => ["--set", value])]);

test("an install without an image is refused, with the reason and the fix", async () => {
  for (const values of [[], ["image.tag=dev"], ["image.registry=registry.example"]]) {
    const { code, stderr } = await install(...values);
    expect(code).not.toBe(0);
    expect(stderr).toMatch(
      /image\.repository is empty, and there is no public image of Berth yet; build one from the Dockerfile, push it, and use --set image\.repository=registry\.example\/berth/,
    );
  }
});

/** Helm's notes after an install with these values. */
async function notes(...values: readonly string[]): Promise<string> {
  const { stdout, stderr } = await install("image.repository=berth", ...values);
  const [, text] = stdout.split("\nNOTES:\n");
  if (text === undefined) throw new Error(`helm shows no notes: ${stderr}`);
  return text;
}

test("the notes warn of an uninstall without its Job, whichever value disables the Job", async () => {
  const [usual, off, rightless, both] = await Promise.all([
    notes(),
    notes("uninstall.enabled=false"),
    notes("rbac.create=false"),
    notes("uninstall.enabled=false", "rbac.create=false"),
  ]);
  const warning =
    "=false: no Job stops the operator before an uninstall. Delete all Environments, and wait until they are gone";
  expect(usual).not.toContain("before an uninstall");
  expect(off).toContain(`\nuninstall.enabled${warning}`);
  expect(rightless).toContain(`\nrbac.create${warning}`);
  expect(both.split("before an uninstall")).toHaveLength(2);
});

test.each([
  ["no replica", ["replicas=0"], "replicas=0: no operator runs, so no session is served. Set replicas to 1 or more."],
  [
    "several shards for one replica",
    ["shards=4"],
    "shards=4 with replicas=1: one operator serves all shards. Set replicas to 2 or more, or shards to 1.",
  ],
  [
    "an uninstall that takes longer than helm waits by default",
    ["crds.keep=false", "uninstall.drainSeconds=600"],
    "uninstall.drainSeconds=600: an uninstall can take 655s, and helm waits for 5m. Uninstall with --timeout 655s.",
  ],
])("the notes warn of %s", async (_name, values, warning) => {
  expect(await notes(...values)).toContain(`\n\n${warning}\n`);
});

test("the notes do not warn of replicas and shards that fit together, nor of an uninstall that keeps Environments", async () => {
  const usual = await notes();
  for (const values of [["replicas=3", "shards=6"], ["replicas=2"], ["uninstall.drainSeconds=600"]])
    expect(await notes(...values)).toBe(usual);
  expect(await notes("crds.keep=false")).not.toContain("--timeout");
});

describe("the Dockerfile", () => {
  test("ends with a stage that runs nothing at build time", async () => {
    const stages = (await read("Dockerfile")).split(/^FROM /m).slice(1);
    expect(stages.length).toBeGreaterThan(1);
    expect(stages.at(-1)).not.toMatch(/^(RUN|ADD|VOLUME)/m);
  });

  test("installs from the lock file, without scripts, and leaves out development files", async () => {
    const text = await read("Dockerfile");
    const installs = [...text.matchAll(/npm (ci|i|install)\b.*/g)].map(([command]) => command);
    for (const command of installs) expect(command).toMatch(/^npm ci .*--ignore-scripts/);
    expect(installs).toHaveLength(1);
    const last = text.split(/^FROM /m).at(-1) ?? "";
    expect([...last.matchAll(/^COPY (--from.*)$/gm)].map(([, copy]) => copy)).toEqual([
      "--from=build /build/dist dist",
    ]);
    expect(last).not.toContain("node_modules");
  });
});
