import type { ConfigMap, Container, Pod, Secret } from "../../src/kube/objects.ts";
import { parseQuantity } from "./quantity.ts";

/** The current Secrets and ConfigMaps of one namespace that a container refers to. Undefined if one doesn't exist. */
export interface ReferencedObjects {
  secret(name: string): Secret | undefined;
  configMap(name: string): ConfigMap | undefined;
}

/** The names of the Secrets and ConfigMaps that a container's environment uses. */
export interface References {
  readonly secrets: readonly string[];
  readonly configMaps: readonly string[];
}

/** API fields that src/kube/objects.ts doesn't declare because the operator doesn't use them. */
interface EnvSource {
  name: string;
  value?: string;
  valueFrom?: {
    secretKeyRef?: KeyRef;
    configMapKeyRef?: KeyRef;
    fieldRef?: { fieldPath: string };
    resourceFieldRef?: { resource: string; divisor?: string; containerName?: string };
  };
}
interface KeyRef {
  name?: string;
  key: string;
  optional?: boolean;
}
interface EnvFromSource {
  prefix?: string;
  secretRef?: { name?: string; optional?: boolean };
  configMapRef?: { name?: string; optional?: boolean };
}

/**
 * The environment can't be resolved yet. The message is exactly the kubelet's, because people and operators read it.
 */
export class EnvironmentError extends Error {}

export function referencesOf(container: Container): References {
  const secrets = new Set<string>();
  const configMaps = new Set<string>();
  for (const { secretRef, configMapRef } of envFromOf(container)) {
    if (secretRef?.name) secrets.add(secretRef.name);
    if (configMapRef?.name) configMaps.add(configMapRef.name);
  }
  for (const { valueFrom } of envOf(container)) {
    if (valueFrom?.secretKeyRef?.name) secrets.add(valueFrom.secretKeyRef.name);
    if (valueFrom?.configMapKeyRef?.name) configMaps.add(valueFrom.configMapKeyRef.name);
  }
  return { secrets: [...secrets], configMaps: [...configMaps] };
}

/**
 * Resolves the environment of a container as the kubelet does (pkg/kubelet/kubelet_pods.go, makeEnvironmentVariables):
 * envFrom first, then env in its order. Later values override earlier ones. Throws an EnvironmentError if the kubelet
 * would leave the container in CreateContainerConfigError.
 */
export function resolveEnvironment(pod: Pod, container: Container, objects: ReferencedObjects): Record<string, string> {
  const env: Record<string, string> = {};
  for (const source of envFromOf(container)) Object.assign(env, fromSource(source, objects));
  for (const variable of envOf(container)) {
    const value = valueOfVariable(pod, container, variable, env, objects);
    if (value !== undefined) env[variable.name] = value;
  }
  return env;
}

/** Replaces `$(NAME)` with the variable's value. Keeps unknown names, and treats `$$` as an escaped dollar sign. */
export function expand(text: string, env: Readonly<Record<string, string>>): string {
  return text.replaceAll(/\$\$|\$\(([^)]*)\)/g, (whole, name: string | undefined) => {
    if (name === undefined) return "$";
    return env[name] ?? whole;
  });
}

function envOf(container: Container): readonly EnvSource[] {
  return (container.env ?? []) as readonly EnvSource[];
}

function envFromOf(container: Container): readonly EnvFromSource[] {
  return (container["envFrom"] ?? []) as readonly EnvFromSource[];
}

function fromSource(source: EnvFromSource, objects: ReferencedObjects): Record<string, string> {
  const ref = source.secretRef ?? source.configMapRef;
  const name = ref?.name ?? "";
  const data = source.secretRef
    ? decoded(required(objects.secret(name), "secret", name, ref?.optional))
    : required(objects.configMap(name), "configmap", name, ref?.optional)?.data;
  const prefix = source.prefix ?? "";
  return Object.fromEntries(Object.entries(data ?? {}).map(([key, value]) => [prefix + key, value]));
}

function valueOfVariable(
  pod: Pod,
  container: Container,
  { value, valueFrom }: EnvSource,
  env: Readonly<Record<string, string>>,
  objects: ReferencedObjects,
): string | undefined {
  if (valueFrom === undefined) return expand(value ?? "", env);
  const { secretKeyRef, configMapKeyRef, fieldRef, resourceFieldRef } = valueFrom;
  if (fieldRef) return fieldValue(pod, fieldRef.fieldPath);
  if (resourceFieldRef) {
    const { resource, divisor, containerName } = resourceFieldRef;
    const named = pod.spec.containers.find(({ name }) => name === containerName);
    return resourceValue(named ?? container, resource, divisor);
  }
  if (secretKeyRef) {
    const name = secretKeyRef.name ?? "";
    const data = decoded(required(objects.secret(name), "secret", name, secretKeyRef.optional));
    return keyValue(pod, data, "Secret", secretKeyRef);
  }
  if (configMapKeyRef) {
    const name = configMapKeyRef.name ?? "";
    const data = required(objects.configMap(name), "configmap", name, configMapKeyRef.optional)?.data;
    return keyValue(pod, data, "ConfigMap", configMapKeyRef);
  }
  return "";
}

function required<T>(object: T | undefined, kind: string, name: string, optional: boolean | undefined): T | undefined {
  if (object === undefined && optional !== true) throw new EnvironmentError(`${kind} "${name}" not found`);
  return object;
}

function keyValue(
  pod: Pod,
  data: Record<string, string> | undefined,
  kind: "Secret" | "ConfigMap",
  ref: KeyRef,
): string | undefined {
  const value = data?.[ref.key];
  if (value !== undefined || ref.optional === true) return value;
  const where = `${pod.metadata.namespace ?? ""}/${ref.name ?? ""}`;
  throw new EnvironmentError(`couldn't find key ${ref.key} in ${kind} ${where}`);
}

function decoded(secret: Secret | undefined): Record<string, string> | undefined {
  if (secret === undefined) return undefined;
  const entries = Object.entries(secret.data ?? {});
  return Object.fromEntries(entries.map(([key, value]) => [key, Buffer.from(value, "base64").toString("utf8")]));
}

/** Returns a field of the Pod as text. @throws EnvironmentError if the kubelet doesn't know the path */
export function fieldValue(pod: Pod, path: string): string {
  const { metadata, spec, status } = pod;
  const keyed = /^metadata\.(labels|annotations)\['(.+)'\]$/.exec(path);
  if (keyed?.[2] !== undefined) {
    return (keyed[1] === "labels" ? metadata.labels : metadata.annotations)?.[keyed[2]] ?? "";
  }
  const fields: Record<string, string | undefined> = {
    "metadata.name": metadata.name,
    "metadata.namespace": metadata.namespace,
    "metadata.uid": metadata.uid,
    "spec.nodeName": spec.nodeName,
    "spec.serviceAccountName": spec.serviceAccountName ?? "default",
    "status.podIP": status?.podIP,
    "status.podIPs": status?.podIP,
    "status.hostIP": status?.hostIP,
    "status.hostIPs": status?.hostIP,
  };
  if (!(path in fields)) throw new EnvironmentError(`unsupported fieldPath: ${path}`);
  return fields[path] ?? "";
}

function resourceValue(container: Container, resource: string, divisor = "1"): string {
  const resources = (container["resources"] ?? {}) as Record<string, Record<string, string> | undefined>;
  const dot = resource.indexOf(".");
  const quantity = resources[resource.slice(0, dot)]?.[resource.slice(dot + 1)] ?? "0";
  const unit = divisor === "0" ? "1" : divisor;
  return String(Math.ceil(parseQuantity(quantity) / parseQuantity(unit)));
}
