import { readFile } from "node:fs/promises";
import { parseDocument, visit } from "yaml";
import type { KubeObject } from "../src/kube/objects.ts";

/** One Pod per session, or always-on workers. */
export type Mode = "sessions" | "workers";

/** A sample Environment for users to read: a manifest with a few placeholders. */
export interface Sample {
  /** The name of the Environment in the manifest. */
  readonly name: string;
  readonly mode: Mode;
  readonly file: URL;
  /** The name of the Secret with its key. */
  readonly keySecret: string;
}

export const RESEARCH: Sample = {
  name: "research",
  mode: "sessions",
  file: new URL("./environments/research.yaml", import.meta.url),
  keySecret: "research-key",
};

export const BATCH: Sample = {
  name: "batch",
  mode: "workers",
  file: new URL("./environments/batch.yaml", import.meta.url),
  keySecret: "batch-key",
};

/** The values of the placeholders. */
export interface SampleValues {
  readonly NAMESPACE: string;
  readonly ENVIRONMENT_ID: string;
  readonly WORK_API: string;
  readonly NODE: string;
  readonly WORKER: string;
  /** The maximum number of Pods or workers. */
  readonly MAX: number;
  /** Only for samples that park Pods. */
  readonly WARM?: number;
  readonly PARKING?: string;
}

/**
 * Fills in the placeholders of a sample.
 * @throws {Error} a placeholder is unknown, or the text is not YAML
 */
export async function fillSample({ file }: Sample, values: SampleValues): Promise<KubeObject> {
  return fillIn(await readFile(file, "utf8"), values);
}

/** Fills in `${NAME}`. A scalar that is only a placeholder takes the value's type, so numbers stay numbers. */
export function fillIn(yaml: string, values: SampleValues): KubeObject {
  const document = parseDocument(yaml);
  const [error] = document.errors;
  if (error) throw error;
  const known = new Map<string, string | number>(Object.entries(values));
  visit(document, {
    Scalar(_key, node) {
      const [, name] = /^\$\{(\w+)\}$/.exec(String(node.value)) ?? [];
      if (name === undefined) return;
      const value = known.get(name);
      if (value === undefined) throw new Error(`the sample Environment has an unknown placeholder: \${${name}}`);
      node.value = value;
    },
  });
  return document.toJS() as KubeObject;
}
