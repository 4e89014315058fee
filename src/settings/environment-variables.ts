import { REMOVED_NAMES } from "../api/removed-names.ts";
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
 * The kubelet sets these variables in every container of a namespace with a Service named berth: BERTH_SERVICE_HOST,
 * BERTH_METRICS_PORT_8080_TCP_ADDR and so on. They are not settings.
 */
const SERVICE_LINK = /^BERTH_(.*_)?(SERVICE_(HOST|PORT(_.+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$/;

/** Settings of the project's own tests and playground. A shell that exports them can still run berth. */
const OF_TESTS = "BERTH_TEST_";

/**
 * Returns one line for each variable with Berth's prefix that belongs to no flag: a misspelled setting would otherwise
 * be ignored silently.
 */
export function unknownVariables(env: EnvironmentVariables, flagNames: readonly string[]): string[] {
  const known = new Set(flagNames.map(environmentVariable));
  return Object.keys(env)
    .filter((name) => name.startsWith(ENV_PREFIX) && !name.startsWith(OF_TESTS))
    .filter((name) => !known.has(name) && !SERVICE_LINK.test(name))
    .map((name) => {
      const [, removed] =
        Object.entries(REMOVED_NAMES).find(([flag]) => environmentVariable(flag.replace("--", "")) === name) ?? [];
      if (removed !== undefined) return `${name}: ${removed}`;
      return `unknown environment variable ${name}; use one of ${[...known].join(", ")}`;
    });
}

/** The environment variables that locate the cluster. */
export function kubeEnvironment({
  KUBECONFIG,
  KUBERNETES_SERVICE_HOST,
  KUBERNETES_SERVICE_PORT,
}: EnvironmentVariables): KubeEnvironment {
  return { KUBECONFIG, KUBERNETES_SERVICE_HOST, KUBERNETES_SERVICE_PORT };
}

/** Each is unset if its variable is unset or empty. */
export interface ProxySettings {
  readonly httpProxy?: string;
  readonly httpsProxy?: string;
  /** Hosts that are reached without a proxy, in the form of NO_PROXY. */
  readonly noProxy?: string;
}

/** Lower case takes precedence, as in curl and undici. */
export function proxySettings(env: EnvironmentVariables): ProxySettings {
  const httpProxy = env.http_proxy || env.HTTP_PROXY;
  const httpsProxy = env.https_proxy || env.HTTPS_PROXY;
  const noProxy = env.no_proxy || env.NO_PROXY;
  return { ...(httpProxy && { httpProxy }), ...(httpsProxy && { httpsProxy }), ...(noProxy && { noProxy }) };
}
