import type { E2eImages } from "./provided.ts";

/**
 * The settings of a run. run.ts passes its flags in these variables, because vitest's processes have their own flags.
 */
export interface E2eSettings {
  /** Use the cluster that KUBECONFIG names instead of creating one. */
  readonly useCluster: boolean;
  readonly kubeconfig: string | undefined;
  /** The file that describes a cluster kept by another process (keep.ts); no cluster is started then. */
  readonly attachTo: string | undefined;
  readonly images: E2eImages;
  /** Treat a missing tool as a failure, not as a reason to skip. */
  readonly strict: boolean;
  /** Also run tests with gVisor, build the operator's image twice, and give sessions more work items. */
  readonly long: boolean;
}

/** Variables that run.ts sets. */
export const USE_CLUSTER = "BERTH_E2E_USE_CLUSTER";
export const ATTACH_TO = "BERTH_E2E_ATTACH_TO";
export const IMAGE_PREFIX = "BERTH_E2E_IMAGE_PREFIX";
export const IMAGE_TAG = "BERTH_E2E_IMAGE_TAG";
/** Read by vitest.config.ts. */
export const LONG = "BERTH_E2E_LONG";

/** Set by vitest.config.ts for a project whose Pods all have this isolation. */
export const ISOLATION = "BERTH_E2E_ISOLATION";

/** `isolation` of the Environments of this project's tests; undefined: they have none. */
export function isolationOf(env: NodeJS.ProcessEnv = process.env): string | undefined {
  return env[ISOLATION];
}

/** Set by run.ts: the Pods of all tests without gVisor have `hostUsers: false`. */
export const USER_NAMESPACES = "BERTH_E2E_USER_NAMESPACES";

/** The names that testbed/images gives to what it builds. */
const DEFAULT_PREFIX = "localhost/";
const DEFAULT_TAG = "e2e";

/** Reads the settings of a run from the environment. */
export function readSettings(env: NodeJS.ProcessEnv = process.env): E2eSettings {
  const prefix = env[IMAGE_PREFIX] ?? DEFAULT_PREFIX;
  const tag = env[IMAGE_TAG] ?? DEFAULT_TAG;
  const image = (name: string) => `${prefix}${name}:${tag}`;
  return {
    useCluster: env[USE_CLUSTER] === "true",
    kubeconfig: env["KUBECONFIG"],
    attachTo: env[ATTACH_TO],
    images: {
      operator: image("berth"),
      typescript: image("berth-worker-typescript"),
      python: image("berth-worker-python"),
      go: image("berth-worker-go"),
      simulator: image("berth-simulator"),
    },
    strict: env["CI"] === "true",
    long: env[LONG] === "true",
  };
}
