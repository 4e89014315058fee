/** Starts Prometheus and Alertmanager, and queries them. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { stringify } from "yaml";
import { freePort } from "./free-port.ts";

/** The limit for a server's start: far more than it takes, even on a busy machine. */
const START_BOUND_MS = 60_000;
const LOOK_AGAIN_MS = 100;
/** Another process may take the port before the server uses it. */
const ATTEMPTS = 3;

/** A test's own server on loopback, with a temporary folder. */
export interface OwnServer extends AsyncDisposable {
  /** `http://127.0.0.1:port` */
  readonly url: string;
}

interface ServerOptions {
  /** Its command, with any leading arguments. */
  readonly command: readonly [string, ...string[]];
  /** Its arguments, for its folder and listening address. */
  readonly args: (dir: string, address: string) => readonly string[];
  /** The files of its folder, by name. */
  readonly files: Readonly<Record<string, string>>;
}

/** Starts Prometheus with a configuration; `rules` are rule files by name. */
export async function startPrometheus(
  program: string,
  config: Readonly<Record<string, unknown>>,
  rules: Readonly<Record<string, string>> = {},
): Promise<OwnServer> {
  return await startServer({
    command: [program],
    files: { ...rules, "prometheus.yaml": stringify({ ...config, rule_files: Object.keys(rules) }) },
    args: (dir, address) => [
      `--config.file=${join(dir, "prometheus.yaml")}`,
      `--storage.tsdb.path=${join(dir, "data")}`,
      `--web.listen-address=${address}`,
      "--log.level=warn",
    ],
  });
}

/**
 * Alertmanager's command. Debian's binary reads templates below /usr/share, where only an installed package has them.
 * For an unpacked package, a mount namespace shows its templates there, which requires root in a user namespace.
 */
export function alertmanagerCommand(program: string): [string, ...string[]] {
  const share = join(dirname(dirname(program)), "share");
  if (share === "/usr/share" || !existsSync(join(share, "prometheus"))) return [program];
  const namespaces = process.getuid?.() === 0 ? ["--mount"] : ["--map-root-user", "--mount"];
  const script = 'mount -t overlay overlay -o "lowerdir=$0:/usr/share" /usr/share && exec "$@"';
  return ["unshare", ...namespaces, "sh", "-c", script, share, program];
}

/** Starts a single Alertmanager with this configuration. */
export async function startAlertmanager(program: string, config: string): Promise<OwnServer> {
  return await startServer({
    command: alertmanagerCommand(program),
    files: { "alertmanager.yaml": config },
    args: (dir, address) => [
      `--config.file=${join(dir, "alertmanager.yaml")}`,
      `--storage.path=${join(dir, "data")}`,
      `--web.listen-address=${address}`,
      // Do not search for other replicas.
      "--cluster.listen-address=",
      "--log.level=warn",
    ],
  });
}

async function startServer(options: ServerOptions): Promise<OwnServer> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await startOnce(options);
    } catch (error) {
      if (attempt === ATTEMPTS) throw error;
    }
  }
}

async function startOnce({ command: [program, ...before], args, files }: ServerOptions): Promise<OwnServer> {
  const dir = await mkdtemp(join(tmpdir(), "berth-monitoring-"));
  const address = `127.0.0.1:${await freePort()}`;
  for (const [name, text] of Object.entries(files)) await writeFile(join(dir, name), text);
  const child = spawn(program, [...before, ...args(dir, address)], { stdio: ["ignore", "ignore", "pipe"] });
  const said: string[] = [];
  child.stderr.setEncoding("utf8").on("data", (text: string) => said.push(text));
  const ended = once(child, "close");
  const stop = async () => {
    child.kill("SIGKILL");
    await ended;
    await rm(dir, { recursive: true, force: true });
  };
  const url = `http://${address}`;
  const bound = AbortSignal.timeout(START_BOUND_MS);
  while (!(await isReady(url))) {
    if (child.exitCode !== null || child.signalCode !== null || bound.aborted) {
      await stop();
      throw new Error(`${program} did not start:\n${said.join("")}`);
    }
    await delay(LOOK_AGAIN_MS);
  }
  return { url, [Symbol.asyncDispose]: stop };
}

async function isReady(url: string): Promise<boolean> {
  try {
    const { ok, body } = await fetch(`${url}/-/ready`);
    await body?.cancel();
    return ok;
  } catch {
    return false;
  }
}

/** A series of an answer. */
export interface Series {
  readonly metric: Readonly<Record<string, string>>;
  /** For an instant query: time and value. */
  readonly value?: readonly [number, string];
}

/**
 * Sends a request to Prometheus' API.
 * @throws with its message if it refuses
 */
export async function askPrometheus<T>(
  { url }: OwnServer,
  path: string,
  parameters: Readonly<Record<string, string>> = {},
): Promise<T> {
  const response = await fetch(`${url}/api/v1/${path}?${new URLSearchParams(parameters)}`);
  const answer = (await response.json()) as { status: string; error?: string; data: T };
  if (answer.status !== "success") throw new Error(`${path} ${JSON.stringify(parameters)}: ${answer.error}`);
  return answer.data;
}

/** The current series of an expression. */
export async function queryPrometheus(server: OwnServer, query: string): Promise<Series[]> {
  const { resultType, result } = await askPrometheus<{ resultType: string; result: Series[] }>(server, "query", {
    query,
  });
  if (resultType !== "vector") throw new Error(`${query} gives no vector: ${resultType}`);
  return result;
}
