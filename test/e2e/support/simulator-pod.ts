import { randomBytes } from "node:crypto";
import { realClock, sleep } from "../../../src/core/clock.ts";
import type { KubeClient } from "../../../src/kube/client.ts";
import { isNotFound } from "../../../src/kube/errors.ts";
import {
  type KubeObject,
  NAMESPACES,
  PODS,
  type Resource,
  SECRETS,
  SERVICE_ACCOUNTS,
} from "../../../src/kube/resource.ts";
import { selfSigned } from "../../../testbed/cluster/certificate.ts";
import type { SimulatorPlace } from "./provided.ts";

const SERVICES: Resource<KubeObject & { spec: { clusterIP?: string } }> = {
  group: "",
  version: "v1",
  plural: "services",
  kind: "Service",
  namespaced: true,
};

/**
 * The simulator's namespace is the same in every run, so that the leftovers of an earlier run are found and removed.
 */
export const SIMULATOR_NAMESPACE = "berth-e2e-simulator";
const NAME = "simulator";
const PORT = 8080;
const TLS_PORT = 8443;
const TLS = "simulator-tls";
const TLS_DIR = "/etc/simulator-tls";

/** Passes decrypted connections on to the simulator. */
const TLS_PROXY = `
  const { readFileSync } = require("node:fs");
  const { connect } = require("node:net");
  const read = (name) => readFileSync("${TLS_DIR}/" + name);
  require("node:tls")
    .createServer({ cert: read("tls.crt"), key: read("tls.key") }, (client) => {
      const server = connect(${PORT}, "127.0.0.1");
      const end = () => { client.destroy(); server.destroy(); };
      for (const socket of [client, server]) socket.on("error", end).on("close", end);
      client.pipe(server).pipe(client);
    })
    .listen(${TLS_PORT});
`;
const READY_TIMEOUT_MS = 180_000;
const POLL_MS = 250;

/**
 * Starts the work simulator as a Pod behind a Service, and waits until it is ready. It is also served with TLS and a
 * private certificate authority.
 */
export async function startSimulatorPod(kube: KubeClient, image: string): Promise<SimulatorPlace> {
  await makeNamespace(kube, SIMULATOR_NAMESPACE);
  const labels = { app: NAME };
  const metadata = { name: NAME, namespace: SIMULATOR_NAMESPACE, labels };
  const { spec } = await kube.create(SERVICES, {
    metadata,
    spec: {
      selector: labels,
      ports: [
        { name: "http", port: PORT },
        { name: "https", port: TLS_PORT },
      ],
      // Kubernetes removes the Pods of a lost node from their Services although they still run; the tests need the
      // simulator then.
      publishNotReadyAddresses: true,
    },
  } as never);
  if (!spec.clusterIP) throw new Error("the simulator's Service got no cluster IP");
  const host = spec.clusterIP.includes(":") ? `[${spec.clusterIP}]` : spec.clusterIP;
  const url = `http://${host}:${PORT}`;
  const { certificate, key } = selfSigned([spec.clusterIP]);
  await kube.create(SECRETS, {
    metadata: { name: TLS, namespace: SIMULATOR_NAMESPACE },
    type: "kubernetes.io/tls",
    stringData: { "tls.crt": certificate, "tls.key": key },
  });
  const adminToken = randomBytes(16).toString("hex");
  await kube.create(PODS, {
    metadata,
    spec: {
      // No node fault of a test may end the simulator, which keeps everything that happened in memory.
      tolerations: [{ operator: "Exists" }],
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      terminationGracePeriodSeconds: 1,
      containers: [
        {
          name: NAME,
          image,
          imagePullPolicy: "IfNotPresent",
          args: ["--host", "0.0.0.0", "--port", String(PORT), "--public-url", url, "--quiet"],
          env: [{ name: "SIMULATOR_ADMIN_TOKEN", value: adminToken }],
          readinessProbe: { httpGet: { path: "/healthz", port: PORT }, periodSeconds: 1 },
          resources: { requests: { cpu: "50m", memory: "128Mi" } },
          securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } },
        },
        {
          name: "tls",
          image,
          imagePullPolicy: "IfNotPresent",
          command: ["node", "-e", TLS_PROXY],
          readinessProbe: { tcpSocket: { port: TLS_PORT }, periodSeconds: 1 },
          resources: { requests: { cpu: "10m", memory: "64Mi" } },
          securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } },
          volumeMounts: [{ name: TLS, mountPath: TLS_DIR }],
        },
      ],
      volumes: [{ name: TLS, secret: { secretName: TLS } }],
    },
  });
  // Some networks apply policies to the Service's address, most to the Pod's.
  const cidrs = [spec.clusterIP, await untilReady(kube)].map((ip) => `${ip}/${ip.includes(":") ? 128 : 32}`);
  const tls = { url: `https://${host}:${TLS_PORT}`, certificate, labels };
  return { namespace: SIMULATOR_NAMESPACE, pod: NAME, port: PORT, url, tls, cidrs, adminToken };
}

/** Resolves with its address. */
async function untilReady(kube: KubeClient): Promise<string> {
  const bound = AbortSignal.timeout(READY_TIMEOUT_MS);
  for (;;) {
    const { status } = await kube.get(PODS, { namespace: SIMULATOR_NAMESPACE, name: NAME });
    const isReady = status?.conditions?.some(({ type, status }) => type === "Ready" && status === "True");
    if (isReady && status?.podIP !== undefined) return status.podIP;
    if (bound.aborted) throw new Error(`the simulator's Pod is not ready: ${JSON.stringify(status)}`);
    await sleep(realClock, POLL_MS, bound);
  }
}

/** Creates a namespace that can run Pods; first removes an existing one of that name. */
export async function makeNamespace(
  kube: KubeClient,
  name: string,
  labels: Readonly<Record<string, string>> = {},
): Promise<void> {
  await removeNamespace(kube, name);
  await kube.create(NAMESPACES, { metadata: { name, labels: { ...labels } } });
  const bound = AbortSignal.timeout(READY_TIMEOUT_MS);
  // Until then, the ServiceAccount admission plug-in refuses Pods.
  while (!(await exists(() => kube.get(SERVICE_ACCOUNTS, { namespace: name, name: "default" })))) {
    if (bound.aborted) throw new Error(`namespace ${name} has no default service account`);
    await sleep(realClock, POLL_MS, bound);
  }
}

/** Resolves when the namespace and everything in it are deleted. @throws {Error} if it is not deleted in time */
export async function removeNamespace(kube: KubeClient, name: string): Promise<void> {
  const bound = AbortSignal.timeout(READY_TIMEOUT_MS);
  if (!(await exists(() => kube.delete(NAMESPACES, { name })))) return;
  while (await exists(() => kube.get(NAMESPACES, { name }))) {
    if (bound.aborted) throw new Error(`namespace ${name} does not go`);
    await sleep(realClock, POLL_MS, bound);
  }
}

async function exists(request: () => Promise<unknown>): Promise<boolean> {
  try {
    await request();
    return true;
  } catch (error) {
    if (isNotFound(error)) return false;
    throw error;
  }
}
