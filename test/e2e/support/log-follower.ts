import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { realClock, sleep } from "../../../src/core/clock.ts";
import { KubeClient } from "../../../src/kube/client.ts";
import { loadKubeConfig } from "../../../src/kube/config.ts";
import { PODS, type Pod } from "../../../src/kube/resource.ts";
import { silentLogger } from "../../../src/observe/logger.ts";
import { createMetrics } from "../../../src/observe/metrics.ts";
import { Informer } from "../../../src/watch/informer.ts";
import { OPERATOR_NAMESPACE, OPERATOR_SELECTOR } from "./provided.ts";

/** A folder in the run's folder. */
export const OPERATOR_LOGS = "operator-logs";
/** Between two attempts to follow a log: the container may not have started, or the API server may be unavailable. */
const PAUSE_MS = 500;

/**
 * Follows the logs of the operators' Pods into one file per Pod. The logs are deleted with their Pods, of which tests
 * end many. Each line starts with the kubelet's timestamp.
 */
export class LogFollower implements AsyncDisposable {
  readonly #kubectl: string;
  readonly #kubeconfig: string;
  readonly #dir: string;
  readonly #client: KubeClient;
  readonly #pods: Informer<Pod>;
  readonly #ending = new AbortController();
  readonly #following = new Map<string, Promise<void>>();

  constructor(options: { kubectl: string; kubeconfig: string; dir: string }) {
    this.#kubectl = options.kubectl;
    this.#kubeconfig = options.kubeconfig;
    this.#dir = join(options.dir, OPERATOR_LOGS);
    this.#client = new KubeClient({ access: loadKubeConfig(options.kubeconfig), clock: realClock });
    this.#pods = new Informer({
      client: this.#client,
      resource: PODS,
      namespace: OPERATOR_NAMESPACE,
      labelSelector: OPERATOR_SELECTOR,
      clock: realClock,
      logger: silentLogger,
      metrics: createMetrics(),
    });
  }

  async start(): Promise<void> {
    await mkdir(this.#dir, { recursive: true });
    this.#pods.subscribe(({ object }) => {
      const name = object.metadata.name ?? "";
      if (!this.#following.has(name)) this.#following.set(name, this.#follow(name));
    });
    void this.#pods.run(this.#ending.signal);
  }

  async #follow(name: string): Promise<void> {
    const file = createWriteStream(join(this.#dir, `${name}.log`));
    let since = "";
    while (!this.#ending.signal.aborted) {
      const args = ["logs", "--follow", "--timestamps", "--namespace", OPERATOR_NAMESPACE, name];
      if (since !== "") args.push("--since-time", since);
      const env = { ...process.env, KUBECONFIG: this.#kubeconfig };
      const child = spawn(this.#kubectl, args, { env, stdio: ["ignore", "pipe", "ignore"] });
      const stop = () => void child.kill();
      this.#ending.signal.addEventListener("abort", stop, { once: true });
      const ended = endOf(child);
      const seen = since;
      for await (const line of createInterface({ input: child.stdout })) {
        const [at = ""] = line.split(" ", 1);
        // `--since-time` has a resolution of one second.
        if (at <= seen) continue;
        since = at;
        file.write(`${line}\n`);
      }
      await ended;
      this.#ending.signal.removeEventListener("abort", stop);
      if (this.#pods.hasSynced && !this.#pods.get(OPERATOR_NAMESPACE, name)) break;
      await sleep(realClock, PAUSE_MS, this.#ending.signal);
    }
    file.end();
    await once(file, "finish");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending.abort();
    await Promise.all(this.#following.values());
    await this.#client.close();
  }
}

async function endOf(child: ChildProcess): Promise<void> {
  await Promise.race([once(child, "exit"), once(child, "error")]);
}
