import { readFile } from "node:fs/promises";
import { parseDocument, visit } from "yaml";
import type { KubeObject } from "../src/kube/objects.ts";

/** A Pod per session, or always-on workers. */
export type Mode = "sessions" | "workers";

/** An Environment that people are meant to read: a manifest with a few holes. */
export interface Sample {
  /** Of the Environment in the manifest. */
  readonly name: string;
  readonly mode: Mode;
  readonly file: URL;
  /** Name of the Secret with its key. */
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

/** What the samples leave open. */
export interface SampleValues {
  readonly NAMESPACE: string;
  readonly ENVIRONMENT_ID: string;
  readonly WORK_API: string;
  readonly NODE: string;
  readonly WORKER: string;
  /** Most Pods, or most workers. */
  readonly MAX: number;
  /** Only where Pods are parked. */
  readonly WARM?: number;
}

/** A sample with its placeholders filled in. @throws {Error} one is unknown, or the text is no YAML. */
export async function fillSample({ file }: Sample, values: SampleValues): Promise<KubeObject> {
  return fillIn(await readFile(file, "utf8"), values);
}

/** Fills `${NAME}` in: a scalar that is nothing else takes the value's type, so that numbers stay numbers. */
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
      if (value === undefined) throw new Error(`the sample Environment names \${${name}}, which nobody fills in`);
      node.value = value;
    },
  });
  return document.toJS() as KubeObject;
}
