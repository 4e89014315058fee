import type { Pod } from "../../src/kube/objects.ts";
import { fieldValue, type ReferencedObjects, type References } from "./environment.ts";

/** A file of a volume. */
export interface VolumeFile {
  readonly content: Buffer;
  readonly mode: number;
}

/** The files of a volume, by their path below its mount. */
export type VolumeFiles = ReadonlyMap<string, VolumeFile>;

/** API fields that src/kube/objects.ts doesn't declare because the operator doesn't use them. */
interface Item {
  key: string;
  path: string;
  mode?: number;
}
interface Source {
  name?: string;
  secretName?: string;
  optional?: boolean;
  items?: Item[];
  defaultMode?: number;
}
interface DownwardItem {
  path: string;
  fieldRef?: { fieldPath: string };
  mode?: number;
}
interface Volume {
  name: string;
  secret?: Source;
  configMap?: Source;
  downwardAPI?: { items?: DownwardItem[]; defaultMode?: number };
  projected?: { sources?: { secret?: Source; configMap?: Source }[]; defaultMode?: number };
}

/** A Secret or ConfigMap that provides files of a volume. */
interface Part {
  readonly kind: "secret" | "configMap";
  readonly source: Source;
  readonly defaultMode: number;
}

const DEFAULT_MODE = 0o644;

/** Whether the Pod has volumes with files. */
export function hasFiles(pod: Pod): boolean {
  return volumesOf(pod).some((volume) => volume.downwardAPI !== undefined || partsOf(volume).length > 0);
}

/** Returns the names of the Secrets and ConfigMaps whose keys are files of the Pod's volumes. */
export function fileReferences(pod: Pod): References {
  const parts = volumesOf(pod).flatMap(partsOf);
  const names = (kind: Part["kind"]) => [
    ...new Set(parts.filter((part) => part.kind === kind).map(({ source }) => nameOf(source))),
  ];
  return { secrets: names("secret"), configMaps: names("configMap") };
}

/**
 * Returns the current files of a Pod's volumes, by volume. Ignores volumes of other kinds. Returns undefined if
 * something required is missing, in which case the kubelet mounts none of the Pod's volumes. A missing optional object
 * has no files (pkg/volume/secret/secret.go, MakePayload).
 */
export function volumeFiles(pod: Pod, objects: ReferencedObjects): Map<string, VolumeFiles> | undefined {
  const volumes = new Map<string, VolumeFiles>();
  for (const volume of volumesOf(pod)) {
    const parts = partsOf(volume);
    const files = new Map(volume.downwardAPI && fieldsOf(pod, volume.downwardAPI));
    if (parts.length === 0 && !volume.downwardAPI) continue;
    for (const part of parts) {
      const found = filesOf(part, objects);
      if (!found) return undefined;
      for (const [path, file] of found) files.set(path, file);
    }
    volumes.set(volume.name, files);
  }
  return volumes;
}

/** The Pod's own fields as files, each without a line break. Fields of resources are not supported. */
function fieldsOf(pod: Pod, { items = [], defaultMode }: NonNullable<Volume["downwardAPI"]>): [string, VolumeFile][] {
  return items.flatMap(({ path, fieldRef, mode = defaultMode ?? DEFAULT_MODE }) =>
    fieldRef ? [[path, { content: Buffer.from(fieldValue(pod, fieldRef.fieldPath)), mode }]] : [],
  );
}

function filesOf({ kind, source, defaultMode }: Part, objects: ReferencedObjects): [string, VolumeFile][] | undefined {
  const data = dataOf(kind, source, objects);
  if (!data) return source.optional ? [] : undefined;
  const items = source.items ?? [...data.keys()].map((key) => ({ key, path: key }) as Item);
  const files: [string, VolumeFile][] = [];
  for (const { key, path, mode } of items) {
    const content = data.get(key);
    if (content) files.push([path, { content, mode: mode ?? defaultMode }]);
    else if (!source.optional) return undefined;
  }
  return files;
}

function dataOf(kind: Part["kind"], source: Source, objects: ReferencedObjects): Map<string, Buffer> | undefined {
  const name = nameOf(source);
  if (kind === "configMap") {
    const found = objects.configMap(name);
    return found && new Map(Object.entries(found.data ?? {}).map(([key, text]) => [key, Buffer.from(text)]));
  }
  const found = objects.secret(name);
  return found && new Map(Object.entries(found.data ?? {}).map(([key, text]) => [key, Buffer.from(text, "base64")]));
}

function partsOf({ secret, configMap, projected }: Volume): Part[] {
  const part = (kind: Part["kind"], source: Source | undefined, defaultMode = DEFAULT_MODE): Part[] =>
    source ? [{ kind, source, defaultMode }] : [];
  return [
    ...part("secret", secret, secret?.defaultMode),
    ...part("configMap", configMap, configMap?.defaultMode),
    ...(projected?.sources ?? []).flatMap((source) => [
      ...part("secret", source.secret, projected?.defaultMode),
      ...part("configMap", source.configMap, projected?.defaultMode),
    ]),
  ];
}

function volumesOf(pod: Pod): Volume[] {
  return (pod.spec.volumes ?? []) as unknown as Volume[];
}

function nameOf({ secretName, name }: Source): string {
  return secretName ?? name ?? "";
}
