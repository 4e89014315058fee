/**
 * The time scale for `lease: Operator` tests in which one process adopts another's leases: nearly the real times. A
 * value must stay unchanged for 31 s, longer than any holder's interval on the simulator's clock (30 s), which is not
 * sped up. With faster timers, an operator would adopt the lease of a holder that the simulator considers alive. The
 * leases (112 s) outlive 20 s without a holder of the shard, those 31 s, and the time since the last heartbeat.
 */
export const OWN_PACE = { timeScale: 1.6 } as const;
