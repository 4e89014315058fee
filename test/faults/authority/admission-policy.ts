import { randomBytes } from "node:crypto";
import type { PodPolicy } from "../../../src/api/pod-policy.ts";
import { parseSettings } from "../../../src/settings/config.ts";
import type { ApiClient, ApiObject } from "../../../testbed/cluster/api.ts";
import { type Manifest, objectPath, render, type Values } from "../../support/chart.ts";

const KINDS = ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"] as const;

/** The chart's admission policy over the Environments of one namespace, and what the operator is told beside it. */
export class AdmissionPolicy implements AsyncDisposable {
  /** As the operator of the same values has it: its flags, read by its own parser. */
  readonly podPolicy: PodPolicy;
  readonly flags: readonly string[];
  readonly #api: ApiClient;
  readonly #objects: readonly Manifest[];

  constructor(api: ApiClient, objects: readonly Manifest[], flags: readonly string[]) {
    this.#api = api;
    this.#objects = objects;
    this.flags = flags;
    this.podPolicy = parseSettings([...flags], {}).podPolicy;
  }

  /** What the API server's own check of the expressions' types has to say, once it is done; null: it is not yet. */
  async typeWarnings(): Promise<readonly unknown[] | null> {
    const policy = this.#objects.find(({ kind }) => kind === KINDS[0]);
    if (!policy) throw new Error("no policy");
    const { metadata, status } = await this.#api.get<ApiObject & { status?: TypeChecked }>(objectPath(policy));
    if (status?.observedGeneration === undefined || status.observedGeneration !== metadata?.["generation"]) return null;
    return status.typeChecking?.expressionWarnings ?? [];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const object of this.#objects.toReversed()) await this.#api.delete(objectPath(object));
  }
}

interface TypeChecked {
  readonly observedGeneration?: number;
  readonly typeChecking?: { readonly expressionWarnings?: readonly unknown[] };
}

/**
 * Installs it. It takes a moment until the API server acts on it.
 * @param allowedApiOrigins of the Work API; empty: as the chart has it
 */
export async function installAdmissionPolicy(
  api: ApiClient,
  namespace: string,
  allowedApiOrigins: readonly string[],
  podPolicy: Values = {},
): Promise<AdmissionPolicy> {
  const fullnameOverride = `policy-${randomBytes(4).toString("hex")}`;
  const rendered = await render("berth-system", {
    fullnameOverride,
    namespaces: [namespace],
    allowedApiOrigins,
    podPolicy,
  });
  const objects = KINDS.map((kind) => rendered.one(kind));
  for (const object of objects) await api.apply(objectPath(object), object);
  const flags = rendered.container.args.filter((word) => word.startsWith("--allowed-in-templates="));
  return new AdmissionPolicy(api, objects, flags);
}
