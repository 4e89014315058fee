import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { type Finding, lintFiles, ROOT } from "./lint-gate.ts";

interface Plant {
  readonly name: string;
  readonly path: string;
  readonly text: string;
  /** The rule that must find it, and a part of the message with the alternative. */
  readonly rule: string;
  readonly says?: RegExp;
}

const importOf = (source: string) => `import { x } from "${source}";\nexport const y = x;\n`;

/** Each room with one import that the table of rooms forbids; every pair of siblings in both directions. */
const FORBIDDEN_IMPORTS: readonly (readonly [room: string, source: string])[] = [
  ["core", "../observe/logger.ts"],
  ["core", "../api/names.ts"],
  ["api", "../observe/logger.ts"],
  ["api", "../kube/transport.ts"],
  ["api", "../policy/pod-policy.ts"],
  ["policy", "../api/names.ts"],
  ["policy", "../kube/transport.ts"],
  ["observe", "../api/names.ts"],
  ["autoscale", "../kube/transport.ts"],
  ["autoscale", "../observe/metrics.ts"],
  ["work", "../kube/transport.ts"],
  ["work", "../api/names.ts"],
  ["kube", "../work/client.ts"],
  ["kube", "../api/names.ts"],
  ["workers", "../work/client.ts"],
  ["reconcile", "../controller/controller.ts"],
  ["controller", "../console/console.ts"],
  ["reconcile", "../pool/pool.ts"],
  ["console", "../sessions/runtime.ts"],
  ["controller", "../sessions/runtime.ts"],
  ["pool", "../claims/claim-loop.ts"],
  ["pool", "../sessions/runtime.ts"],
  ["pool", "../work/client.ts"],
  ["claims", "../pool/pool.ts"],
  ["claims", "../sessions/runtime.ts"],
  ["protocol", "../claims/claim-loop.ts"],
  ["protocol", "../pool/pool.ts"],
  ["protocol", "../sessions/runtime.ts"],
  ["queue", "../kube/client.ts"],
  ["queue", "../sessions/context.ts"],
  ["workers", "../protocol/claim.ts"],
  ["pods", "../sessions/context.ts"],
  ["pods", "../observe/logger.ts"],
  ["pods", "../work/client.ts"],
  ["attach", "../protocol/claim.ts"],
  ["protocol", "../attach/pod-streams.ts"],
  ["pods", "../attach/pod-streams.ts"],
  ["kube", "../election/lease-record.ts"],
  ["watch", "../election/lease-record.ts"],
  ["election", "../watch/cache.ts"],
  ["sessions", "../election/shard-ring.ts"],
  ["kube", "../watch/cache.ts"],
  ["watch", "../api/names.ts"],
  ["watch", "../work/client.ts"],
  ["webhook", "../sessions/hints.ts"],
  ["webhook", "../work/client.ts"],
  ["sessions", "../webhook/event.ts"],
  ["sessions", "../reconcile/environment.ts"],
  ["sessions", "../workers/scale.ts"],
  ["workers", "../sessions/runtime.ts"],
  ["workers", "../reconcile/modes.ts"],
  ["reconcile", "../settings/config.ts"],
  ["reconcile", "../console/console.ts"],
  ["settings", "../reconcile/controller.ts"],
  ["settings", "../commands/cli.ts"],
  ["console", "../kube/client.ts"],
  ["console", "../work/client.ts"],
  ["page", "../console/shown.ts"],
  ["page", "node:fs"],
  ["reconcile", "../main.ts"],
  ["sessions", "../commands/cli.ts"],
  ["kube", "./../work/client.ts"],
  ["observe", "../kube/client.ts"],
  ["doctor", "../explain/explain.ts"],
  ["explain", "../doctor/doctor.ts"],
  ["doctor", "../settings/config.ts"],
  ["reconcile", "../commands/preview.ts"],
  ["commands", "../operator.ts"],
  ["commands", "../../simulator/simulator.ts"],
  ["kube", "../../test/support/virtual-clock.ts"],
];

