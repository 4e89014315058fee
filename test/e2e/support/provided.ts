import { inject } from "vitest";

/** What the end-to-end tests know about their shared cluster: file paths, names, and addresses within the cluster. */
export interface E2eCluster {
  /** With all rights. */
  readonly kubeconfig: string;
  /** Socket of the node's control (`connectNodeControl`); unset on a given cluster. */
  readonly nodeControl?: string;
  /** The run's folder: logs of the operators, and credentials that were issued. */
  readonly dir: string;
  readonly images: E2eImages;
  readonly simulator: SimulatorPlace;
  /** Whether it has the RuntimeClass of `isolation: gVisor`. */
  readonly hasGvisor: boolean;
}

/** References of the images in Pod specs. */
export interface E2eImages {
  readonly operator: string;
  readonly typescript: string;
  readonly python: string;
  readonly go: string;
  readonly simulator: string;
}

/** The work simulator that all tests of a run share. Each test has its own environment in it. */
export interface SimulatorPlace {
  readonly namespace: string;
  readonly pod: string;
  readonly port: number;
  /** The URL for Pods, with a cluster IP. */
  readonly url: string;
  /** The same server with TLS: its URL for Pods, the certificate to trust, and the labels of its Pod. */
  readonly tls: {
    readonly url: string;
    readonly certificate: string;
    readonly labels: Readonly<Record<string, string>>;
  };
  /** Networks that Pods must reach for that, for a NetworkPolicy: the simulator's Service and its Pod. */
  readonly cidrs: readonly string[];
  readonly adminToken: string;
}

/** Where Berth is installed. */
export const OPERATOR_NAMESPACE = "berth-system";
export const OPERATOR_DEPLOYMENT = "berth-operator";
/** Selects the operators' Pods. */
export const OPERATOR_SELECTOR = "app.kubernetes.io/name=berth,app.kubernetes.io/component=operator";
export const OPERATOR_REPLICAS = 2;

declare module "vitest" {
  export interface ProvidedContext {
    /** Unset if the run is skipped: then no test runs, but vitest still loads the files. */
    e2e: E2eCluster | undefined;
    /** Why all tests of the run are skipped; empty if they are not. */
    e2eSkipped: string;
  }
}

/** The shared cluster. Call it only in tests and hooks. @throws {Error} if the run is skipped */
export function e2eCluster(): E2eCluster {
  const cluster = inject("e2e");
  if (!cluster) throw new Error(`the end-to-end tests are skipped: ${inject("e2eSkipped")}`);
  return cluster;
}

/** Whether a test can disturb the node: `test.skipIf(!hasNodeControl())`. True if the whole run is skipped. */
export function hasNodeControl(): boolean {
  const cluster = inject("e2e");
  return cluster === undefined || cluster.nodeControl !== undefined;
}
