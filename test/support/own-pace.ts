/**
 * For `lease: Operator` where one process takes over another's leases: nearly the leases' own times. A value must stand
 * still for 31 s. That is longer than any holder's interval on the simulator's clock (30 s), which is not sped up: an
 * operator with faster timers would take a lease from a holder that, as far as the simulator knows, lives. The leases
 * themselves (112 s) outlive 20 s without a holder of the shard, those 31 s, and the time since the last beat.
 */
export const OWN_PACE = { timeScale: 1.6 } as const;
