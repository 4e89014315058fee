import { readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { LeadershipLostError } from "../../../src/kube/errors.ts";
import { createLogger } from "../../../src/observe/logger.ts";
import type { TestCluster } from "../../support/cluster.ts";
import { KubeProxy } from "../../support/kube-proxy.ts";
import type { InProcessOperator, World } from "../../support/world.ts";
import { TroubledClock } from "./clock.ts";

/** The number of log lines to keep. The last ones show what went wrong. */
const LINES_KEPT = 4_000;

/** The log lines of all replicas, in order. */
export class Log {
  readonly lines: string[] = [];

  write(line: string): void {
    this.lines.push(line.trimEnd());
    if (this.lines.length > 2 * LINES_KEPT) this.lines.splice(0, LINES_KEPT);
  }
}

/**
 * One operator with its own clock and its own connection to the API server. It runs in this process. `kill` has the
 * effect of SIGKILL: its connections are cut, its timers never run, and none of its requests arrives.
 */
export class Replica {
  readonly clock = new TroubledClock();
  readonly proxy: KubeProxy;
  readonly name: string;
  #operator: InProcessOperator | undefined;
  #killed = false;

  private constructor(name: string, proxy: KubeProxy) {
    this.name = name;
    this.proxy = proxy;
  }

  static async start(
    world: World,
    cluster: TestCluster,
    parts: { name: string; leaderElect: boolean; log: Log; onStrike: (what: string) => void },
  ): Promise<Replica> {
    const proxy = await KubeProxy.start(cluster, parts.onStrike);
    const replica = new Replica(parts.name, proxy);
    const kubeconfig = join(dirname(cluster.operatorKubeconfig), `${world.namespace}-${parts.name}.kubeconfig`);
    const text = await readFile(cluster.operatorKubeconfig, "utf8");
    await writeFile(kubeconfig, text.replace(cluster.server, proxy.url), { mode: 0o600 });
    const write = (line: string) => parts.log.write(`${parts.name} ${line}`);
    replica.#operator = world.startOperator({
      leaderElect: parts.leaderElect,
      flags: ["--kubeconfig", kubeconfig],
      seams: { clock: replica.clock, logger: createLogger("debug", { write }), guard: () => replica.#check() },
    });
    return replica;
  }

  get isKilled(): boolean {
    return this.#killed;
  }

  get metrics() {
    return this.#operator?.metrics;
  }

  kill(): void {
    this.#killed = true;
    this.clock.stand("stopped");
    this.proxy.refuse();
  }

  /** Like SIGTERM; resolves when everything has ended. For a killed replica, it frees what is left in this process. */
  async stop(): Promise<void> {
    this.clock.goOn();
    if (!this.#killed) this.proxy.clear();
    await this.#operator?.stop();
    await this.proxy[Symbol.asyncDispose]();
  }

  #check(): void {
    if (this.#killed) throw new LeadershipLostError(`${this.name} was killed`);
  }
}
