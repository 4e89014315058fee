import { existsSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, join } from "node:path";
import { ConfigError, errorText } from "../core/errors.ts";
import type { Auth } from "./credentials.ts";
import { type ClusterEntry, readKubeconfigs, type UserEntry } from "./kubeconfig.ts";
import { pluginCredentials } from "./plugin.ts";

/** The API server's address, and our credentials for it. */
export interface ClusterAccess {
  /** `https://host:port`, plus a path if the server is served below one, without a slash at the end. */
  readonly server: string;
  /** PEM. If unset, Node's own authorities and those of NODE_EXTRA_CA_CERTS count. */
  readonly ca?: string;
  /** The name in the server's certificate, if it differs from the one in `server`. */
  readonly tlsServerName?: string;
  /** Set only if a kubeconfig sets insecure-skip-tls-verify. */
  readonly insecureSkipTlsVerify?: boolean;
  readonly auth: Auth;
  /** Namespace of the current context, or of our own Pod. */
  readonly currentNamespace: string;
  /** `proxy-url` of the kubeconfig. If unset, the transport uses HTTPS_PROXY and NO_PROXY. */
  readonly proxyUrl?: string;
}

/**
 * Environment variables that locate the cluster. The caller passes them, since only src/settings reads the environment.
 */
export interface KubeEnvironment {
  readonly KUBECONFIG?: string | undefined;
  readonly KUBERNETES_SERVICE_HOST?: string | undefined;
  readonly KUBERNETES_SERVICE_PORT?: string | undefined;
}

const SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount";

/** The API server's name in every cluster and in its certificate. Resolving it needs the cluster's DNS. */
const IN_CLUSTER_NAME = "kubernetes.default.svc";

/**
 * Finds the cluster, in the order of controller-runtime: the given kubeconfig, KUBECONFIG, the Pod's service account,
 * ~/.kube/config.
 * @param path one file, which must exist. Files listed in KUBECONFIG may be missing, as with kubectl.
 * @param context of the kubeconfig, instead of its current one; the service account has none
 * @param serviceAccount folder with a service account's token, certificate and namespace.
 * @throws ConfigError with the fix.
 */
export function loadKubeConfig(
  path?: string,
  env: KubeEnvironment = {},
  { context, serviceAccount = SERVICE_ACCOUNT }: { context?: string | undefined; serviceAccount?: string } = {},
): ClusterAccess {
  if (path) return accessOf([path], true, context);
  const named = env.KUBECONFIG?.split(delimiter).filter((file) => file !== "") ?? [];
  if (named.length > 0) return accessOf(named, false, context);
  if (context === undefined && existsSync(join(serviceAccount, "token"))) return inClusterAccess(env, serviceAccount);
  const home = join(homedir(), ".kube", "config");
  if (existsSync(home)) return accessOf([home], true, context);
  throw new ConfigError(
    "no cluster is configured; set --kubeconfig or KUBECONFIG, or run in a Pod with a service account token",
  );
}

function inClusterAccess(env: KubeEnvironment, folder: string): ClusterAccess {
  const { KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port = "443" } = env;
  const hostname = host === undefined || host === "" ? IN_CLUSTER_NAME : host.includes(":") ? `[${host}]` : host;
  const namespaceFile = join(folder, "namespace");
  return {
    server: `https://${hostname}:${port}`,
    ca: readText(join(folder, "ca.crt")),
    auth: { tokenFile: join(folder, "token") },
    currentNamespace: existsSync(namespaceFile) ? readText(namespaceFile).trim() : "default",
  };
}

function accessOf(files: readonly string[], asked: boolean, context: string | undefined): ClusterAccess {
  const { cluster, user, namespace } = readKubeconfigs(files, asked, context);
  const ca = pem(cluster.caData, cluster.caFile);
  return {
    server: serverOf(cluster),
    ...(ca === undefined ? {} : { ca }),
    ...(cluster.tlsServerName === undefined ? {} : { tlsServerName: cluster.tlsServerName }),
    ...(cluster.insecureSkipTlsVerify ? { insecureSkipTlsVerify: true } : {}),
    ...(cluster.proxyUrl === undefined ? {} : { proxyUrl: cluster.proxyUrl }),
    auth: authOf(user, cluster, ca),
    currentNamespace: namespace ?? "default",
  };
}

function serverOf(cluster: ClusterEntry): string {
  let url: URL;
  try {
    url = new URL(cluster.server);
  } catch (cause) {
    throw new ConfigError(`kubeconfig: the server of cluster "${cluster.name}" is not a URL: ${cluster.server}`, {
      cause,
    });
  }
  if (url.protocol !== "https:" && url.protocol !== "http:") {
    throw new ConfigError(`kubeconfig: the server of cluster "${cluster.name}" must be an https or http URL`);
  }
  return `${url.origin}${url.pathname.replace(/\/+$/, "")}`;
}

function authOf(user: UserEntry, cluster: ClusterEntry, ca: string | undefined): Auth {
  const cert = pem(user.certData, user.certFile);
  const key = pem(user.keyData, user.keyFile);
  if ((cert === undefined) !== (key === undefined)) {
    throw new ConfigError(`kubeconfig: user "${user.name}" has a client certificate without its key, or the reverse`);
  }
  return {
    ...(user.token === undefined ? {} : { token: user.token }),
    ...(user.tokenFile === undefined ? {} : { tokenFile: user.tokenFile }),
    ...(user.username === undefined ? {} : { basic: { username: user.username, password: user.password ?? "" } }),
    ...(cert === undefined || key === undefined ? {} : { cert, key }),
    ...(user.exec || user.authProvider ? { plugin: pluginCredentials(user, cluster, ca) } : {}),
    ...(user.impersonate === undefined ? {} : { impersonate: user.impersonate }),
  };
}

function pem(data: string | undefined, file: string | undefined): string | undefined {
  if (data !== undefined) return Buffer.from(data, "base64").toString("utf8");
  return file === undefined ? undefined : readText(file);
}

function readText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (cause) {
    throw new ConfigError(`cannot read ${file}: ${errorText(cause)}`, { cause });
  }
}
