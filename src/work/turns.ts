/** A member that takes turns, and its tenant. */
export interface Turn {
  /** A namespace; may be empty. */
  readonly tenant: string;
  readonly member: string;
}

/**
 * Waiters, in the order of their turns: round robin among tenants, and among the members of each. So a member with many
 * calls does not delay others, and a tenant with ten thousand members gets no more turns than one with a single member.
 *
 * Invariant: it holds only tenants and members with waiters, in the order of their turns.
 */
export class Turns<T extends Turn> {
  readonly #tenants = new Map<string, Map<string, T[]>>();

  get isEmpty(): boolean {
    return this.#tenants.size === 0;
  }

  /** Whether this member has waiters. */
  waits({ tenant, member }: Turn): boolean {
    return this.#tenants.get(tenant)?.has(member) ?? false;
  }

  add(waiter: T): void {
    const { tenant, member } = waiter;
    const members = this.#tenants.get(tenant) ?? new Map<string, T[]>();
    this.#tenants.set(tenant, members);
    const waiting = members.get(member);
    if (waiting) waiting.push(waiter);
    else members.set(member, [waiter]);
  }

  /** Removes a waiter that gave up. */
  remove(waiter: T): void {
    const { tenant, member } = waiter;
    const members = this.#tenants.get(tenant);
    const waiting = members?.get(member);
    const at = waiting?.indexOf(waiter) ?? -1;
    if (!members || !waiting || at < 0) return;
    waiting.splice(at, 1);
    if (waiting.length === 0) members.delete(member);
    if (members.size === 0) this.#tenants.delete(tenant);
  }

  /** Removes and returns all waiters of this member. */
  takeAll({ tenant, member }: Turn): readonly T[] {
    const members = this.#tenants.get(tenant);
    const waiting = members?.get(member) ?? [];
    members?.delete(member);
    if (members?.size === 0) this.#tenants.delete(tenant);
    return waiting;
  }

  /** Removes and returns the next waiter. Its tenant and its member move to the end of their rounds. */
  next(): T | undefined {
    // A Map iterates in insertion order, so a reinserted key comes last.
    for (const [tenant, members] of this.#tenants) {
      this.#tenants.delete(tenant);
      for (const [member, waiting] of members) {
        const waiter = waiting.shift();
        members.delete(member);
        if (waiting.length > 0) members.set(member, waiting);
        if (members.size > 0) this.#tenants.set(tenant, members);
        return waiter;
      }
    }
    return undefined;
  }
}
