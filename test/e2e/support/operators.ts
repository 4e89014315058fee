import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { KubeClient } from "../../../src/kube/client.ts";
import { DEPLOYMENTS, PODS, type Pod } from "../../../src/kube/resource.ts";
import { undocumentedLabels } from "../../support/label-values.ts";
import { OPERATOR_LOGS } from "./log-follower.ts";
import type { PodProxy } from "./pod-proxy.ts";
import { parseMetrics, type Sample, sumOf } from "./prometheus-text.ts";
import { OPERATOR_DEPLOYMENT, OPERATOR_NAMESPACE, OPERATOR_SELECTOR } from "./provided.ts";

/** The chart's default. */
export const METRICS_PORT = 8080;

/** A line of an operator's log. */
export type LogLine = Readonly<Record<string, unknown>> & { readonly msg?: string; readonly level?: string };

/** Reads the metrics of an operator outside the Deployment, such as a test's own process. */
export type MetricsSource = () => Promise<string>;

/** The operators of the cluster: those of the Deployment, and those that a test runs itself. */
export class Operators {
  readonly #kube: KubeClient;
  readonly #proxy: PodProxy;
  readonly #dir: string;
  readonly #sources = new Set<MetricsSource>();

  /** @param dir the run's folder, which contains the followed logs */
  constructor(kube: KubeClient, proxy: PodProxy, dir: string) {
    this.#kube = kube;
    this.#proxy = proxy;
    this.#dir = dir;
  }

  /** Pods of the Deployment, read from the API server. */
  async pods(): Promise<Pod[]> {
    const { items } = await this.#kube.list(PODS, {
      namespace: OPERATOR_NAMESPACE,
      labelSelector: OPERATOR_SELECTOR,
    });
    return items;
  }

  /** Pods that are ready and not being deleted. */
  async readyPods(): Promise<Pod[]> {
    return (await this.pods()).filter(
      ({ metadata, status }) =>
        metadata.deletionTimestamp === undefined &&
        status?.conditions?.some(({ type, status }) => type === "Ready" && status === "True"),
    );
  }

  /** Sets the Deployment's `spec.replicas`. */
  async scale(replicas: number): Promise<void> {
    const ref = { namespace: OPERATOR_NAMESPACE, name: OPERATOR_DEPLOYMENT };
    await this.#kube.patch(DEPLOYMENTS, ref, { spec: { replicas } }, { type: "merge" });
  }

  /** Includes these metrics. Returns a function that ends that. */
  addSource(source: MetricsSource): () => void {
    this.#sources.add(source);
    return () => void this.#sources.delete(source);
  }

  /** All series of all operators that can be reached now. */
  async samples(): Promise<Sample[]> {
    const pages = [
      ...(await this.readyPods()).map(({ metadata }) => this.#page(metadata.name ?? "")),
      ...[...this.#sources].map((source) => source()),
    ];
    return (await Promise.all(pages)).flatMap(parseMetrics);
  }

  /** The sum over all operators; undefined if none has such a series. An operator that restarts counts from 0. */
  async metric(name: string, labels: Readonly<Record<string, string>> = {}): Promise<number | undefined> {
    return sumOf(await this.samples(), name, labels);
  }

  async #page(pod: string): Promise<string> {
    const port = { namespace: OPERATOR_NAMESPACE, pod, port: METRICS_PORT };
    const { status, text } = await this.#proxy.toPod(port, { method: "GET", path: "/metrics" });
    // The Pod has been deleted meanwhile, and has no metrics any more.
    if (status === 404) return "";
    if (status !== 200) throw new Error(`metrics of ${pod}: ${status} ${text.slice(0, 500)}`);
    return text;
  }

  /** @throws {Error} if a label has a value that docs/metric-labels.md does not list */
  async assertDocumentedLabels(): Promise<void> {
    const unknown = undocumentedLabels(await this.samples());
    if (unknown.length > 0) throw new Error(`docs/metric-labels.md lacks ${unknown.join(", ")}`);
  }

  /**
   * The log lines of all Pods of the Deployment in this run, including deleted ones. `operator` is the Pod's name,
   * because `pod` is a field of some lines.
   */
  async log(): Promise<readonly (LogLine & { readonly operator: string })[]> {
    const dir = join(this.#dir, OPERATOR_LOGS);
    const files = await readdir(dir).catch(() => []);
    const lines = await Promise.all(files.map(async (file) => await linesOf(join(dir, file), file)));
    return lines.flat();
  }
}

async function linesOf(path: string, file: string) {
  const operator = file.replace(/\.log$/, "");
  const text = await readFile(path, "utf8");
  return text.split("\n").flatMap((line) => {
    // Each line starts with the kubelet's timestamp.
    const at = line.indexOf(" ");
    try {
      return [{ ...(JSON.parse(line.slice(at + 1)) as LogLine), operator }];
    } catch {
      return line.trim() === "" ? [] : [{ msg: line, operator }];
    }
  });
}

/** The user name of the operators' service account in a namespace. @throws {Error} if there are no operators */
export async function operatorUser(kube: KubeClient, namespace: string): Promise<string> {
  const { items } = await kube.list(PODS, { namespace, labelSelector: OPERATOR_SELECTOR });
  const account = (items[0]?.spec as { readonly serviceAccountName?: string } | undefined)?.serviceAccountName;
  if (account === undefined) throw new Error(`no operator in ${namespace}`);
  return `system:serviceaccount:${namespace}:${account}`;
}
