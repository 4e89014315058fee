import { readFile } from "node:fs/promises";
import type { Command } from "commander";
import { stringify } from "yaml";
import { keepAlive } from "../core/clock.ts";
import { ConfigError, errorText } from "../core/errors.ts";
import { YamlError, yamlDocuments } from "../core/yaml.ts";
import type { OperatorSettings } from "../doctor/operators.ts";
import type { KubeClient } from "../kube/client.ts";
import type { KubeObject } from "../kube/resource.ts";
import { oneLine } from "../observe/terminal.ts";
import { givesAny, parseSettings, type Settings, settingsFrom } from "../settings/config.ts";
import { addFlags, FLAGS } from "../settings/flags.ts";
import {
  addKubeconfig,
  addOutput,
  type Cluster,
  DEFAULT_OPERATOR_NAMESPACE,
  type Invocation,
  jsonText,
} from "./invocation.ts";
import type { Finding, OperatorFacts } from "./preview.ts";

const FORMATS = ["yaml", "json"] as const;
const EXIT_REFUSED = 1;

/** The operator's flags on which the objects depend. */
const OPERATOR_FLAGS = [
  ...[FLAGS.allowedInTemplates, FLAGS.runtimeClasses, FLAGS.allowedApiOrigins, FLAGS.apiCidrs],
  ...[FLAGS.clusterDnsPods, FLAGS.clusterDnsCidrs],
];

interface Options {
  readonly filename?: string;
  readonly namespace?: string;
  readonly operatorNamespace?: string;
  readonly output: (typeof FORMATS)[number];
}

/** `berth template`: prints the objects that an operator would create for an Environment from a file or a cluster. */
export function addTemplate(program: Command, invocation: Invocation): void {
  const command = program
    .command("template")
    .usage("-f <file> | [-n <namespace>] <name> [flags]")
    .description("Print the Pod or Deployment, and the NetworkPolicy, that the operator creates for an Environment.")
    .argument("[name]", "An Environment in the cluster; or use -f.")
    .option("-f, --filename <file>", "File with Environments, YAML or JSON; - is standard input.")
    .option(
      "-n, --namespace <name>",
      "Namespace of the Environment (default: for a file, default; else that of the kubeconfig's context).",
    )
    .option(
      "--operator-namespace <name>",
      `Namespace of the operator, whose flags are used unless you give any here (default: all, or ${DEFAULT_OPERATOR_NAMESPACE}).`,
    );
  addKubeconfig(command);
  addFlags(command, OPERATOR_FLAGS);
  addOutput(command, FORMATS).action((name: string | undefined) => {
    const settings = settingsFrom(command, invocation.env);
    const given = givesAny(command, invocation.env, OPERATOR_FLAGS);
    return template(name, { ...command.opts<Options>(), given }, settings, invocation);
  });
}

