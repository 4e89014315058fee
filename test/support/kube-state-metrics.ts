/** Serves the series that kube-state-metrics has of Pods, as far as alerts about Pods use them. */

import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import type { ContainerStatus } from "../../src/kube/objects.ts";
import type { Pod } from "../../src/kube/resource.ts";

const PHASES = ["Pending", "Running", "Succeeded", "Failed", "Unknown"];
const READY = ["true", "false", "unknown"];
const REASONS = ["Evicted", "NodeAffinity", "NodeLost", "Shutdown", "UnexpectedAdmissionError", "SchedulingGated"];

type Labels = Readonly<Record<string, string>>;

/** Starts a server with the series of the current Pods on `/metrics`. */
export async function serveKubeStateMetrics(
  pods: () => readonly Pod[],
): Promise<AsyncDisposable & { readonly address: string }> {
  const server = createServer((_, response) => {
    response.setHeader("content-type", "text/plain; version=0.0.4");
    response.end(`${pods().flatMap(seriesOf).join("\n")}\n`);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    [Symbol.asyncDispose]: async () => {
      server.close();
      server.closeAllConnections();
    },
  };
}

interface Resources {
  readonly requests?: Readonly<Record<string, string>>;
}

/** The factors of the suffixes of quantities that tests use. */
const UNITS: Readonly<Record<string, number>> = { "": 1, m: 1e-3, Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30 };

function amountOf(quantity: string): number {
  const [, digits = "", suffix = ""] = /^([\d.]+)(\w*)$/.exec(quantity) ?? [];
  const unit = UNITS[suffix];
  if (unit === undefined) throw new Error(`${quantity}: unknown unit`);
  return Number(digits) * unit;
}

function seriesOf({ metadata, spec, status = {} }: Pod): string[] {
  const of = { namespace: metadata.namespace ?? "", pod: metadata.name ?? "" };
  const series = (name: string, labels: Labels, value: number | boolean) => {
    const pairs = Object.entries({ ...of, ...labels }).map(([label, text]) => `${label}=${JSON.stringify(text)}`);
    return `${name}{${pairs.join(",")}} ${Number(value)}`;
  };
  const condition = (type: string) => status.conditions?.find((each) => each.type === type);
  const ready = condition("Ready")?.status.toLowerCase();
  const reason = status.reason ?? condition("PodScheduled")?.reason;
  const owners = metadata.ownerReferences ?? [{ kind: "", name: "", controller: false }];
  const ofContainers = (kind: string, statuses: readonly ContainerStatus[] = []) =>
    statuses.flatMap(({ name: container, restartCount = 0, state = {} }) => [
      series(`kube_pod_${kind}_status_running`, { container }, state.running !== undefined),
      series(`kube_pod_${kind}_status_waiting`, { container }, state.waiting !== undefined),
      series(`kube_pod_${kind}_status_restarts_total`, { container }, restartCount),
      ...(state.waiting?.reason
        ? [series(`kube_pod_${kind}_status_waiting_reason`, { container, reason: state.waiting.reason }, true)]
        : []),
    ]);
  const requests = spec.containers.flatMap(({ name: container, resources }) =>
    Object.entries((resources as Resources | undefined)?.requests ?? {}).map(([resource, quantity]) =>
      series("kube_pod_container_resource_requests", { container, resource }, amountOf(quantity)),
    ),
  );
  return [
    ...requests,
    series("kube_pod_created", {}, Date.parse(String(metadata.creationTimestamp)) / 1_000),
    ...owners.map(({ kind, name, controller }) =>
      series("kube_pod_owner", { owner_kind: kind, owner_name: name, owner_is_controller: String(controller) }, true),
    ),
    ...PHASES.map((phase) => series("kube_pod_status_phase", { phase }, phase === status.phase)),
    ...READY.map((value) => series("kube_pod_status_ready", { condition: value }, value === ready)),
    ...REASONS.map((each) => series("kube_pod_status_reason", { reason: each }, each === reason)),
    ...ofContainers("container", status.containerStatuses),
    ...ofContainers("init_container", status.initContainerStatuses),
  ];
}
