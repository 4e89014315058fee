import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse, parseAllDocuments, parseDocument, stringify } from "yaml";
import { type Environment, parseEnvironment } from "../../src/api/environment.ts";
import { asStored } from "../../src/commands/preview.ts";
import type { KubeObject, Pod } from "../../src/kube/resource.ts";
import { sessionTemplate } from "../../src/pods/pod-render.ts";
import { type NetworkFacts, renderNetworkPolicy } from "../../src/reconcile/network-policy.ts";
import { parseSettings } from "../../src/settings/config.ts";
import { workerTemplate } from "../../src/workers/template.ts";
import { ROOT } from "../project/lint-gate.ts";
import { cliRun } from "../support/cli-run.ts";

const example = (name: string) => join(ROOT, "examples/environments", `${name}.yaml`);
const read = async (name: string) => parse(await readFile(example(name), "utf8"));

/** An example with one changed field in its spec. */
async function changed(name: string, path: readonly (string | number)[], value: unknown): Promise<string> {
  const document = parseDocument(await readFile(example(name), "utf8"));
  document.setIn(["spec", ...path], value);
  return String(document);
}

async function environment(name: string): Promise<Environment> {
  const parsed = parseEnvironment(asStored(await read(name), "default"));
  if (!parsed.ok) throw new Error(parsed.problems.join("\n"));
  return parsed.environment;
}

const TEMPLATE_SPEC = ["sessions", "template", "spec"];
const NETWORK: NetworkFacts = {
  apiCidrs: ["160.79.104.0/23", "2607:6bc0::/48"],
  operatorNamespace: "berth-system",
  dns: { ...parseSettings([], {}).clusterDns, cidrs: ["169.254.20.10/32"] },
};

/** Without a cluster. */
const NOTE =
  "note: no file listed in KUBECONFIG exists: /nonexistent/kubeconfig; only Berth's own rules were checked, with the flags given here or their defaults\n";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "berth-template-"));
});
afterAll(() => rm(folder, { recursive: true }));

