import { randomBytes } from "node:crypto";
import type { PodPolicy } from "../../../src/policy/pod-policy.ts";
import { parseSettings } from "../../../src/settings/config.ts";
import type { ApiClient, ApiObject } from "../../../testbed/cluster/api.ts";
import { type Manifest, objectPath, render, type Values } from "../../support/chart.ts";

const KINDS = ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"] as const;

/** The chart's admission policy for the Environments of one namespace, and the matching flags of the operator. */
export class AdmissionPolicy implements AsyncDisposable {
  /** The operator's Pod policy for the same chart values, parsed from its flags by its own parser. */
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

  /** The type warnings that the API server reports for the policy's expressions; null until it has checked them. */
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
 * Installs the policy. The API server enforces it a moment later.
 * @param allowedApiOrigins origins of the Work API; if empty, the chart's default applies
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
  const objects = KINDS.map((kind) => rendered.one(kind, "-pod-policy"));
  for (const object of objects) await api.apply(objectPath(object), object);
  const flags = rendered.container.args.filter((word) => word.startsWith("--allowed-in-templates="));
  return new AdmissionPolicy(api, objects, flags);
}
