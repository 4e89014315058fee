import type { KubeEnvironment } from "../kube/config.ts";

/** Environment variables by name. */
export type EnvironmentVariables = Readonly<Record<string, string | undefined>>;

/** The prefix of Berth's own environment variables. */
const ENV_PREFIX = "BERTH_";

/** BERTH_LOG_LEVEL for --log-level. */
export function environmentVariable(flagName: string): string {
  return ENV_PREFIX + flagName.replaceAll("-", "_").toUpperCase();
}

/**
 * A Service named berth makes kubelet put these into every container of its namespace: BERTH_SERVICE_HOST,
 * BERTH_METRICS_PORT_8080_TCP_ADDR and so on. They are nobody's settings.
 */
const SERVICE_LINK = /^BERTH_(.*_)?(SERVICE_(HOST|PORT(_.+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$/;

/**
 * A line for each variable with Berth's prefix that is none of these flags': a misspelled one would otherwise be a setting
 * that silently does nothing.
 */
export function unknownVariables(env: EnvironmentVariables, flagNames: readonly string[]): string[] {
  const known = new Set(flagNames.map(environmentVariable));
  return Object.keys(env)
    .filter((name) => name.startsWith(ENV_PREFIX) && !known.has(name) && !SERVICE_LINK.test(name))
    .map((name) => `unknown environment variable ${name}; known are ${[...known].join(", ")}`);
}

/** The variables that say where the cluster is. */
export function kubeEnvironment({
  KUBECONFIG,
  KUBERNETES_SERVICE_HOST,
  KUBERNETES_SERVICE_PORT,
}: EnvironmentVariables): KubeEnvironment {
  return { KUBECONFIG, KUBERNETES_SERVICE_HOST, KUBERNETES_SERVICE_PORT };
}

/** Unset where the variable is unset or empty. */
export interface ProxySettings {
  readonly httpProxy?: string;
  readonly httpsProxy?: string;
  /** Hosts that are reached without a proxy, as NO_PROXY lists them. */
  readonly noProxy?: string;
}

/** Lower case first, as curl and undici read them. */
export function proxySettings(env: EnvironmentVariables): ProxySettings {
  const httpProxy = env.http_proxy || env.HTTP_PROXY;
  const httpsProxy = env.https_proxy || env.HTTPS_PROXY;
  const noProxy = env.no_proxy || env.NO_PROXY;
  return { ...(httpProxy && { httpProxy }), ...(httpsProxy && { httpsProxy }), ...(noProxy && { noProxy }) };
}
