import type { PluginCredentials } from "./credentials.ts";
import type { ClusterEntry, Fields, UserEntry } from "./kubeconfig.ts";

/**
 * Credentials from an exec plug-in or a legacy auth provider of a kubeconfig, by @kubernetes/client-node, which is
 * imported at the first use: half a second and 90 MB that only such a kubeconfig has to pay.
 */
export function pluginCredentials(
  user: UserEntry,
  cluster: ClusterEntry,
): (fresh: boolean) => Promise<PluginCredentials> {
  let loaded: Promise<PluginRunner> | undefined;
  return async (fresh) => {
    // The library remembers what a plug-in said until it expires; a new instance has forgotten it.
    if (fresh || loaded === undefined) loaded = loadRunner(user, cluster);
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

async function loadRunner(user: UserEntry, cluster: ClusterEntry): Promise<PluginRunner> {
  const { KubeConfig } = await import("@kubernetes/client-node");
  const config = new KubeConfig();
  config.loadFromClusterAndUser(
    { name: cluster.name, server: cluster.server, skipTLSVerify: false },
    {
      name: user.name,
      ...(user.exec ? { exec: withExecInfo(user.exec) } : {}),
      ...(user.authProvider ? { authProvider: user.authProvider } : {}),
    },
  );
  return async () => {
    const options: { headers: Record<string, string>; cert?: string; key?: string } = { headers: {} };
    await config.applyToHTTPSOptions(options);
    const { Authorization: authorization } = options.headers;
    return {
      ...(authorization === undefined ? {} : { authorization }),
      ...(options.cert === undefined ? {} : { cert: options.cert }),
      ...(options.key === undefined ? {} : { key: options.key }),
    };
  };
}

/** Plug-ins of cloud providers read KUBERNETES_EXEC_INFO, which the library does not set. */
function withExecInfo(exec: Fields): Fields {
  const env = Array.isArray(exec.env) ? exec.env : [];
  const info = { apiVersion: exec.apiVersion, kind: "ExecCredential", spec: { interactive: false } };
  return { ...exec, env: [...env, { name: "KUBERNETES_EXEC_INFO", value: JSON.stringify(info) }] };
}
