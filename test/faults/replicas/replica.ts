import type { LogLine, OperatorProcess } from "../../support/operator-process.ts";
import type { Passing, RequestProxy } from "./request-proxy.ts";

/** The proxies that all replicas' requests pass. */
interface Proxies {
  readonly kube: RequestProxy;
  readonly work: RequestProxy;
}

/** One operator process of several. */
export class Replica {
  readonly process: OperatorProcess;
  readonly #seen: Proxies;

  constructor(seen: Proxies, process: OperatorProcess) {
    this.#seen = seen;
    this.process = process;
  }

  /** The replica's name in the Leases, in its user agent and in its worker id. */
  get identity(): string {
    return String(this.process.log.find(({ msg }) => msg === "berth starts")?.["identity"]);
  }

  get log(): readonly LogLine[] {
    return this.process.log;
  }

  /** Whether it logged this message after the first `behind` lines. */
  said(msg: string, behind = 0): boolean {
    return this.log.slice(behind).some((line) => line.msg === msg);
  }

  /** Its requests that change something other than Leases; only a holder may send them. */
  get writes(): Passing[] {
    const { kube, work } = this.#seen;
    const acts = [...kube.of(this.identity), ...work.of(this.identity)].filter(({ isWrite }) => isWrite);
    return acts.filter(({ call }) => !call.endsWith(" leases"));
  }

  /** The number of times it listed the Leases. */
  get looks(): number {
    return this.#seen.kube.of(this.identity).filter(({ call }) => call === "list leases").length;
  }

  is(passing: Passing): boolean {
    return passing.sender.includes(this.identity);
  }
}

/** The metrics of the process about offers and acknowledgements; empty if it does not answer. */
export async function claimsCounted({ addresses }: OperatorProcess): Promise<string[]> {
  try {
    const reply = await fetch(`http://${addresses.metrics}/metrics`, { signal: AbortSignal.timeout(METRICS_MS) });
    return (await reply.text()).match(/^berth_(?:claims|acks|journals)_total\{.*[1-9]$/gm) ?? [];
  } catch {
    return [];
  }
}

/** A stopped process does not answer. */
const METRICS_MS = 2_000;
