import { MAX_API_ADDRESSES } from "../api/status.ts";
import type { EnvironmentState } from "./environment-state.ts";

/** What the spec names, and what the status has. */
type Addresses = Pick<EnvironmentState, "environment" | "status">;

/** Whether a claim of the spec's address would find its way back there after the spec names another. */
export function isRecorded({ environment, status }: Addresses): boolean {
  return environment.spec.workers !== undefined || status.apiAddresses.includes(environment.spec.api.baseUrl);
}

/** That of the spec, and those before it that claims name, the latest first. `claimedFrom` null: any may be named. */
export function addressesToRecord(
  { environment, status }: Addresses,
  claimedFrom: ReadonlySet<string> | null,
): string[] {
  const { baseUrl } = environment.spec.api;
  const earlier = status.apiAddresses.filter(
    (address) => address !== baseUrl && (claimedFrom === null || claimedFrom.has(address)),
  );
  return [baseUrl, ...earlier].slice(0, MAX_API_ADDRESSES);
}
