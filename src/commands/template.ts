import { readFile } from "node:fs/promises";
import type { Command } from "commander";
import { stringify } from "yaml";
import { keepAlive } from "../core/clock.ts";
import { ConfigError, errorText } from "../core/errors.ts";
import { YamlError, yamlDocuments } from "../core/yaml.ts";
import type { KubeObject } from "../kube/resource.ts";
import { oneLine } from "../observe/terminal.ts";
import { originAllowed } from "../settings/allowed-origins.ts";
import { type Settings, settingsFrom } from "../settings/config.ts";
import { addFlags, FLAGS } from "../settings/flags.ts";
import { addKubeconfig, addOutput, type Invocation, jsonText } from "./invocation.ts";
import type { Finding, OperatorFacts } from "./preview.ts";

/** The namespace of the operator in docs/install.md. */
export const DEFAULT_OPERATOR_NAMESPACE = "berth-system";

const FORMATS = ["yaml", "json"] as const;
const EXIT_REFUSED = 1;

interface Options {
  readonly filename?: string;
  readonly namespace?: string;
  readonly operatorNamespace: string;
  readonly output: (typeof FORMATS)[number];
}

/** `berth template`: prints the objects that an operator would create for an Environment from a file or a cluster. */
export function addTemplate(program: Command, invocation: Invocation): void {
  const command = program
    .command("template")
    .usage("-f <file> | [-n <namespace>] <name> [flags]")
    .description("Print the Pod or Deployment, and the NetworkPolicy, that the operator makes of an Environment.")
    .argument("[name]", "An Environment of the cluster; or give -f.")
    .option("-f, --filename <file>", "File with Environments, YAML or JSON; - is the standard input.")
    .option("-n, --namespace <name>", "Namespace of the Environment (default: that of the kubeconfig's context).")
    .option(
      "--operator-namespace <name>",
      "Where the operator runs: workers let it ask them whether they are busy.",
      DEFAULT_OPERATOR_NAMESPACE,
    );
  addKubeconfig(command);
  addFlags(command, [
    ...[FLAGS.allowedInTemplates, FLAGS.allowedApiOrigins, FLAGS.apiCidrs],
    ...[FLAGS.clusterDnsPods, FLAGS.clusterDnsCidrs],
  ]);
  addOutput(command, FORMATS).action((name: string | undefined) =>
    template(name, command.opts<Options>(), settingsFrom(command, invocation.env), invocation),
  );
}

async function template(
  name: string | undefined,
  options: Options,
  settings: Settings,
  { streams, exit }: Invocation,
): Promise<void> {
  const { filename, namespace, output } = options;
  if ((name === undefined) === (filename === undefined)) {
    throw new ConfigError("name an Environment of the cluster, or give a file with -f");
  }
  const { previewOf } = await import("./preview.ts");
  const raws =
    filename === undefined
      ? [await fromCluster(name ?? "", namespace, settings)]
      : await fromFile(filename, namespace ?? "default", streams.input);
  const facts = await factsOf(settings, options.operatorNamespace);
  const previews = raws.map((raw) => previewOf(raw, facts));
  const problems = previews.flatMap((preview) => (preview.ok ? [] : preview.problems));
  if (problems.length > 0) {
    exit(EXIT_REFUSED);
    if (output === "json") return streams.out(jsonText({ problems }));
    return streams.err(problems.map((problem) => line("refused", problem)).join(""));
  }
  const objects = previews.flatMap((preview) => (preview.ok ? preview.objects : []));
  const warnings = previews.flatMap((preview) => (preview.ok ? preview.warnings : []));
  streams.err(warnings.map((warning) => line("warning", warning)).join(""));
  streams.out(output === "json" ? jsonText({ apiVersion: "v1", kind: "List", items: objects }) : yamlText(objects));
}

async function factsOf(settings: Settings, operatorNamespace: string): Promise<OperatorFacts> {
  const { defaultDnsCidrs } = await import("../reconcile/network-policy.ts");
  const { allowedApiOrigins, podPolicy, apiCidrs, clusterDns } = settings;
  return {
    podPolicy,
    originAllowed: (baseUrl) => originAllowed(allowedApiOrigins, baseUrl),
    network: { apiCidrs, operatorNamespace, dns: { ...clusterDns, cidrs: clusterDns.cidrs ?? defaultDnsCidrs([]) } },
  };
}

async function fromCluster(name: string, namespace: string | undefined, settings: Settings): Promise<unknown> {
  const { connect } = await import("./invocation.ts");
  const { ENVIRONMENTS } = await import("../reconcile/finalizer.ts");
  using _alive = keepAlive();
  await using cluster = connect(settings, "template");
  return await cluster.kube.get(ENVIRONMENTS, { namespace: namespace ?? cluster.namespace, name });
}

async function fromFile(
  filename: string,
  namespace: string,
  input: (() => Promise<string>) | undefined,
): Promise<unknown[]> {
  const { asStored, isEnvironment } = await import("./preview.ts");
  const shown = filename === "-" ? "the standard input" : filename;
  const manifests = parse(await read(filename, input), shown).filter(isEnvironment);
  if (manifests.length === 0) throw new ConfigError(`${shown} holds no Environment (apiVersion berth.dev/v1alpha1)`);
  return manifests.map((manifest) => asStored(manifest, namespace));
}

async function read(filename: string, input: (() => Promise<string>) | undefined): Promise<string> {
  if (filename === "-") return (await input?.()) ?? "";
  try {
    return await readFile(filename, "utf8");
  } catch (cause) {
    throw new ConfigError(`cannot read ${filename}: ${errorText(cause)}`, { cause });
  }
}

/**
 * All documents of a YAML stream, with Lists replaced by their items. Errors quote nothing, because the file may
 * contain a Secret.
 */
function parse(text: string, shown: string): unknown[] {
  try {
    return yamlDocuments(text).flatMap((value) => {
      const items = typeof value === "object" && value !== null && "items" in value ? value.items : undefined;
      return Array.isArray(items) ? items : [value];
    });
  } catch (error) {
    if (!(error instanceof YamlError)) throw error;
    throw new ConfigError(`${shown} is no YAML: ${error.message}`);
  }
}

function yamlText(objects: readonly KubeObject[]): string {
  return objects.map((object) => stringify(object, { lineWidth: 0, aliasDuplicateObjects: false })).join("---\n");
}

/** Escapes the message: it may quote another user's spec, which must not control the terminal. */
function line(what: string, { reason, message }: Finding): string {
  return `${what}: ${reason}: ${oneLine(message)}\n`;
}
