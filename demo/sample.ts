import { readFile } from "node:fs/promises";
import { parseDocument, visit } from "yaml";
import type { KubeObject } from "../src/kube/objects.ts";

/** What the sample Environment leaves open. */
export interface SampleValues {
  readonly NAMESPACE: string;
  readonly ENVIRONMENT_ID: string;
  readonly WORK_API: string;
  readonly NODE: string;
  readonly WORKER: string;
  readonly WARM: number;
  readonly MAX: number;
}

/** The sample that people are meant to read. */
export const SAMPLE_FILE = new URL("./environment.yaml", import.meta.url);

/** Name of the Environment in the sample, and of the Secret with its key. */
export const ENVIRONMENT_NAME = "demo";
export const KEY_SECRET_NAME = "demo-key";

/** The sample with its placeholders filled in. @throws {Error} one is unknown, or the text is no YAML. */
export async function sampleEnvironment(values: SampleValues): Promise<KubeObject> {
  return fillIn(await readFile(SAMPLE_FILE, "utf8"), values);
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
