/** The kubelet's back-off between restarts of a container: 10 s, doubled up to 5 min (pkg/kubelet/kubelet.go). */
const BASE_SECONDS = 10;
const MAX_SECONDS = 300;

/** Returns the seconds between a container's end and its next restart. The first restart comes at once. */
export function restartDelaySeconds(restartsBefore: number): number {
  return restartsBefore === 0 ? 0 : Math.min(MAX_SECONDS, BASE_SECONDS * 2 ** (restartsBefore - 1));
}

/**
 * Returns the seconds before the next pull after failed ones. The values are the same, but the first failure already
 * waits.
 */
export function pullDelaySeconds(failures: number): number {
  return Math.min(MAX_SECONDS, BASE_SECONDS * 2 ** (failures - 1));
}

/** Formats a duration as Go prints it: `10s`, `1m20s`, `5m0s`. */
export function goDuration(seconds: number): string {
  return seconds < 60 ? `${seconds}s` : `${Math.floor(seconds / 60)}m${seconds % 60}s`;
}