describe("berth template", () => {
  test("prints exactly the Pod that the operator creates, and the NetworkPolicy", async () => {
    const { code, out, err } = await cliRun(["template", "-f", example("full"), "-o", "json"]);
    expect({ code, err }).toEqual({ code: 0, err: NOTE });
    const made = await environment("full");
    expect(JSON.parse(out)).toEqual({
      apiVersion: "v1",
      kind: "List",
      items: JSON.parse(
        JSON.stringify([sessionTemplate(made).render("berth-research-template"), renderNetworkPolicy(made, NETWORK)]),
      ),
    });
  });

  test("prints the Deployment of an Environment with workers, with the minimum number of replicas", async () => {
    const { code, out } = await cliRun(["template", "-f", example("workers")]);
    const [deployment, policy] = parseAllDocuments(out).map((document) => document.toJS() as KubeObject);
    const made = await environment("workers");
    expect(code).toBe(0);
    expect(deployment).toEqual(JSON.parse(JSON.stringify(workerTemplate(made).deployment(0))));
    expect(policy?.kind).toBe("NetworkPolicy");
    expect(JSON.stringify(policy)).toContain('"kubernetes.io/metadata.name":"berth-system"');
  });

  test("allows DNS to the Pods and addresses in its flags", async () => {
    const flags = ["--cluster-dns-pods=dns/app=coredns:8053", "--cluster-dns-cidrs=10.0.0.10/32"];
    const { out } = await cliRun(["template", "-f", example("minimal"), "-o", "json", ...flags]);
    const policy = JSON.parse(out).items[1];
    expect(policy.spec.egress.slice(0, 2)).toMatchObject([
      { to: [{ ipBlock: { cidr: "10.0.0.10/32" } }], ports: [{ port: 53 }, { port: 53 }] },
      { to: [{ podSelector: { matchLabels: { app: "coredns" } } }], ports: [{ port: 8053 }, { port: 8053 }] },
    ]);
  });

  test("shows a session's values as references to the claim's Secret, never in clear text", async () => {
    const input = await changed("minimal", ["sessions", "parking"], "Key");
    const { out } = await cliRun(["template", "-f", "-", "-o", "json"], { input });
    const pod: Pod = JSON.parse(out).items[0];
    const secret = pod.spec.containers[0]?.env?.find(({ name }) => name === "ANTHROPIC_WORK_SECRET");
    expect(secret).toEqual({
      name: "ANTHROPIC_WORK_SECRET",
      valueFrom: { secretKeyRef: { name: "berth-research-template", key: "work-secret" } },
    });
  });

  test("reads standard input, several documents, and Lists, and ignores other objects", async () => {
    const list = {
      apiVersion: "v1",
      kind: "List",
      items: [await read("minimal"), { kind: "Secret", apiVersion: "v1" }],
    };
    const input = `${stringify({ apiVersion: "v1", kind: "Namespace" })}---\n${stringify(list)}---\n${stringify(await read("workers"))}`;
    const { code, out } = await cliRun(["template", "-f", "-", "-o", "json"], { input });
    expect(code).toBe(0);
    expect(JSON.parse(out).items.map(({ kind }: KubeObject) => kind)).toEqual([
      "Pod",
      "NetworkPolicy",
      "Deployment",
      "NetworkPolicy",
    ]);
  });

  test("puts an Environment without a namespace into that of -n", async () => {
    const manifest = await read("minimal");
    delete manifest.metadata.namespace;
    const argv = ["template", "-f", "-", "-o", "json"];
    const namespaceOf = async (flags: readonly string[]) =>
      JSON.parse((await cliRun([...argv, ...flags], { input: stringify(manifest) })).out).items[0].metadata.namespace;
    expect(await namespaceOf([])).toBe("default");
    expect(await namespaceOf(["-n", "agents"])).toBe("agents");
  });

  test("warns of an environmentId without the platform's prefix, and still prints the Pod", async () => {
    const input = await changed("minimal", ["environmentId"], "research-prod");
    const { code, out, err } = await cliRun(["template", "-f", "-"], { input });
    expect({ code, err }).toEqual({
      code: 0,
      err: `${NOTE}warning: EnvironmentNotFound: spec.environmentId: research-prod does not begin with env_; copy the id from the console\n`,
    });
    expect(out).toContain("research-prod");
  });

  test("warns of limits alone with what each Pod reserves while it waits, and still prints the Pod", async () => {
    const container = { name: "worker", image: "worker:1", resources: { limits: { memory: "2Gi" } } };
    const input = await changed("minimal", [...TEMPLATE_SPEC, "containers", 0], container);
    const { code, out, err } = await cliRun(["template", "-f", "-"], { input });
    expect([code, out]).toEqual([0, expect.stringContaining("memory: 2Gi")]);
    expect(err.replace(NOTE, "")).toMatch(/^warning: AcceptedWithWarning: .* reserves 2Gi of memory, /);
  });

  test("warns of an image that is always pulled, and still prints the Pod", async () => {
    const container = { name: "worker", image: "worker:1", imagePullPolicy: "Always" };
    const input = await changed("minimal", [...TEMPLATE_SPEC, "containers", 0], container);
    const { code, out, err } = await cliRun(["template", "-f", "-"], { input });
    expect(code).toBe(0);
    expect(out).toContain("imagePullPolicy: Always");
    expect(err.replace(NOTE, "")).toMatch(
      /^warning: AcceptedWithWarning: spec\.sessions\.template\.spec\.containers\[0\]\.imagePullPolicy: with Always, /,
    );
  });
});

