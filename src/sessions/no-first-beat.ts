import type { Environment } from "../api/environment.ts";

const MEND = "a program that does not beat by itself needs lease: Operator";

/**
 * What is said of a session that was fenced before its container beat: at the end of firstBeatTimeoutSeconds, or of what
 * ends sessions sooner.
 */
export function noFirstBeatMessage({ metadata, spec }: Environment): string {
  const { firstBeatTimeoutSeconds = 0, maxDurationSeconds = 0 } = spec.sessions ?? {};
  const [seconds, field] =
    maxDurationSeconds < firstBeatTimeoutSeconds
      ? [maxDurationSeconds, "maxDurationSeconds"]
      : [firstBeatTimeoutSeconds, "firstBeatTimeoutSeconds"];
  const draining = metadata.deletionTimestamp ? ", or before the Environment's deletionGraceSeconds were over" : "";
  return `the container sent no heartbeat within ${seconds} s of its start (${field})${draining}; ${MEND}`;
}