async function template(
  name: string | undefined,
  options: Options & { readonly given: boolean },
  settings: Settings,
  { streams, exit }: Invocation,
): Promise<void> {
  const { filename, namespace, output } = options;
  if ((name === undefined) === (filename === undefined)) {
    throw new ConfigError("name an Environment in the cluster, or give a file with -f");
  }
  const { previewOf } = await import("./preview.ts");
  using _alive = keepAlive();
  const opened = await openCluster(options, settings);
  await using cluster = opened.cluster;
  const raws =
    filename === undefined && cluster
      ? [await fromCluster(name ?? "", namespace, cluster)]
      : await fromFile(filename ?? "", namespace ?? "default", streams.input);
  const { factsFor, kube, note } = await judgingBy(options, settings, opened);
  const previews = await Promise.all(raws.map((raw) => previewOf(raw, factsFor, kube)));
  if (note !== null) streams.err(`note: ${oneLine(note)}\n`);
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

const ONLY_OWN_RULES = "only Berth's own rules were checked, with the flags given here or their defaults";

/** The cluster to use, or why there is none. */
type Opened = { readonly cluster: Cluster } | { readonly cluster: undefined; readonly why: string };

/** A file needs no cluster, unless the command line names one. */
async function openCluster({ filename }: Options, settings: Settings): Promise<Opened> {
  const { connect } = await import("./invocation.ts");
  try {
    return { cluster: connect(settings, "template") };
  } catch (error) {
    const isNamed = settings.kubeconfig !== undefined || settings.context !== undefined;
    if (filename === undefined || isNamed || !(error instanceof ConfigError)) throw error;
    return { cluster: undefined, why: error.message };
  }
}

/** How Environments are judged. */
interface Judging {
  readonly factsFor: (namespace: string) => OperatorFacts;
  /** For dry runs; null: no cluster answers. */
  readonly kube: KubeClient | null;
  /** What was not checked. */
  readonly note: string | null;
}

/** Judges by the flags of the cluster's operators, as `berth doctor` does, unless the command line gives some. */
async function judgingBy(
  { given, operatorNamespace }: Options & { readonly given: boolean },
  settings: Settings,
  opened: Opened,
): Promise<Judging> {
  const { defaultDnsCidrs } = await import("../reconcile/network-policy.ts");
  const { operatorSettings } = await import("./invocation.ts");
  const factsOf = (settings: OperatorSettings, namespace: string) => {
    const { podPolicy, runtimeClasses, originAllowed, apiCidrs, clusterDns } = settings;
    const dns = { ...clusterDns, cidrs: clusterDns.cidrs ?? defaultDnsCidrs([]) };
    return { podPolicy, runtimeClasses, originAllowed, network: { apiCidrs, operatorNamespace: namespace, dns } };
  };
  const assumed = factsOf(operatorSettings(settings), operatorNamespace ?? DEFAULT_OPERATOR_NAMESPACE);
  const withoutCluster = (why: string) => ({ factsFor: () => assumed, kube: null, note: `${why}; ${ONLY_OWN_RULES}` });
  if (!opened.cluster) return withoutCluster(opened.why);
  const { kube, server } = opened.cluster;
  if (given) return { factsFor: () => assumed, kube, note: null };
  const { findOperators, operatorOf } = await import("../doctor/operators.ts");
  const where = { namespace: operatorNamespace, fallback: DEFAULT_OPERATOR_NAMESPACE };
  const found = await findOperators(kube, where, (argv, variables) => operatorSettings(parseSettings(argv, variables)));
  if (found.is === "failed") return withoutCluster(`${server}: ${found.message}`);
  const operators = found.is === "seen" ? found.value : [];
  const missing = found.is === "forbidden" ? "needs permission to list deployments" : "no operator is installed";
  return {
    factsFor: (namespace) => {
      const operator = operatorOf(operators, namespace);
      return operator?.settings ? factsOf(operator.settings, operator.namespace) : assumed;
    },
    kube,
    note: operators.length > 0 ? null : `the operator's flags are not known (${missing}); its defaults are used`,
  };
}

async function fromCluster(name: string, namespace: string | undefined, { kube, namespace: current }: Cluster) {
  const { ENVIRONMENTS } = await import("../reconcile/finalizer.ts");
  return await kube.get(ENVIRONMENTS, { namespace: namespace ?? current, name });
}

async function fromFile(
  filename: string,
  namespace: string,
  input: (() => Promise<string>) | undefined,
): Promise<unknown[]> {
  const { asStored, isEnvironment } = await import("./preview.ts");
  const shown = filename === "-" ? "standard input" : filename;
  const manifests = parse(await read(filename, input), shown).filter(isEnvironment);
  if (manifests.length === 0)
    throw new ConfigError(`${shown}: contains no Environment; add one with apiVersion berth.dev/v1alpha1`);
  return manifests.map((manifest) => asStored(manifest, namespace));
}

async function read(filename: string, input: (() => Promise<string>) | undefined): Promise<string> {
  if (filename === "-") return (await input?.()) ?? "";
  try {
    return await readFile(filename, "utf8");
  } catch (cause) {
    throw new ConfigError(`${filename}: cannot read the file: ${errorText(cause)}`, { cause });
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
    throw new ConfigError(`${shown}: is not valid YAML: ${error.message}`);
  }
}

function yamlText(objects: readonly KubeObject[]): string {
  return objects.map((object) => stringify(object, { lineWidth: 0, aliasDuplicateObjects: false })).join("---\n");
}

/** Escapes the message: it may quote another user's spec, which must not control the terminal. */
function line(what: string, { reason, message }: Finding): string {
  return `${what}: ${reason}: ${oneLine(message)}\n`;
}