describe("berth template refuses with the messages of the operator's conditions", () => {
  const FORBIDDEN =
    /^refused: TemplateForbidden: spec\.sessions\.template\.spec\.runtimeClassName: weaker is not allowed \(podPolicy\.runtimeClasses=\[gvisor, kata\]\); /;

  const withRuntimeClass = () => changed("minimal", [...TEMPLATE_SPEC, "runtimeClassName"], "weaker");

  test("a spec that does not fit the schema", async () => {
    const input = await changed("minimal", ["sessions", "warm"], -1);
    const { code, out, err } = await cliRun(["template", "-f", "-"], { input });
    expect({ code, out }).toEqual({ code: 1, out: "" });
    expect(err).toBe(`${NOTE}refused: InvalidSpec: spec.sessions.warm: is too small: it must be at least 0\n`);
  });

  test("a Pod that the policy does not allow, until a flag allows it", async () => {
    const input = await withRuntimeClass();
    const refused = await cliRun(["template", "-f", "-"], { input });
    expect(refused.code).toBe(1);
    expect(refused.err.replace(NOTE, "")).toMatch(FORBIDDEN);
    const flags = ["--allowed-in-templates", "runtimeClasses=weaker"];
    const taken = await cliRun(["template", "-f", "-", ...flags], { input });
    expect(taken).toMatchObject({ code: 0, err: NOTE });
    const variable = { BERTH_ALLOWED_IN_TEMPLATES: "runtimeClasses=weaker" };
    expect((await cliRun(["template", "-f", "-"], { input, env: variable })).out).toBe(taken.out);
  });

  test("an origin that must not get a key, until a flag allows it", async () => {
    const input = await changed("minimal", ["api", "baseUrl"], "http://127.0.0.1:8765");
    const { code, err } = await cliRun(["template", "-f", "-"], { input });
    expect(code).toBe(1);
    expect(err.replace(NOTE, "")).toMatch(
      /^refused: OriginNotAllowed: spec\.api\.baseUrl: the operator may not send keys to http:\/\/127\.0\.0\.1:8765/,
    );
    const flags = ["--allowed-api-origins", "http://127.0.0.1:8765"];
    expect((await cliRun(["template", "-f", "-", ...flags], { input })).code).toBe(0);
  });

  test("every field of a template that is wrong, in one message", async () => {
    const input = await changed("minimal", [...TEMPLATE_SPEC, "runtimeClassName"], "weaker");
    const spec = parse(input);
    spec.spec.sessions.template.spec.containers[0].resources = { limits: { memory: "2gb" } };
    const { code, err } = await cliRun(["template", "-f", "-"], { input: stringify(spec) });
    expect(code).toBe(1);
    expect(err.replace(NOTE, "")).toMatch(
      /^refused: TemplateForbidden: 2 problems: \(1\) .*runtimeClassName: weaker is not allowed.* \(2\) .*limits\.memory: invalid quantity "2gb"; use for example 2Gi\n$/,
    );
  });

  test("with terminal control characters in the spec escaped", async () => {
    const input = await changed("minimal", [...TEMPLATE_SPEC, "runtimeClassName"], "a\u001b[2J\nwarning: all is well");
    const { err } = await cliRun(["template", "-f", "-"], { input });
    expect(err).toContain("runtimeClassName: a [2J warning: all is well is not allowed");
    expect(err.replace(NOTE, "").trimEnd().split("\n")).toHaveLength(1);
  });

  test("as JSON, with the reason, message and fix of each problem", async () => {
    const { code, out, err } = await cliRun(["template", "-f", "-", "-o", "json"], { input: await withRuntimeClass() });
    expect({ code, err }).toEqual({ code: 1, err: NOTE });
    expect(JSON.parse(out)).toEqual({
      problems: [
        {
          reason: "TemplateForbidden",
          message: expect.stringContaining("runtimeClassName: weaker"),
          fix: expect.stringMatching(/^Remove the field/),
        },
      ],
    });
  });
});

describe("berth template exits with 2 and its usage", () => {
  test.each([
    [["template"], /name an Environment in the cluster, or give a file with -f/],
    [["template", "research", "-f", "x.yaml"], /name an Environment in the cluster, or give a file with -f/],
    [["template", "-f", "/does/not/exist.yaml"], /\/does\/not\/exist\.yaml: cannot read the file: ENOENT/],
    [["template", "-f", "-"], /standard input: contains no Environment/],
    [["template", "-f", "-", "-o", "xml"], /xml.*Allowed choices are yaml, json/],
    [["template", "-f", "-", "--allowed-in-templates", "nonsense"], /--allowed-in-templates: "nonsense"/],
  ])("%j", async (argv, says) => {
    const { code, out, err } = await cliRun(argv);
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err).toMatch(says);
    expect(err.trimEnd().split("\n").at(-1)).toMatch(/^usage: berth template -f <file> \|/);
  });

  test.each([
    ["a: [1", "line 1, column 6: bad indent"],
    ["kind: Secret\nstringData:\n  key: hunter2: x\n", "line 3, column 8: block as implicit key"],
    ['kind: Secret\nstringData: {key: "hunter2}\n', "line 3, column 1: missing char"],
    ["kind: Secret\nstringData: {key: *hunter2}\n", "an alias has no anchor, or there are too many aliases"],
  ])("for invalid YAML, with the position but no content: %j", async (text, why) => {
    const file = join(folder, "broken.yaml");
    await writeFile(file, text);
    const { code, err } = await cliRun(["template", "-f", file]);
    expect(code).toBe(2);
    expect(err).toContain(`berth: ${file}: is not valid YAML: ${why}\n`);
    expect(err).not.toContain("hunter2");
  });
});
