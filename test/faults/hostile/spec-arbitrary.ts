import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { parse } from "yaml";
import { DEPLOY_DIR } from "../../../testbed/cluster/install.ts";
import { ODD, type Path, pathsOf, replaced } from "../../support/malformed-values.ts";

/** The parts of a CRD's OpenAPI schema from which inputs are made. */
interface Schema {
  readonly type?: string;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly items?: Schema;
  readonly enum?: readonly unknown[];
  readonly minimum?: number;
  readonly maximum?: number;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly maxItems?: number;
  readonly "x-kubernetes-preserve-unknown-fields"?: boolean;
}

/** The schema of `spec` in the generated CRD. */
export function specSchema(): Schema {
  const crd = parse(readFileSync(join(DEPLOY_DIR, "crds", "berth.dev_environments.yaml"), "utf8"));
  return crd.spec.versions[0].schema.openAPIV3Schema.properties.spec;
}

/** One change of a spec: another value at a path, or no value. */
export interface Change {
  readonly path: Path;
  readonly by: unknown;
}

/** A valid spec with some changes; `changes` describes them for the reader of a failure. */
export interface HostileSpec {
  readonly spec: unknown;
  readonly changes: readonly string[];
}

/** Boundary values for every field that the schema declares: just allowed, and just refused. */
export function schemaChanges(schema: Schema, at: Path = []): Change[] {
  const here = edges(schema).map((by) => ({ path: at, by }));
  const fields = Object.entries(schema.properties ?? {}).flatMap(([key, part]) => schemaChanges(part, [...at, key]));
  return [...here, ...fields, ...(schema.items ? schemaChanges(schema.items, [...at, "0"]) : [])];
}

function edges({ type, enum: values, minimum, maximum, minLength, maxLength, maxItems }: Schema): unknown[] {
  const most = Math.min(maxLength ?? 100, 300_000);
  switch (type) {
    case "integer":
      return [minimum ?? 0, (minimum ?? 0) - 1, maximum ?? 2 ** 31 - 1, (maximum ?? 2 ** 31 - 1) + 1, 0.5, "5", 1e18];
    case "boolean":
      return [true, false, "true", 1];
    case "string":
      return [...(values ?? []), "x".repeat(minLength ?? 0), "x".repeat(most), "x".repeat(most + 1), "é\u0000\n", 5];
    case "array":
      return [[], Array.from({ length: (maxItems ?? 30) + 1 }, () => ({ name: "a" })), [null], {}];
    default:
      return [{}, [], "x", { unknown: { field: [1] } }];
  }
}

const TEMPLATE: Path = ["sessions", "template"];
const POD: Path = [...TEMPLATE, "spec"];
const CONTAINER: Path = [...POD, "containers", "0"];

const many = (count: number, one: (i: number) => unknown) => Array.from({ length: count }, (_, i) => one(i));
const deep = (depth: number): unknown => JSON.parse(`${'{"a":'.repeat(depth)}1${"}".repeat(depth)}`);

