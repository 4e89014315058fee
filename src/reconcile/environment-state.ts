import type { Environment } from "../api/environment.ts";
import type { Points } from "../core/points.ts";
import type { PodCache } from "../sessions/context.ts";
import type { HintedQueue } from "../sessions/hints.ts";
import type { SessionPoint } from "../sessions/points.ts";
import type { WorkApiClient } from "../work/client.ts";
import type { KeyReading } from "./environment-key.ts";
import type { CheckedTemplate, EnvironmentRuntime } from "./environment-runtime.ts";
import type { EnvironmentSource } from "./onlooker.ts";
import type { ReconcilePoint } from "./points.ts";
import type { PolicyKeeper } from "./policy-keeper.ts";
import type { StatusWriter } from "./status-writer.ts";
import type { TemplateVerdict } from "./template-check.ts";

/** What the reconciler keeps of one Environment between two reconciles: caches of what it can read again, and its loops. */
export interface EnvironmentState {
  readonly uid: string;
  readonly pods: PodCache;
  readonly points: Points<ReconcilePoint | SessionPoint>;
  readonly hinted: HintedQueue | undefined;
  environment: Environment;
  template: CheckedTemplate;
  work: WorkApiClient;
  /** The `spec.api` that `work` was made for. */
  workFor: string;
  /** By address: where items were claimed that the spec does not name any more. */
  readonly workElsewhere: Map<string, WorkApiClient>;
  readonly runtime: EnvironmentRuntime;
  readonly status: StatusWriter;
  readonly policy: PolicyKeeper;
  /** For whoever looks on. */
  readonly source: EnvironmentSource;
  key: KeyReading | null;
  /** The last reading failed and the key in use may still be right: one failure is no news. */
  keyInDoubt: boolean;
  /** Monotonic time of the last reading of the key. */
  keyReadMs: number;
  /** The key that is sent; empty while there is none. */
  keyInUse: string;
  templateVerdict:
    | (TemplateVerdict & { readonly hash: string; readonly checkedMs: number; readonly attempts: number })
    | null;
}
