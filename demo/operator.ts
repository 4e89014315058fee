import { copyFile, mkdtemp, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { freePort, PortTakenError, retryOnTakenPort, saysPortTaken } from "../testbed/cluster/ports.ts";
import type { Exit, SupervisedProcess, Supervisor } from "../testbed/cluster/supervisor.ts";
import { type RequestCounts, sumUp } from "./cluster.ts";
import { DemoError } from "./errors.ts";

const BERTH = fileURLToPath(new URL("../bin/berth.mjs", import.meta.url));
const NAME = "berth";

/** Two cores need this long while a whole cluster starts; longer means an error. */
const START_TIMEOUT_MS = 60_000;
const POLL_MS = 50;
/** A drain has its own limits, which are shorter. */
const STOP_TIMEOUT_MS = 20_000;
/** The number of log lines that a failure shows. */
const SHOWN_LINES = 20;

export interface OperatorOptions {
  readonly kubeconfig: string;
  /** The simulator's origin. It must be listed, because it uses plain http. */
  readonly workApi: string;
  readonly flags: readonly string[];
  readonly env: NodeJS.ProcessEnv;
}

/** Listening addresses on loopback. */
interface Addresses {
  readonly metrics: string;
  readonly console: string;
}

/** Requests that the operator counted. */
export interface OperatorCounts {
  readonly kube: RequestCounts;
  readonly work: RequestCounts;
}

/** `berth run` as its own process, as users run it. It ends with this process, however that ends. */
export class OperatorProcess {
  /** The URL of its metrics. */
  readonly metricsUrl: string;
  /** The URL of its console. */
  readonly consoleUrl: string;
  /** The path of its log, which is deleted when the demo ends; see `keepLog`. */
  readonly log: string;
  readonly #process: SupervisedProcess;
  #stopping = false;

  private constructor(process: SupervisedProcess, addresses: Addresses, log: string) {
    this.#process = process;
    this.metricsUrl = `http://${addresses.metrics}/metrics`;
    this.consoleUrl = `http://${addresses.console}`;
    this.log = log;
  }

  /**
   * Resolves when the operator answers.
   * @throws {Error} the operator ended instead; the message has the end of its log
   */
  static start(supervisor: Supervisor, options: OperatorOptions): Promise<OperatorProcess> {
    const log = join(supervisor.dir, "operator.log");
    return retryOnTakenPort(async (port) => {
      const addresses = { metrics: `127.0.0.1:${port}`, console: `127.0.0.1:${await freePort()}` };
      const process_ = await supervisor.spawn({
        name: NAME,
        command: process.execPath,
        args: [BERTH, "run", ...flags(options, addresses)],
        env: operatorEnv(options.env),
        cwd: supervisor.dir,
        logFile: log,
      });
      const operator = new OperatorProcess(process_, addresses, log);
      await operator.#untilListening();
      return operator;
    });
  }

  /** Resolves with the reason if the operator ends unexpectedly. */
  get failed(): Promise<Error> {
    return this.#process.exited.then(async (exit) => {
      // `stop` awaits this end.
      if (this.#stopping) return await new Promise<never>(() => {});
      return new DemoError(`the operator ended unexpectedly (${exitText(exit)})${await this.#lastLines()}`);
    });
  }

  /** Sends SIGTERM, then SIGKILL if it doesn't end. Returns what went wrong; undefined: nothing. */
  async stop(): Promise<string | undefined> {
    this.#stopping = true;
    this.#process.kill("SIGTERM");
    const timeout = new AbortController();
    const late = delay(STOP_TIMEOUT_MS, undefined, { signal: timeout.signal }).catch(() => undefined);
    const exit = await Promise.race([this.#process.exited, late]);
    timeout.abort();
    if (!exit) {
      this.#process.kill("SIGKILL");
      await this.#process.exited;
      return `the operator did not end within ${STOP_TIMEOUT_MS / 1_000} s of SIGTERM`;
    }
    return exit.code === 0 ? undefined : `the operator ended with ${exitText(exit)} after SIGTERM`;
  }

  /** Requests by kind, from the operator's metrics; undefined if it does not answer. */
  async counts(): Promise<OperatorCounts | undefined> {
    try {
      return countsOf(await (await fetch(this.metricsUrl)).text());
    } catch {
      return undefined;
    }
  }

  async #untilListening(): Promise<void> {
    const deadline = performance.now() + START_TIMEOUT_MS;
    for (;;) {
      if (await answers(this.metricsUrl)) return;
      if (this.#process.exit) {
        const lines = await this.#lastLines();
        if (saysPortTaken(lines)) throw new PortTakenError(lines);
        throw new DemoError(`the operator did not start (${exitText(this.#process.exit)})${lines}`);
      }
      if (performance.now() > deadline)
        throw new DemoError(
          `the operator did not answer within ${START_TIMEOUT_MS / 1_000} s${await this.#lastLines()}`,
        );
      await delay(POLL_MS);
    }
  }

  async #lastLines(): Promise<string> {
    const text = await readFile(this.log, "utf8").catch(() => "");
    const lines = text.trim().split("\n").slice(-SHOWN_LINES);
    return text.trim() === "" ? "" : `; the end of its log:\n${lines.join("\n")}`;
  }
}

/** Copies a log to a new folder that is kept. */
export async function keepLog(log: string): Promise<string | undefined> {
  try {
    const kept = join(await mkdtemp(join(tmpdir(), "berth-demo-log-")), "operator.log");
    await copyFile(log, kept);
    return kept;
  } catch {
    return undefined;
  }
}

function flags({ kubeconfig, workApi, flags }: OperatorOptions, addresses: Addresses): string[] {
  return [
    ...["--kubeconfig", kubeconfig],
    ...["--allowed-api-origins", workApi],
    ...["--metrics-bind-address", addresses.metrics, "--health-probe-bind-address", "0"],
    ...["--console-bind-address", addresses.console],
    ...flags,
  ];
}

/** The user's environment, with the proxy settings, but without Berth's settings: the demo sets its own. */
export function operatorEnv(env: NodeJS.ProcessEnv): Record<string, string | undefined> {
  const kept = Object.entries(env).filter(([name]) => !name.startsWith("BERTH_"));
  const direct = [env["NO_PROXY"] ?? env["no_proxy"], "127.0.0.1", "localhost"].filter(Boolean).join(",");
  return { ...Object.fromEntries(kept), NO_PROXY: direct, no_proxy: direct, NODE_NO_WARNINGS: "1" };
}

const METRIC = /^(berth_kube_api_requests_total|berth_work_api_requests_total)\{([^}]*)\} (\d+)/gm;

/** Reads the request counters from Prometheus' text format. */
export function countsOf(text: string): OperatorCounts {
  const kube: [string, number][] = [];
  const work: [string, number][] = [];
  for (const [, metric, labels = "", value] of text.matchAll(METRIC)) {
    const label = (name: string) => new RegExp(`(?:^|,)${name}="([^"]*)"`).exec(labels)?.[1] ?? "";
    if (Number(value) === 0) continue;
    if (metric === "berth_work_api_requests_total") work.push([label("call"), Number(value)]);
    else kube.push([`${label("verb")} ${label("resource")}`, Number(value)]);
  }
  return { kube: sumUp(kube), work: sumUp(work) };
}

async function answers(url: string): Promise<boolean> {
  try {
    return (await fetch(url)).ok;
  } catch {
    return false;
  }
}

function exitText({ code, signal }: Exit): string {
  return signal === null ? `exit code ${code}` : signal;
}
