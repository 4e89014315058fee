import { inject } from "vitest";

/** What the end-to-end tests know of the cluster that they share: paths of files, names, and addresses within the cluster. */
export interface E2eCluster {
  /** With all rights. */
  readonly kubeconfig: string;
  /** Socket of the node's own switches (`connectNodeControl`); unset on a cluster that is somebody else's. */
  readonly nodeControl?: string;
  /** Folder of this run: logs of the operators, credentials that were given out. */
  readonly dir: string;
  readonly images: E2eImages;
  readonly simulator: SimulatorPlace;
}

/** References of the images, as Pods name them. */
export interface E2eImages {
  readonly operator: string;
  readonly typescript: string;
  readonly python: string;
  readonly simulator: string;
}

/** The work simulator that all tests of a run share; each has an environment of its own in it. */
export interface SimulatorPlace {
  readonly namespace: string;
  readonly pod: string;
  readonly port: number;
  /** Where Pods reach it: a cluster IP. */
  readonly url: string;
  /** Networks that Pods must reach for that, as a NetworkPolicy names them: its Service, and the Pod behind that. */
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
    /** Unset where the run is skipped: then no test runs, but files are loaded all the same. */
    e2e: E2eCluster | undefined;
    /** Why all tests of the run are skipped; empty: they are not. */
    e2eSkipped: string;
  }
}

/** The shared cluster. Call it in tests and hooks. @throws {Error} the run is skipped. */
export function e2eCluster(): E2eCluster {
  const cluster = inject("e2e");
  if (!cluster) throw new Error(`the end-to-end tests are skipped: ${inject("e2eSkipped")}`);
  return cluster;
}

/** Whether the node can be disturbed: `test.skipIf(!hasNodeControl())`. True while the run is skipped as a whole. */
export function hasNodeControl(): boolean {
  const cluster = inject("e2e");
  return cluster === undefined || cluster.nodeControl !== undefined;
}
