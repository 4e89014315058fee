/** Whose turn it is: a member, and the tenant that it belongs to. */
export interface Turn {
  /** A namespace; empty where there is none. */
  readonly tenant: string;
  readonly member: string;
}

/**
 * Who waits, in the order of turns. Round robin among tenants, and among the members of each: a member that asks for much
 * takes nothing from others, and a tenant with ten thousand members no more than one with a single member.
 *
 * Invariants: only tenants and members with somebody who waits are held, each in the order of its turns.
 */
export class Turns<T extends Turn> {
  readonly #tenants = new Map<string, Map<string, T[]>>();

  get isEmpty(): boolean {
    return this.#tenants.size === 0;
  }

  /** Whether somebody of this member waits. */
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

  /** Takes out whoever waits no longer. */
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

  /** Takes out all of this member. */
  takeAll({ tenant, member }: Turn): readonly T[] {
    const members = this.#tenants.get(tenant);
    const waiting = members?.get(member) ?? [];
    members?.delete(member);
    if (members?.size === 0) this.#tenants.delete(tenant);
    return waiting;
  }

  /** How many members of this tenant wait. */
  membersOf(tenant: string): number {
    return this.#tenants.get(tenant)?.size ?? 0;
  }

  /** Takes out the next of a tenant that may go; its tenant and its member go to the end of their rounds. */
  next(mayGo: (tenant: string) => boolean = () => true): T | undefined {
    // A Map iterates in the order of insertion: what is put back is the last.
    for (const [tenant, members] of this.#tenants) {
      if (!mayGo(tenant)) continue;
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
