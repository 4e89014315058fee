import type { PluginCredentials } from "./credentials.ts";
import type { ClusterEntry, Fields, UserEntry } from "./kubeconfig.ts";

/**
 * Gets credentials from an exec plug-in or a legacy auth provider of a kubeconfig. @kubernetes/client-node is imported
 * at the first use: it costs half a second and 90 MB, which only such a kubeconfig needs.
 * @param ca PEM, of the cluster
 */
export function pluginCredentials(
  user: UserEntry,
  cluster: ClusterEntry,
  ca: string | undefined,
): (fresh: boolean) => Promise<PluginCredentials> {
  let loaded: Promise<PluginRunner> | undefined;
  return async (fresh) => {
    // The library caches a plug-in's answer until it expires; a new instance has no cache.
    if (fresh || loaded === undefined) loaded = loadRunner(user, cluster, ca);
    const current = loaded;
    try {
      return await (await current)();
    } catch (error) {
      if (loaded === current) loaded = undefined;
      throw error;
    }
  };
}

type PluginRunner = () => Promise<PluginCredentials>;

async function loadRunner(user: UserEntry, cluster: ClusterEntry, ca: string | undefined): Promise<PluginRunner> {
  const { KubeConfig } = await import("@kubernetes/client-node");
  const config = new KubeConfig();
  config.loadFromClusterAndUser(
    { name: cluster.name, server: cluster.server, skipTLSVerify: false },
    {
      name: user.name,
      ...(user.exec ? { exec: withExecInfo(user.exec, cluster, ca) } : {}),
      ...(user.authProvider ? { authProvider: user.authProvider } : {}),
    },
  );
  return async () => {
    const options: { headers: Record<string, string>; cert?: string; key?: string } = { headers: {} };
    try {
      await config.applyToHTTPSOptions(options);
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      // The parser's message quotes its input, which may be a token.
      throw new Error("the output of the plug-in is not an ExecCredential: it is not JSON");
    }
    const { Authorization: authorization } = options.headers;
    return {
      ...(authorization === undefined ? {} : { authorization }),
      ...(options.cert === undefined ? {} : { cert: options.cert }),
      ...(options.key === undefined ? {} : { key: options.key }),
    };
  };
}

/** Sets KUBERNETES_EXEC_INFO, which plug-ins of cloud providers read and the library does not set. */
function withExecInfo(exec: Fields, cluster: ClusterEntry, ca: string | undefined): Fields {
  const env = Array.isArray(exec.env) ? exec.env : [];
  const about = exec.provideClusterInfo === true ? { cluster: clusterInfo(cluster, ca) } : {};
  const info = { apiVersion: exec.apiVersion, kind: "ExecCredential", spec: { ...about, interactive: false } };
  return { ...exec, env: [...env, { name: "KUBERNETES_EXEC_INFO", value: JSON.stringify(info) }] };
}

/** `spec.cluster` of an ExecCredential of client.authentication.k8s.io/v1. Undefined fields are not written. */
function clusterInfo(cluster: ClusterEntry, ca: string | undefined): Fields {
  return {
    server: cluster.server,
    "tls-server-name": cluster.tlsServerName,
    "insecure-skip-tls-verify": cluster.insecureSkipTlsVerify || undefined,
    "certificate-authority-data": ca === undefined ? undefined : Buffer.from(ca, "utf8").toString("base64"),
    "proxy-url": cluster.proxyUrl,
    config: cluster.execConfig,
  };
}
