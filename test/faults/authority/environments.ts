import { API_VERSION, KIND } from "../../../src/api/names.ts";
import { KubeApiError } from "../../../src/kube/errors.ts";
import type { KubeObject } from "../../../src/kube/resource.ts";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import type { World } from "../../support/world.ts";

export type Json = Record<string, unknown>;
export type Mode = "sessions" | "workers";
export const MODES: readonly Mode[] = ["sessions", "workers"];

/** No node has this label, so the Pods are created and never scheduled. */
const NOWHERE = { "faults.berth.dev/no-such-node": "here" };

/** An Environment with this template, in either mode, that creates a Pod at once. By default, it has the world's queue. */
export function environmentWith(
  world: World,
  name: string,
  mode: Mode,
  template: Json,
  queue: Json = {
    environmentId: world.environmentId,
    api: { baseUrl: world.simulator.url, keySecretRef: { name: "key" } },
  },
): KubeObject {
  const spec = { nodeSelector: NOWHERE, ...(template["spec"] as Json) };
  const counts = mode === "sessions" ? { maxConcurrent: 1, warm: 1 } : { maxReplicas: 1, minReplicas: 1 };
  return {
    apiVersion: API_VERSION,
    kind: KIND,
    metadata: { name, namespace: world.namespace },
    spec: {
      ...queue,
      network: { policy: "None" },
      [mode]: { ...counts, template: { ...template, spec } },
    },
  } as never;
}

/** Creates an Environment with this template and its own queue. */
export async function createWith(world: World, name: string, mode: Mode, template: Json): Promise<void> {
  const queue = await world.createQueue(`key-${name}`);
  await world.kube.create(ENVIRONMENTS, environmentWith(world, name, mode, template, queue) as never);
}

/** The API server's reason for refusing an Environment in a dry run; null if it accepts it. */
export async function refusalOf(world: World, environment: KubeObject): Promise<string | null> {
  try {
    await world.kube.create(ENVIRONMENTS, environment as never, { dryRun: true });
    return null;
  } catch (error) {
    if (error instanceof KubeApiError && error.status >= 400 && error.status < 500) return error.message;
    throw error;
  }
}

/** Resolves when the API server enforces an admission policy that refuses this Environment. */
export function untilEnforced(world: World, environment: KubeObject): Promise<unknown> {
  return world.until("the admission policy is in force", async () =>
    (await refusalOf(world, environment))?.includes("ValidatingAdmissionPolicy"),
  );
}
