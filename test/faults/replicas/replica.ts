import type { LogLine, OperatorProcess } from "../../support/operator-process.ts";
import type { Passing, RequestProxy } from "./request-proxy.ts";

/** What sees the requests of all replicas. */
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

  /** In the Leases, in its user agent and in its worker id. */
  get identity(): string {
    return String(this.process.log.find(({ msg }) => msg === "berth starts")?.["identity"]);
  }

  get log(): readonly LogLine[] {
    return this.process.log;
  }

  /** Whether it said this, behind so many lines. */
  said(msg: string, behind = 0): boolean {
    return this.log.slice(behind).some((line) => line.msg === msg);
  }

  /** Its requests that change something, Leases apart: what only a holder may send. */
  get writes(): Passing[] {
    const { kube, work } = this.#seen;
    const acts = [...kube.of(this.identity), ...work.of(this.identity)].filter(({ isWrite }) => isWrite);
    return acts.filter(({ call }) => !call.endsWith(" leases"));
  }

  /** Its looks at all Leases. */
  get looks(): number {
    return this.#seen.kube.of(this.identity).filter(({ call }) => call === "list leases").length;
  }

  is(passing: Passing): boolean {
    return passing.sender.includes(this.identity);
  }
}

/** What became of offers and acknowledgements, as the process's metrics say; nothing where it does not answer. */
export async function claimsCounted({ addresses }: OperatorProcess): Promise<string[]> {
  try {
    const reply = await fetch(`http://${addresses.metrics}/metrics`, { signal: AbortSignal.timeout(METRICS_MS) });
    return (await reply.text()).match(/^berth_(?:claims|acks|journals)_total\{.*[1-9]$/gm) ?? [];
  } catch {
    return [];
  }
}

/** A process that is stopped does not answer. */
const METRICS_MS = 2_000;
