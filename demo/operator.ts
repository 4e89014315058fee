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

/** Two cores that start a whole cluster are slow; more is a fault. */
const START_TIMEOUT_MS = 60_000;
const POLL_MS = 50;
/** A drain has its own bounds, all of them shorter. */
const STOP_TIMEOUT_MS = 20_000;
/** Lines of the log that a failure shows. */
const SHOWN_LINES = 20;

export interface OperatorOptions {
  readonly kubeconfig: string;
  /** Origin of the simulator: plain http is for origins that are named. */
  readonly workApi: string;
  readonly flags: readonly string[];
  readonly env: NodeJS.ProcessEnv;
}

/** Where it listens, on loopback. */
interface Addresses {
  readonly metrics: string;
  readonly console: string;
}

/** What the operator counted itself. */
export interface OperatorCounts {
  readonly kube: RequestCounts;
  readonly work: RequestCounts;
}

/** `berth run` as a process of its own, as people run it. It ends with this process, however that ends. */
export class OperatorProcess {
  /** Where its metrics are. */
  readonly metricsUrl: string;
  /** Where its console is. */
  readonly consoleUrl: string;
  /** Its log; goes with the process, see `keepLog`. */
  readonly log: string;
  readonly #process: SupervisedProcess;
  #stopping = false;

  private constructor(process: SupervisedProcess, addresses: Addresses, log: string) {
    this.#process = process;
    this.metricsUrl = `http://${addresses.metrics}/metrics`;
    this.consoleUrl = `http://${addresses.console}`;
    this.log = log;
  }

  /** Resolves when it answers. @throws {Error} with the end of its log, when it ends instead. */
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

  /** Resolves with the reason when it ends although nobody stopped it. */
  get failed(): Promise<Error> {
    return this.#process.exited.then(async (exit) => {
      // Its end is awaited by `stop` then.
      if (this.#stopping) return await new Promise<never>(() => {});
      return new DemoError(`the operator ended by itself (${exitText(exit)})${await this.#lastLines()}`);
    });
  }

  /** SIGTERM, and SIGKILL when that does not end it. Returns what was wrong with its end; undefined: nothing. */
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

  /** Requests by kind, as its own metrics say; undefined when it does not answer. */
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
      if (performance.now() > deadline) throw new DemoError(`the operator does not answer${await this.#lastLines()}`);
      await delay(POLL_MS);
    }
  }

  async #lastLines(): Promise<string> {
    const text = await readFile(this.log, "utf8").catch(() => "");
    const lines = text.trim().split("\n").slice(-SHOWN_LINES);
    return text.trim() === "" ? "" : `; its last words:\n${lines.join("\n")}`;
  }
}

/** Copies a log to a folder of its own that stays. */
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

/** The user's, with the way out through a proxy, but for settings of Berth: those are the demo's. */
export function operatorEnv(env: NodeJS.ProcessEnv): Record<string, string | undefined> {
  const kept = Object.entries(env).filter(([name]) => !name.startsWith("BERTH_"));
  const direct = [env["NO_PROXY"] ?? env["no_proxy"], "127.0.0.1", "localhost"].filter(Boolean).join(",");
  return { ...Object.fromEntries(kept), NO_PROXY: direct, no_proxy: direct, NODE_NO_WARNINGS: "1" };
}

const METRIC = /^(berth_kube_api_requests_total|berth_work_api_requests_total)\{([^}]*)\} (\d+)/gm;

/** Reads the request counters out of Prometheus' text format. */
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
