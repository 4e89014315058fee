import type { ConfigMap, Container, Pod, PodStatus, Secret } from "../../../src/kube/objects.ts";
import type { Complaint } from "../../../testbed/node/event-writer.ts";
import { chosenFate, type Fate, type FateInput } from "../../../testbed/node/fate.ts";
import { type Latencies, Latency, seededRandom } from "../../../testbed/node/latency.ts";
import type { PodVerdict } from "../../../testbed/node/pod-conditions.ts";
import { type PodHost, PodMachine } from "../../../testbed/node/pod-machine.ts";
import type { ContainerRuntime } from "../../../testbed/node/runtime.ts";
import { ScriptedRuntime } from "../../../testbed/node/scripted-runtime.ts";
import type { VolumeFiles } from "../../../testbed/node/volume-files.ts";
import { VirtualClock } from "../../support/virtual-clock.ts";

/** A Pod on a node that is only a clock. It records everything that the Pod's machine reports. */
export class PodBench implements PodHost {
  readonly clock = new VirtualClock();
  readonly secrets = new Map<string, Secret>();
  readonly configMaps = new Map<string, ConfigMap>();
  readonly reports: PodStatus[] = [];
  readonly events: string[] = [];
  readonly complaints: string[] = [];
  /** The number of looks at Secrets: one per attempt to start a container that refers to any. */
  looks = 0;
  runtime: ContainerRuntime = new ScriptedRuntime(this.clock);
  readonly machine: PodMachine;
  readonly refusalOf: () => PodVerdict | undefined;
  readonly #fates: Record<string, FateInput>;
  readonly #spreads: Partial<Latencies>;

  /** @param refusal why the node rejects the Pod */
  constructor(pod: Pod, fates: Record<string, FateInput> = {}, spreads: Partial<Latencies> = {}, refusal?: PodVerdict) {
    this.refusalOf = () => refusal;
    this.#fates = fates;
    this.#spreads = spreads;
    this.machine = new PodMachine(pod, this);
    this.machine.begin();
  }

  get last(): PodStatus {
    const status = this.reports.at(-1);
    if (!status) throw new Error("nothing was reported yet");
    return status;
  }

  /**
   * Returns the state of a container in the last report as a word: `running`, a waiting reason, or the reason of its
   * end.
   */
  stateOf(name: string): string {
    const { initContainerStatuses = [], containerStatuses = [], ephemeralContainerStatuses = [] } = this.last;
    const all = [...initContainerStatuses, ...containerStatuses, ...ephemeralContainerStatuses];
    const state = all.find((status) => status.name === name)?.state;
    return state?.running ? "running" : (state?.waiting?.reason ?? state?.terminated?.reason ?? "unknown");
  }

  async until(condition: () => boolean, limitMs = 60_000): Promise<void> {
    await this.clock.advanceUntil(() => this.reports.length > 0 && condition(), limitMs, 10);
  }

  untilState(name: string, state: string): Promise<void> {
    return this.until(() => this.stateOf(name) === state);
  }

  untilPhase(phase: string): Promise<void> {
    return this.until(() => this.last.phase === phase);
  }

  /** Updates the Pod as the API server does on DELETE: a time, a grace, and another generation. */
  deletePod(graceSeconds = 30): void {
    const { metadata } = this.machine.pod;
    this.machine.update({
      ...this.machine.pod,
      metadata: {
        ...metadata,
        generation: (metadata.generation ?? 1) + 1,
        deletionTimestamp: new Date(this.clock.now() + graceSeconds * 1_000).toISOString(),
        deletionGracePeriodSeconds: graceSeconds,
      },
    });
  }

  /** Updates the Pod as the API server does when it gains an ephemeral container. */
  addEphemeral(container: Container): void {
    const { pod } = this.machine;
    const { metadata, spec } = pod;
    const ephemeralContainers = [container, ...(spec.ephemeralContainers ?? [])];
    this.machine.update({
      ...pod,
      metadata: { ...metadata, generation: (metadata.generation ?? 1) + 1 },
      spec: { ...spec, ephemeralContainers },
    });
  }

  annotate(annotations: Record<string, string>): void {
    const { metadata } = this.machine.pod;
    this.machine.update({
      ...this.machine.pod,
      metadata: { ...metadata, annotations: { ...metadata.annotations, ...annotations } },
    });
  }

  setSecret(name: string, data: Record<string, string>): void {
    const encoded = Object.entries(data).map(([key, value]) => [key, Buffer.from(value).toString("base64")]);
    this.secrets.set(name, { metadata: { name }, data: Object.fromEntries(encoded) });
  }

  allocateIP = () => "10.244.0.7";
  latencyOf = () => new Latency(seededRandom(1), 1, this.#spreads);
  fateOf = (pod: Pod, container: Container): Fate | undefined =>
    chosenFate(pod, container, () => this.#fates[container.name]);
  runtimeOf = () => this.runtime;
  read = async (_pod: Pod, { secrets }: { secrets: readonly string[] }) => {
    if (secrets.length > 0) this.looks += 1;
    return {
      secret: (name: string) => this.secrets.get(name),
      configMap: (name: string) => this.configMaps.get(name),
    };
  };
  /** The files of the Pod's volumes as last written, by volume and path. */
  files: ReadonlyMap<string, VolumeFiles> = new Map();
  writeFiles = async (_pod: Pod, volumes: ReadonlyMap<string, VolumeFiles>) => {
    this.files = volumes;
  };
  report = (_pod: Pod, status: PodStatus) => void this.reports.push(status);
  complain = (_pod: Pod, { reason, message }: Complaint) => void this.complaints.push(`${reason}: ${message}`);
  finalize = () => void this.events.push("finalized");
  forget = () => void this.events.push("forgotten");
  /** Errors inside the node. Without this list, they're thrown. */
  faults: string[] | undefined;
  fault = (_pod: Pod, error: unknown) => {
    if (!this.faults) throw error;
    this.faults.push(String(error));
  };
}

export interface PodShape {
  readonly containers?: Partial<Container>[];
  readonly initContainers?: Partial<Container>[];
  readonly spec?: Partial<Pod["spec"]>;
  readonly annotations?: Record<string, string>;
}

/** Returns a Pod as the API server hands it to a kubelet: bound, defaulted, and Pending. */
export function boundPod({ containers = [{}], initContainers, spec, annotations }: PodShape = {}): Pod {
  const container = (shape: Partial<Container>): Container => ({ name: "c", image: "worker:1", ...shape });
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: {
      name: "work-1",
      namespace: "tb",
      uid: "00000000-0000-4000-8000-000000000001",
      generation: 1,
      ...(annotations === undefined ? {} : { annotations }),
    },
    spec: {
      nodeName: "node-1",
      restartPolicy: "Never",
      terminationGracePeriodSeconds: 30,
      containers: containers.map(container),
      ...(initContainers === undefined ? {} : { initContainers: initContainers.map(container) }),
      ...spec,
    },
    status: { phase: "Pending" },
  };
}
