import { type AuditEntry, type AuditLog, type AuditMark, countEntries } from "../../testbed/cluster/audit.ts";
import { OPERATOR } from "../../testbed/cluster/users.ts";
import type { Cell, Table } from "../scenario.ts";
import { purposesOf } from "./purposes.ts";

const READS = new Set(["get", "list"]);
/** Events and leader election Leases are counted separately. */
const APART = new Set(["events", "leases"]);

/** The requests of the operator's own user to the API server during a period, from the audit log. */
export class OwnRequests {
  readonly #entries: readonly AuditEntry[];

  private constructor(entries: readonly AuditEntry[]) {
    this.#entries = entries;
  }

  static async since(audit: AuditLog, since: AuditMark, user = OPERATOR): Promise<OwnRequests> {
    return new OwnRequests(await audit.entries({ since, user }));
  }

  /** Excludes Events, Leases, and watches. Watches are counted when they end, which depends on the clock. */
  get total(): number {
    return this.reads + this.writes;
  }

  get reads(): number {
    return this.#count((each) => isMain(each) && READS.has(each.verb));
  }

  get lists(): number {
    return this.#count((each) => isMain(each) && each.verb === "list");
  }

  get writes(): number {
    return this.#count((each) => isMain(each) && !READS.has(each.verb));
  }

  /** Status updates of Environments. Their pace doesn't depend on the number of sessions. */
  get statuses(): number {
    return this.#count(({ resource, subresource }) => resource === "environments" && subresource === "status");
  }

  get watches(): number {
    return this.#count(({ verb }) => verb === "watch");
  }

  get events(): number {
    return this.#count(({ resource }) => resource === "events");
  }

  get leases(): number {
    return this.#count(({ resource }) => resource === "leases");
  }

  /**
   * Tabulates each kind of request, the most frequent first. @param per the number of served objects, for the last
   * column
   */
  table(title: string, per: number): Table {
    const rows = countEntries(this.#entries).map(({ verb, resource, subresource, code, count }): Cell[] => [
      verb,
      subresource === "" ? resource : `${resource}/${subresource}`,
      String(code),
      count,
      count / per,
    ]);
    return { title, columns: ["verb", "resource", "status", "requests", "per session"], rows };
  }

  /** Tabulates the purposes of the requests, without watches, the most frequent first. */
  purposes(title: string, sessions: number): Table {
    const rows = purposesOf(this.#entries.filter(({ verb }) => verb !== "watch")).map(
      ({ request, what, count }): Cell[] => [request, what, count, count / sessions],
    );
    return { title, columns: ["request", "what for", "requests", "per session"], rows };
  }

  #count(what: (entry: AuditEntry) => boolean): number {
    return this.#entries.filter(what).length;
  }
}

const isMain = ({ resource, verb }: AuditEntry) => !APART.has(resource) && verb !== "watch";
