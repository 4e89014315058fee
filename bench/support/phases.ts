import type { ItemRecord } from "../../simulator/item.ts";
import type { AuditEntry } from "../../testbed/cluster/audit.ts";
import { OPERATOR } from "../../testbed/cluster/users.ts";
import { distributionCells } from "../report/distribution.ts";
import type { Cell } from "../scenario.ts";
import type { Touches } from "./touches.ts";

/** The steps of a claim, in order. Each step ends with the answer to its request, as the server recorded it. */
export const PHASES = ["offered", "journaled", "read", "acknowledged", "opened", "touched"] as const;
type Phase = (typeof PHASES)[number];

/** The duration of each step of several claims, in milliseconds since the end of the previous step. */
export class Phases {
  readonly #took: Record<Phase, number[]> = {
    offered: [],
    journaled: [],
    read: [],
    acknowledged: [],
    opened: [],
    touched: [],
  };

  /** Adds claims. Ignores items whose requests are not all in the log. @param entries the audit log */
  add(items: readonly ItemRecord[], touches: Touches, entries: readonly AuditEntry[]): void {
    const firsts = new Map<string, number>();
    for (const { user, verb, resource, name, code, completedAt } of entries) {
      const key = `${verb} ${resource} ${name}`;
      if (user === OPERATOR && code < 300 && !firsts.has(key)) firsts.set(key, completedAt);
    }
    for (const { id, createdAt, offeredAt, acks } of items) {
      const pod = touches.podOf.get(id);
      const times = [
        createdAt,
        offeredAt,
        firsts.get(`create secrets ${pod}`),
        firsts.get(`get pods ${pod}`),
        acks[0]?.at,
        firsts.get(`patch secrets ${pod}`),
        firsts.get(`patch pods ${pod}`),
      ];
      if (!times.every((time) => time !== undefined)) continue;
      for (const [at, phase] of PHASES.entries()) this.#took[phase].push((times[at + 1] ?? 0) - (times[at] ?? 0));
    }
  }

  rows(name: string): Cell[][] {
    return PHASES.map((phase) => [`${name}, ${phase}`, ...distributionCells(this.#took[phase])]);
  }
}
