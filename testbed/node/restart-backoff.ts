/** kubelet's back-off between restarts of a container: 10 s, doubled up to 5 min (pkg/kubelet/kubelet.go). */
const BASE_SECONDS = 10;
const MAX_SECONDS = 300;

/** Seconds that must pass between a container's end and its next restart. The first restart comes at once. */
export function restartDelaySeconds(restartsBefore: number): number {
  return restartsBefore === 0 ? 0 : Math.min(MAX_SECONDS, BASE_SECONDS * 2 ** (restartsBefore - 1));
}

/** Seconds before the next pull after so many failed ones: the same figures, from the first on. */
export function pullDelaySeconds(failures: number): number {
  return Math.min(MAX_SECONDS, BASE_SECONDS * 2 ** (failures - 1));
}

/** A duration as Go prints it: `10s`, `1m20s`, `5m0s`. */
export function goDuration(seconds: number): string {
  return seconds < 60 ? `${seconds}s` : `${Math.floor(seconds / 60)}m${seconds % 60}s`;
}
