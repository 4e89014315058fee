import { realClock } from "../core/clock.ts";
import { KubeClient } from "../kube/client.ts";
import { loadKubeConfig } from "../kube/config.ts";
import { berthVersion } from "../version.ts";
import type { ClusterSettings } from "./invocation.ts";

/** A cluster that a command looks at, until it is disposed. */
export interface Cluster extends AsyncDisposable {
  readonly kube: KubeClient;
  readonly server: string;
  /** That of the kubeconfig's context. */
  readonly namespace: string;
}

/**
 * Opens the cluster of a kubeconfig; nothing is sent yet.
 * @param command for the API server's audit log
 * @throws ConfigError
 */
export function connect({ kubeconfig, kubeEnvironment, proxy }: ClusterSettings, command: string): Cluster {
  const access = loadKubeConfig(kubeconfig, kubeEnvironment);
  const kube = new KubeClient({ access, clock: realClock, proxy, userAgent: `berth-${command}/${berthVersion()}` });
  return {
    kube,
    server: access.server,
    namespace: access.currentNamespace,
    [Symbol.asyncDispose]: () => kube.close(),
  };
}