/** Each of these is forbidden in operator.ts. */
const OPERATOR_IMPORTS = [
  "../model/explore.ts",
  "./main.ts",
  "./commands/cli.ts",
  "./doctor/doctor.ts",
  "./explain/gather.ts",
];

const plants: readonly Plant[] = [
  ...FORBIDDEN_IMPORTS.map(([room, source], index) => ({
    name: `${room} importing ${source}`,
    path: `src/${room}/import-${index}.ts`,
    text: importOf(source),
    rule: "noRestrictedImports",
    says: /may import/,
  })),
  {
    name: "the operator importing the model",
    path: "src/sessions/with-model.ts",
    text: importOf("../../model/explore.ts"),
    rule: "noRestrictedImports",
    says: /may import/,
  },
  {
    name: "operator.ts importing the model, the program or the command line",
    path: "src/operator.ts",
    text: OPERATOR_IMPORTS.map((source, index) => `export { x as x${index} } from "${source}";\n`).join(""),
    rule: "noRestrictedImports",
    says: /nothing outside src/,
  },
  {
    name: "the model importing the code that it models",
    path: "model/claim.ts",
    text: importOf("../src/sessions/claim.ts"),
    rule: "noRestrictedImports",
    says: /judges nothing/,
  },
  {
    name: "an import through an allowed room",
    path: "src/kube/detour.ts",
    text: importOf("../core/../work/client.ts"),
    rule: "noRestrictedImports",
  },
  {
    name: "a type imported from a forbidden room",
    path: "src/kube/type-only.ts",
    text: 'import type { X } from "../sessions/claim.ts";\nexport type Y = X;\n',
    rule: "noRestrictedImports",
  },
  {
    name: "a dynamic import of a forbidden room",
    path: "src/kube/dynamic.ts",
    text: 'export const y = () => import("../sessions/claim.ts");\n',
    rule: "noRestrictedImports",
  },
  {
    name: "a re-export from a forbidden room",
    path: "src/kube/re-export.ts",
    text: 'export { x } from "../sessions/claim.ts";\n',
    rule: "noRestrictedImports",
  },
  {
    name: "main.ts imported by its neighbor",
    path: "src/neighbour.ts",
    text: importOf("./main.ts"),
    rule: "noRestrictedImports",
    says: /nothing imports it/,
  },
  {
    name: "an import cycle",
    path: "src/core/cycle-a.ts",
    text: 'import { b } from "./cycle-b.ts";\nexport const a = () => b();\n',
    rule: "noImportCycles",
  },
  {
    name: "an import cycle of types only",
    path: "src/core/type-cycle-a.ts",
    text: 'import type { B } from "./type-cycle-b.ts";\nexport type A = { readonly b?: B };\n',
    rule: "noImportCycles",
  },
  {
    name: "undici in sessions",
    path: "src/sessions/undici.ts",
    text: importOf("undici"),
    rule: "plugin",
    says: /src\/work and src\/kube/,
  },
  { name: "undici in main.ts", path: "src/main.ts", text: importOf("undici"), rule: "plugin" },
  {
    name: "a value of the Kubernetes client outside kube",
    path: "src/reconcile/client.ts",
    text: 'import { KubeConfig } from "@kubernetes/client-node";\nexport const y = new KubeConfig();\n',
    rule: "plugin",
    says: /import type/,
  },
  {
    name: "the Kubernetes client as a namespace",
    path: "src/reconcile/client-namespace.ts",
    text: 'import * as k8s from "@kubernetes/client-node";\nexport const y = new k8s.KubeConfig();\n',
    rule: "plugin",
  },
  {
    name: "the Kubernetes client imported dynamically",
    path: "src/reconcile/client-dynamic.ts",
    text: 'export const y = () => import("@kubernetes/client-node");\n',
    rule: "plugin",
  },
  {
    name: "a re-exported value of the Kubernetes client",
    path: "src/reconcile/client-export.ts",
    text: 'export { KubeConfig } from "@kubernetes/client-node";\n',
    rule: "plugin",
  },
  {
    name: "pino outside observe",
    path: "src/work/pino.ts",
    text: 'import pino from "pino";\nexport const y = pino();\n',
    rule: "plugin",
    says: /observe\/logger\.ts/,
  },
  { name: "prom-client outside observe", path: "src/work/prom.ts", text: importOf("prom-client"), rule: "plugin" },
  {
    name: "a development dependency in src",
    path: "src/core/dev.ts",
    text: importOf("fast-check"),
    rule: "noUndeclaredDependencies",
  },
  {
    name: "process.env outside settings/config.ts",
    path: "src/kube/env.ts",
    text: "export const y = process.env.HOME;\n",
    rule: "noProcessEnv",
  },
  {
    name: "env destructured from process",
    path: "src/kube/env-out.ts",
    text: "export const { env } = process;\n",
    rule: "plugin",
    says: /src\/settings\/config\.ts/,
  },
  { name: "node:process", path: "src/kube/env-import.ts", text: importOf("node:process"), rule: "plugin" },
  ...[
    "Date.now()",
    "[0].map(Date.now)",
    "new Date()",
    "AbortSignal.timeout(5)",
    "process.hrtime.bigint()",
    "globalThis.setTimeout(() => {}, 1)",
  ].map((code, index) => ({
    name: code,
    path: `src/sessions/time-${index}.ts`,
    text: `export const y = () => ${code};\n`,
    rule: "plugin",
    says: /Clock/,
  })),
  ...["setTimeout(() => {}, 1)", "setInterval(() => {}, 1)", "performance.now()", "[setTimeout]"].map(
    (code, index) => ({
      name: code,
      path: `src/sessions/timer-${index}.ts`,
      text: `export const y = () => ${code};\n`,
      rule: "noRestrictedGlobals",
    }),
  ),
  {
    name: "node:timers/promises",
    path: "src/sessions/timers.ts",
    text: importOf("node:timers/promises"),
    rule: "plugin",
    says: /Clock/,
  },
  { name: "node:perf_hooks", path: "src/sessions/perf.ts", text: importOf("node:perf_hooks"), rule: "plugin" },
  {
    name: "a switch without one of the cases",
    path: "src/core/switch.ts",
    text: 'export function f(k: "a" | "b"): number {\n  switch (k) {\n    case "a":\n      return 1;\n  }\n  return 2;\n}\n',
    rule: "useExhaustiveSwitchCases",
  },
  {
    name: "a promise that is not awaited",
    path: "src/core/floating.ts",
    text: "async function f(): Promise<void> {}\nexport function g(): void {\n  f();\n}\n",
    rule: "noFloatingPromises",
  },
  { name: "console in src", path: "src/core/console.ts", text: 'console.log("x");\nexport {};\n', rule: "noConsole" },
];

