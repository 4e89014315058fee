import type { PodUsage } from "./pod-cgroups.ts";
import type { Program, Usage } from "./processes.ts";

/** What waiting-main.ts measures. */
export interface WaitingOptions {
  /** Waiting Pods of each kind. */
  readonly pods: number;
  /** After all Pods wait, before they are watched. The kubelet still writes Events about their creation. */
  readonly settleSeconds: number;
  /** How long they are watched. */
  readonly seconds: number;
}

/** The costs of one kind of waiting Pods, and of everything else on the node. */
export interface Waiting {
  readonly title: string;
  readonly load: number;
  readonly pods: number;
  /** Of each Pod, at the end. */
  readonly podUsages: readonly PodUsage[];
  /** Of all Pods together. */
  readonly podCores: number;
  /** Over the time, by program. */
  readonly cores: Readonly<Record<Program | "operator", number>>;
  /** At the end of the time. */
  readonly rss: Readonly<Record<Program | "operator", Usage>>;
  /** Writes of Events about these Pods. */
  readonly events: number;
  /** Requests about these Pods, by user. */
  readonly requests: Readonly<Record<string, number>>;
}

export interface WaitingResult {
  readonly seconds: number;
  readonly kinds: readonly Waiting[];
  /** Kinds that the operator refused. */
  readonly refused: readonly string[];
}
