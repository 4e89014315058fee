import type { Clock } from "../core/clock.ts";
import type { Lease } from "./objects.ts";

const SECOND_MS = 1_000;

/**
 * Since when each Lease was seen unchanged, on our own monotonic clock: no two clocks are ever compared, and the times
 * written in a Lease are not believed. Shared by all who read Leases in a process; keyed by name, of one namespace.
 */
export class LeaseAges {
  readonly #clock: Clock;
  readonly #seen = new Map<string, { readonly version: string; readonly at: number }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The Lease as it was just read or written. */
  note(lease: Lease): void {
    const { name = "", uid, resourceVersion } = lease.metadata;
    const version = `${uid}/${resourceVersion}`;
    if (this.#seen.get(name)?.version !== version) this.#seen.set(name, { version, at: this.#clock.monotonic() });
  }

  /** Forgets all but these. */
  keep(names: ReadonlySet<string>): void {
    for (const name of this.#seen.keys()) if (!names.has(name)) this.#seen.delete(name);
  }

  /** Milliseconds since this state of the Lease was first seen; 0 for one that was never noted. */
  ageMs({ metadata: { name = "", uid, resourceVersion } }: Lease): number {
    const seen = this.#seen.get(name);
    return seen?.version === `${uid}/${resourceVersion}` ? this.#clock.monotonic() - seen.at : 0;
  }

  /** Somebody holds it, and has renewed it within its own duration as far as was seen. */
  isHeld(lease: Lease, defaultDurationMs: number): boolean {
    const { holderIdentity = "", leaseDurationSeconds } = lease.spec ?? {};
    if (holderIdentity === "") return false;
    const durationMs = leaseDurationSeconds === undefined ? defaultDurationMs : leaseDurationSeconds * SECOND_MS;
    return this.ageMs(lease) < durationMs;
  }
}