/** Code that the same rules must allow. */
const clean: Readonly<Record<string, string>> = {
  "src/core/clock.ts":
    "export const now = () => Date.now();\nexport const t = () => setTimeout(() => {}, performance.now());\n",
  "src/settings/config.ts": "export const processEnvironment = () => process.env;\n",
  "src/work/client.ts":
    'import { request } from "undici";\nimport { now } from "../core/clock.ts";\nimport { metrics } from "../observe/metrics.ts";\nexport const x = [request, now, metrics];\n',
  "src/kube/transport.ts":
    'import { KubeConfig } from "@kubernetes/client-node";\nimport { Agent } from "undici";\nexport const x = [KubeConfig, Agent];\n',
  "src/observe/metrics.ts":
    'import { monitorEventLoopDelay } from "node:perf_hooks";\nimport { Registry } from "prom-client";\nexport const metrics = [Registry, monitorEventLoopDelay];\n',
  "src/protocol/claim.ts":
    'import type { V1Pod } from "@kubernetes/client-node";\nimport { x } from "../work/client.ts";\nimport { y } from "./lease.ts";\nexport const at = (ms: number) => new Date(ms).toISOString();\nexport type P = V1Pod;\nexport const z = [x, y];\n',
  "src/protocol/lease.ts": "export const y = 1;\n",
  "src/reconcile/environment.ts":
    'import { z } from "../sessions/claim.ts";\nimport { w } from "../workers/scale.ts";\nexport const all = [z, w];\n',
  "src/workers/scale.ts": 'import { x } from "../kube/transport.ts";\nexport const w = x;\n',
  "test/core/clock.test.ts": "export const y = [Date.now(), process.env.HOME, setTimeout(() => {}, 1)];\n",
};