/** Values in a Pod template that the schema does not check. */
export const POD_CHANGES: readonly Change[] = [
  { path: [...POD, "containers"], by: many(2, () => ({ name: "worker", image: "worker:1" })) },
  { path: [...POD, "containers"], by: many(32, (i) => ({ name: `c${i}`, image: "worker:1" })) },
  { path: [...CONTAINER, "env"], by: many(512, (i) => ({ name: `E${i}`, value: "v".repeat(100) })) },
  { path: [...CONTAINER, "env"], by: many(2, () => ({ name: "SAME", value: "x" })) },
  { path: [...CONTAINER, "env"], by: [{ name: "A=B", value: "x" }] },
  { path: [...CONTAINER, "env"], by: [{ name: "X", valueFrom: { secretKeyRef: { name: "elsewhere", key: "k" } } }] },
  { path: [...CONTAINER, "env"], by: [{ name: "X", value: "$(X)$(BERTH)\u0000" }] },
  { path: [...CONTAINER, "ports"], by: many(2, () => ({ containerPort: 80, name: "same" })) },
  { path: [...CONTAINER, "ports"], by: [{ containerPort: 70_000 }] },
  { path: [...CONTAINER, "resources"], by: { requests: { cpu: "lots", memory: "-1" } } },
  { path: [...CONTAINER, "resources"], by: { requests: { cpu: "1e99" }, limits: { cpu: "1" } } },
  { path: [...CONTAINER, "resources"], by: { limits: { "example.com/none": "1" } } },
  { path: [...CONTAINER, "volumeMounts"], by: [{ name: "nowhere", mountPath: "/x" }] },
  { path: [...CONTAINER, "volumeMounts"], by: [{ name: "berth-claim", mountPath: "/../.." }] },
  { path: [...CONTAINER, "livenessProbe"], by: { httpGet: { port: "no-such-port" }, periodSeconds: -5 } },
  { path: [...CONTAINER, "securityContext"], by: { privileged: true, runAsUser: -1, capabilities: { add: ["ALL"] } } },
  { path: [...CONTAINER, "command"], by: ["x".repeat(100_000)] },
  { path: [...CONTAINER, "imagee"], by: "a typo" },
  { path: [...CONTAINER, "lifecycle"], by: { preStop: { sleep: { seconds: -1 } } } },
  { path: [...CONTAINER, "image"], by: "../../etc/passwd" },
  { path: [...CONTAINER, "image"], by: " " },
  { path: [...CONTAINER, "name"], by: "Not A Label" },
  { path: [...POD, "volumes"], by: many(2, () => ({ name: "same", emptyDir: {} })) },
  { path: [...POD, "volumes"], by: [{ name: "v", emptyDir: {}, secret: { secretName: "both" } }] },
  { path: [...POD, "volumes"], by: [{ name: "v", hostPath: { path: "/" } }] },
  { path: [...POD, "volumes"], by: [{ name: "v", persistentVolumeClaim: { claimName: "none" } }] },
  { path: [...POD, "volumes"], by: many(256, (i) => ({ name: `v${i}`, emptyDir: {} })) },
  { path: [...POD, "initContainers"], by: [{ name: "worker", image: "worker:1" }] },
  { path: [...POD, "initContainers"], by: [{ name: "side", image: "worker:1", restartPolicy: "Always" }] },
  { path: [...POD, "ephemeralContainers"], by: [{ name: "debug", image: "worker:1" }] },
  { path: [...POD, "serviceAccountName"], by: "nobody" },
  { path: [...POD, "nodeName"], by: "no-such-node" },
  { path: [...POD, "nodeSelector"], by: { "no.such/label": "x" } },
  { path: [...POD, "priorityClassName"], by: "no-such-class" },
  { path: [...POD, "schedulerName"], by: "nobody" },
  { path: [...POD, "schedulingGates"], by: [{ name: "example.com/never" }] },
  { path: [...POD, "runtimeClassName"], by: "none" },
  { path: [...POD, "hostNetwork"], by: true },
  { path: [...POD, "restartPolicy"], by: "Always" },
  { path: [...POD, "activeDeadlineSeconds"], by: 1 },
  { path: [...POD, "terminationGracePeriodSeconds"], by: 0 },
  { path: [...POD, "tolerations"], by: [{ operator: "Nonsense" }] },
  { path: [...POD, "affinity"], by: { nodeAffinity: deep(20) } },
  { path: [...POD, "dnsConfig"], by: { nameservers: many(50, () => "256.256.256.256") } },
  { path: [...POD, "overhead"], by: { cpu: "1" } },
  { path: [...POD, "unknown"], by: deep(50) },
  { path: [...POD, "unknown"], by: deep(2_000) },
  { path: [...POD, "unknown"], by: many(10_000, () => null) },
  { path: [...POD, "unknown"], by: "z".repeat(900_000) },
  { path: [...TEMPLATE, "metadata"], by: { labels: { "bad key!": "x" } } },
  { path: [...TEMPLATE, "metadata"], by: { labels: { ok: "bad value!" } } },
  { path: [...TEMPLATE, "metadata"], by: { annotations: { note: "x".repeat(250_000) } } },
  {
    path: [...TEMPLATE, "metadata"],
    by: { ownerReferences: [{ kind: "Node", name: "n", uid: "u", apiVersion: "v1" }] },
  },
  { path: [...TEMPLATE, "metadata"], by: { finalizers: ["example.com/never"] } },
  { path: [...TEMPLATE, "metadata"], by: { uid: "given", resourceVersion: "5", creationTimestamp: null } },
  { path: [...TEMPLATE, "metadata"], by: { deletionTimestamp: "2020-01-01T00:00:00Z" } },
  { path: [...TEMPLATE, "metadata"], by: { labels: many(1, () => "a list") } },
];

/** Valid specs, and each of them changed in one to three places. */
export function hostileSpecs(bases: readonly unknown[]): fc.Arbitrary<HostileSpec> {
  const declared = schemaChanges(specSchema());
  return fc.constantFrom(...bases).chain((base) => {
    const malformed = fc.record({ path: fc.constantFrom(...pathsOf(base).slice(1)), by: ODD });
    const unknown = fc.record({ path: fc.constantFrom(...objectPaths(base)), by: ODD }).map(({ path, by }) => ({
      path: [...path, "unknownField"],
      by,
    }));
    const change = fc.oneof(
      { weight: 4, arbitrary: fc.constantFrom(...declared) },
      { weight: 4, arbitrary: fc.constantFrom(...POD_CHANGES).map((one) => forMode(one, base)) },
      { weight: 2, arbitrary: malformed },
      { weight: 1, arbitrary: unknown },
    );
    return fc.array(change, { minLength: 1, maxLength: 3 }).map((changes) => ({
      spec: changes.reduce((spec, one) => changed(spec, one), base),
      changes: changes.map(({ path, by }) => `${path.join(".")} = ${shown(by)}`),
    }));
  });
}

function objectPaths(base: unknown): Path[] {
  return pathsOf(base).filter((path) => {
    const at = path.reduce<unknown>((value, key) => (value as Record<string, unknown>)[key], base);
    return typeof at === "object" && at !== null && !Array.isArray(at);
  });
}

/** Template changes are written for sessions; this moves them to the base's mode. */
function forMode({ path, by }: Change, base: unknown): Change {
  const mode = (base as { workers?: unknown }).workers ? "workers" : "sessions";
  return { path: [mode, ...path.slice(1)], by };
}

/** Applies a change, and creates missing objects on its path. */
export function changed(value: unknown, { path, by }: Change): unknown {
  const [key, ...rest] = path;
  if (key === undefined) return by;
  if (typeof value !== "object" || value === null) return changed({}, { path, by });
  const part = (value as Record<string, unknown>)[key];
  return replaced(value, [key], rest.length === 0 ? by : changed(part, { path: rest, by }));
}

export function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? "nothing";
  return text.length <= 80 ? text : `${text.slice(0, 80)}... (${text.length})`;
}
