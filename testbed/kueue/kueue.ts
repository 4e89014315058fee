import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { type BuildOptions, ensureBinaries } from "../cluster/build.ts";
import { cacheRoot } from "../cluster/cache.ts";
import { selfSigned } from "../cluster/certificate.ts";
import type { Cluster } from "../cluster/cluster.ts";
import { installCrds } from "../cluster/install.ts";
import { copyFromModule } from "../cluster/module-files.ts";
import { freePort } from "../cluster/ports.ts";
import { requiredVersion, type ToolModule } from "../cluster/versions.ts";

const LOOPBACK = "127.0.0.1";
const DIR = join(import.meta.dirname, "tools", "kueue");
const MODULE = "sigs.k8s.io/kueue";
const CRDS = join("config", "components", "crd", "bases");
const START_BOUND_MS = 120_000;
const LOOK_AGAIN_MS = 100;
/** Without its own certificates, Kueue reads those for its metrics from a fixed path, so it gets its own /etc. */
const WITH_CERTIFICATES =
  'mount -t tmpfs none /etc && mkdir -p /etc/kueue/metrics && ln -s "$0" /etc/kueue/metrics/certs && exec "$@"';
const NAMESPACES = process.getuid?.() === 0 ? ["--mount"] : ["--map-root-user", "--mount"];

/** Kueue's controller and its CRDs. */
export interface KueueFiles {
  readonly program: string;
  readonly crds: string;
}

/**
 * Returns Kueue's controller and CRDs: those in the cache, or newly built ones.
 * @throws MissingToolError
 */
export async function findKueue(options: BuildOptions = {}): Promise<KueueFiles> {
  const { env = process.env } = options;
  const root = join(cacheRoot(env), "kueue");
  const version = requiredVersion(await readFile(join(DIR, "go.mod"), "utf8"), MODULE);
  const module: ToolModule = {
    dir: DIR,
    module: MODULE,
    version,
    commands: { kueue: `${MODULE}/cmd/kueue` },
    ldflags: "-s -w",
    // Kueue publishes its controller only as an image.
    release: () => [],
  };
  const plan = { title: "Kueue", binaries: ["kueue"], modules: [module], root, minutes: 8 };
  const { dir } = await ensureBinaries(plan, options);
  const crds = join(root, `crds-${version}`);
  await copyFromModule({ path: MODULE, version, sum: await checksum(version) }, CRDS, crds, env);
  return { program: join(dir, "kueue"), crds };
}

async function checksum(version: string): Promise<string> {
  const lines = (await readFile(join(DIR, "go.sum"), "utf8")).split("\n");
  return lines.find((line) => line.startsWith(`${MODULE} ${version} `))?.split(" ")[2] ?? "";
}

/** Kueue's controller beside a control plane. It manages all Pods that name a LocalQueue. */
export class Kueue implements AsyncDisposable {
  readonly #program: string;
  readonly #kubeconfig: string;
  readonly #dir: string;
  readonly #healthPort: number;
  #stop: () => Promise<void> = async () => {};

  private constructor(program: string, kubeconfig: string, dir: string, healthPort: number) {
    this.#program = program;
    this.#kubeconfig = kubeconfig;
    this.#dir = dir;
    this.#healthPort = healthPort;
  }

  /** Installs the CRDs and the webhooks for Pods, and starts the controller. */
  static async install({ program, crds }: KueueFiles, { api, kubeconfig }: Cluster): Promise<Kueue> {
    await installCrds(api, crds);
    const dir = await mkdtemp(join(tmpdir(), "berth-kueue-"));
    const [healthPort, port] = [await freePort(LOOPBACK), await freePort(LOOPBACK)];
    const { certificate, key } = selfSigned([LOOPBACK]);
    await writeFile(join(dir, "tls.crt"), certificate);
    await writeFile(join(dir, "tls.key"), key);
    const config = {
      apiVersion: "config.kueue.x-k8s.io/v1beta2",
      kind: "Configuration",
      health: { healthProbeBindAddress: `${LOOPBACK}:${healthPort}` },
      metrics: { bindAddress: "0" },
      webhook: { host: LOOPBACK, port, certDir: dir },
      leaderElection: { leaderElect: false },
      internalCertManagement: { enable: false },
      // Quotas of tests count Pods alone.
      resources: { excludeResourcePrefixes: ["cpu", "memory", "ephemeral-storage"] },
      integrations: { frameworks: ["pod"] },
    };
    await writeFile(join(dir, "config.yaml"), JSON.stringify(config));
    const kueue = new Kueue(program, kubeconfig, dir, healthPort);
    await kueue.start();
    for (const [kind, path, operations] of [
      ["mutatingwebhookconfigurations", "/mutate--v1-pod", ["CREATE"]],
      ["validatingwebhookconfigurations", "/validate--v1-pod", ["CREATE", "UPDATE"]],
    ] as const) {
      await api.create(`/apis/admissionregistration.k8s.io/v1/${kind}`, {
        metadata: { name: "kueue" },
        webhooks: [
          {
            name: "pod.kb.io",
            admissionReviewVersions: ["v1"],
            sideEffects: "None",
            failurePolicy: "Fail",
            clientConfig: {
              url: `https://${LOOPBACK}:${port}${path}`,
              caBundle: Buffer.from(certificate).toString("base64"),
            },
            rules: [{ apiGroups: [""], apiVersions: ["v1"], operations, resources: ["pods"] }],
          },
        ],
      });
    }
    return kueue;
  }

  /** Starts the controller, and waits until its webhooks answer. */
  async start(): Promise<void> {
    const args = ["--config", join(this.#dir, "config.yaml"), "--feature-gates", "VisibilityOnDemand=false"];
    const child = spawn("unshare", [...NAMESPACES, "sh", "-c", WITH_CERTIFICATES, this.#dir, this.#program, ...args], {
      env: { ...process.env, KUBECONFIG: this.#kubeconfig },
      stdio: ["ignore", "ignore", "pipe"],
    });
    let said = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      said = (said + text).slice(-10_000);
    });
    const ended = once(child, "close");
    this.#stop = async () => {
      child.kill("SIGKILL");
      await ended;
    };
    const bound = AbortSignal.timeout(START_BOUND_MS);
    while (!(await isReady(`http://${LOOPBACK}:${this.#healthPort}/readyz`))) {
      if (child.exitCode !== null || bound.aborted) {
        await this.#stop();
        throw new Error(`Kueue did not start:\n${said}`);
      }
      await delay(LOOK_AGAIN_MS);
    }
  }

  /** Kills the controller. Its webhooks stay, and refuse each Pod. */
  async stop(): Promise<void> {
    await this.#stop();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stop();
    await rm(this.#dir, { recursive: true, force: true });
  }
}

async function isReady(url: string): Promise<boolean> {
  try {
    const { ok, body } = await fetch(url);
    await body?.cancel();
    return ok;
  } catch {
    return false;
  }
}
