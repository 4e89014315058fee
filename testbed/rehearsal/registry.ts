import { mkdir, readFile, writeFile } from "node:fs/promises";
import { request } from "node:https";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { stringify } from "yaml";
import { selfSigned } from "../cluster/certificate.ts";
import { PortTakenError, retryOnTakenPort, saysPortTaken } from "../cluster/ports.ts";
import type { SupervisedProcess, Supervisor } from "../cluster/supervisor.ts";

const HOST = "127.0.0.1";
/** Far more than a start takes, even on a busy machine. */
const START_BOUND_MS = 60_000;
const LOOK_AGAIN_MS = 50;

/** The one account. The registry knows its password as a bcrypt hash. */
export const ACCOUNT = {
  user: "rehearsal",
  password: "rehearsal",
  line: "rehearsal:$2y$05$abcdefghijklmnopqrstuuJJJe5RxCDT7k6nKby9oXQblnVsj3UvG\n",
} as const;

/** An answer of the registry. */
export interface RegistryAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

/**
 * A registry on loopback, with TLS and a password. Like the registry of a release, it has no referrers API (OCI
 * distribution 1.1), so that clients use tags for signatures.
 */
export interface Registry {
  /** `127.0.0.1:port` */
  readonly address: string;
  /** The file of the certificate that clients must trust. */
  readonly ca: string;
  /** Sends a GET request for a path below /v2/. */
  get(path: string, accept?: string, password?: string): Promise<RegistryAnswer>;
}

/** Starts a registry that ends with its supervisor. */
export async function startRegistry(program: string, supervisor: Supervisor): Promise<Registry> {
  return await retryOnTakenPort((port) => startAt(port, program, supervisor));
}

async function startAt(port: number, program: string, supervisor: Supervisor): Promise<Registry> {
  const dir = join(supervisor.dir, `registry-${port}`);
  await mkdir(dir);
  const ca = join(dir, "ca.pem");
  const { certificate, key } = selfSigned([HOST, "localhost"]);
  await writeFile(ca, certificate);
  await writeFile(join(dir, "key.pem"), key);
  await writeFile(join(dir, "htpasswd"), ACCOUNT.line);
  const address = `${HOST}:${port}`;
  const config = {
    version: "0.1",
    log: { level: "warn", accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: join(dir, "data") } },
    http: { addr: address, tls: { certificate: ca, key: join(dir, "key.pem") } },
    auth: { htpasswd: { realm: "rehearsal", path: join(dir, "htpasswd") } },
  };
  const file = join(dir, "config.yml");
  await writeFile(file, stringify(config));
  const logFile = join(dir, "registry.log");
  const args = ["serve", file];
  const running = await supervisor.spawn({ name: "registry", command: program, args, env: {}, cwd: dir, logFile });
  const get = (path: string, accept = "*/*", password: string = ACCOUNT.password) =>
    ask(`https://${address}/v2/${path}`, { ca: certificate, accept, password });
  await answering(get, running, logFile);
  return { address, ca, get };
}

async function answering(get: Registry["get"], running: SupervisedProcess, logFile: string): Promise<void> {
  const end = performance.now() + START_BOUND_MS;
  for (;;) {
    const status = await get("").then(
      (answer) => answer.status,
      () => undefined,
    );
    if (status === 200) return;
    const late = performance.now() > end;
    if (running.exit || late) {
      const log = await readFile(logFile, "utf8");
      if (saysPortTaken(log)) throw new PortTakenError("the registry's port was taken");
      throw new Error(`the registry ${late ? "answered nothing" : "ended"}:\n${log}`);
    }
    await delay(LOOK_AGAIN_MS);
  }
}

function ask(
  url: string,
  { ca, accept, password }: { readonly ca: string; readonly accept: string; readonly password: string },
): Promise<RegistryAnswer> {
  return new Promise((resolve, reject) => {
    const options = { ca, auth: `${ACCOUNT.user}:${password}`, headers: { accept }, agent: false };
    const sent = request(url, options, (response) => {
      let body = "";
      response.setEncoding("utf8");
      response.on("data", (part: string) => {
        body += part;
      });
      response.on("end", () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body }));
      response.on("error", reject);
    });
    sent.on("error", reject);
    sent.end();
  });
}