/** The second files of the planted cycles. */
const SECOND_FILES: Readonly<Record<string, string>> = {
  "src/core/cycle-b.ts": 'import { a } from "./cycle-a.ts";\nexport const b = () => a();\n',
  "src/core/type-cycle-b.ts": 'import type { A } from "./type-cycle-a.ts";\nexport type B = { readonly a?: A };\n',
};

let found: Map<string, Finding[]>;

beforeAll(async () => {
  found = await lintFiles({
    ...clean,
    ...Object.fromEntries(plants.map(({ path, text }) => [path, text])),
    ...SECOND_FILES,
  });
});

describe("the linter finds", () => {
  test.each(plants)("$name", ({ path, rule, says }) => {
    const findings = found.get(path) ?? [];
    expect(findings.map((finding) => finding.rule)).toContain(rule);
    if (says) expect(findings.find((finding) => finding.rule === rule)?.message).toMatch(says);
  });
});

test("the linter finds each forbidden import of operator.ts", () => {
  const findings = found.get("src/operator.ts")?.filter(({ rule }) => rule === "noRestrictedImports");
  expect(findings).toHaveLength(OPERATOR_IMPORTS.length);
});

describe("the linter allows", () => {
  test.each(Object.keys(clean))("%s", (path) => {
    expect(found.get(path) ?? []).toEqual([]);
  });
});

describe("every room of src", () => {
  const rooms = async () => {
    const entries = await readdir(join(ROOT, "src"), { withFileTypes: true });
    return entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
  };

  test("has its own rule", async () => {
    const configuration = await readFile(join(ROOT, "biome.json"), "utf8");
    for (const room of await rooms()) expect(configuration, room).toContain(`"src/${room}/**"`);
  });

  test("may import what its row in CONTRIBUTING.md says", async () => {
    const page = await readFile(join(ROOT, "CONTRIBUTING.md"), "utf8");
    const rows = [...page.matchAll(/^\| `(\w+)` \| .* \| ([^|]+) \|$/gm)].map(([, room, may]) => [room, may]);
    const configuration = JSON.parse(await readFile(join(ROOT, "biome.json"), "utf8"));
    const allowed = (await rooms()).map((room) => [room, allowedImports(configuration, room)]);
    expect(Object.fromEntries(rows)).toEqual(Object.fromEntries(allowed));
  });

  test("is flat: a room that needs folders is two rooms", async () => {
    for (const room of await rooms()) {
      const entries = await readdir(join(ROOT, "src", room), { withFileTypes: true });
      expect(
        entries.filter((entry) => entry.isDirectory()).map(({ name }) => name),
        room,
      ).toEqual([]);
    }
  });
});

interface Configuration {
  readonly overrides: readonly {
    readonly includes: readonly string[];
    readonly linter: {
      readonly rules: {
        readonly style?: {
          readonly noRestrictedImports?: {
            readonly options: { readonly patterns: readonly { readonly group: readonly string[] }[] };
          };
        };
      };
    };
  }[];
}

/** The rooms that the linter lets a room import, as CONTRIBUTING.md lists them. */
function allowedImports({ overrides }: Configuration, room: string): string {
  const patterns = overrides
    .filter(({ includes }) => includes.includes(`src/${room}/**`))
    .flatMap(({ linter }) => linter.rules.style?.noRestrictedImports?.options.patterns ?? []);
  const group = patterns.flatMap((pattern) => pattern.group);
  if (!group.includes("../**")) return "every room";
  return group.flatMap((glob) => /^!\.\.\/(\w+)\/\*$/.exec(glob)?.[1] ?? []).join(", ") || "nothing";
}
