import { METRICS_PORT } from "./operators.ts";
import { parseMetrics, sumOf } from "./prometheus-text.ts";
import { OPERATOR_NAMESPACE } from "./provided.ts";
import type { E2eWorld } from "./world.ts";

const MIB = 1024 ** 2;

/** The resources that one operator uses and may use. */
export interface Footprint {
  readonly pod: string;
  /** Resident memory of the process, from its metrics. */
  readonly memoryMiB: number;
  /** Since its start. */
  readonly cpuSeconds: number;
  readonly requestMiB: number;
  readonly limitMiB: number;
  readonly restarts: number;
}

/** The footprint of each ready operator of the Deployment, by name. */
export async function footprints(world: E2eWorld): Promise<Footprint[]> {
  const pods = await world.operators.readyPods();
  const found = pods.map(async ({ metadata: { name: pod = "" }, spec, status }): Promise<Footprint> => {
    const where = { namespace: OPERATOR_NAMESPACE, pod, port: METRICS_PORT };
    const { text } = await world.proxy.toPod(where, { method: "GET", path: "/metrics" });
    const samples = parseMetrics(text);
    const { requests, limits } = (spec.containers[0]?.resources ?? {}) as Resources;
    return {
      pod,
      memoryMiB: required(sumOf(samples, "process_resident_memory_bytes")) / MIB,
      cpuSeconds: required(sumOf(samples, "process_cpu_seconds_total")),
      requestMiB: mebibytes(requests?.memory),
      limitMiB: mebibytes(limits?.memory),
      restarts: status?.containerStatuses?.[0]?.restartCount ?? 0,
    };
  });
  return (await Promise.all(found)).sort((one, other) => one.pod.localeCompare(other.pod));
}

interface Resources {
  readonly requests?: { readonly memory?: string };
  readonly limits?: { readonly memory?: string };
}

/** The quantities of the chart are in Mi. */
function mebibytes(quantity: string | undefined): number {
  const [, number] = /^(\d+)Mi$/.exec(quantity ?? "") ?? [];
  if (number === undefined) throw new Error(`not in Mi: ${quantity}`);
  return Number(number);
}

function required(sample: number | undefined): number {
  if (sample === undefined) throw new Error("the operator's metrics have no process sample");
  return sample;
}
