import { randomBytes } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type BuildOptions, ensureBinaries } from "../cluster/build.ts";
import { cacheRoot } from "../cluster/cache.ts";
import { selfSigned } from "../cluster/certificate.ts";
import type { Cluster } from "../cluster/cluster.ts";
import { Component } from "../cluster/component.ts";
import { installCrds } from "../cluster/install.ts";
import { copyFromModule } from "../cluster/module-files.ts";
import { freePort } from "../cluster/ports.ts";
import { Supervisor } from "../cluster/supervisor.ts";
import { requiredVersion, type ToolModule } from "../cluster/versions.ts";

const LOOPBACK = "127.0.0.1";
const DIR = join(import.meta.dirname, "tools", "kueue");
const MODULE = "sigs.k8s.io/kueue";
const CRDS = join("config", "components", "crd", "bases");
/** Without its own certificates, Kueue reads those for its metrics from a fixed path, so it gets its own /etc. */
const WITH_CERTIFICATES =
  'mount -t tmpfs none /etc && mkdir -p /etc/kueue/metrics && ln -s "$0" /etc/kueue/metrics/certs && KUBECONFIG=$1 && export KUBECONFIG && shift && exec "$@"';
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
  readonly #supervisor: Supervisor;
  readonly #component: Component;
  readonly #healthUrl: string;

  private constructor(supervisor: Supervisor, component: Component, healthUrl: string) {
    this.#supervisor = supervisor;
    this.#component = component;
    this.#healthUrl = healthUrl;
  }

  /** Installs the CRDs and the webhooks for Pods, and starts the controller. */
  static async install({ program, crds }: KueueFiles, { api, kubeconfig }: Cluster): Promise<Kueue> {
    await installCrds(api, crds);
    const supervisor = await Supervisor.start(join(tmpdir(), `berth-kueue-${randomBytes(6).toString("hex")}`));
    const { dir } = supervisor;
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
    const command = [dir, kubeconfig, program, "--config", join(dir, "config.yaml")];
    const args = [...NAMESPACES, "sh", "-c", WITH_CERTIFICATES, ...command, "--feature-gates=VisibilityOnDemand=false"];
    const spec = { binary: "unshare", args, cwd: dir, logs: dir };
    const component = new Component(supervisor, spec, (error) => process.emitWarning(error));
    const kueue = new Kueue(supervisor, component, `http://${LOOPBACK}:${healthPort}/readyz`);
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
  start(): Promise<void> {
    return this.#component.start(() => isReady(this.#healthUrl));
  }

  /** Kills the controller. Its webhooks stay, and refuse each Pod. */
  stop(): Promise<void> {
    return this.#component.stop("SIGKILL");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#supervisor.end();
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
