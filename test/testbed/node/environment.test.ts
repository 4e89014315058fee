import { describe, expect, test } from "vitest";
import type { Container } from "../../../src/kube/objects.ts";
import { expand, referencesOf, resolveEnvironment } from "../../../testbed/node/environment.ts";
import { boundPod } from "./pod-bench.ts";

const base64 = (data: Record<string, string>) =>
  Object.fromEntries(Object.entries(data).map(([key, value]) => [key, Buffer.from(value).toString("base64")]));

const SECRETS: Record<string, Record<string, string>> = { creds: { token: "t0p", url: "http://a" } };
const CONFIG_MAPS: Record<string, Record<string, string>> = { settings: { level: "debug" } };
const objects = {
  secret: (name: string) => (SECRETS[name] ? { metadata: { name }, data: base64(SECRETS[name]) } : undefined),
  configMap: (name: string) => (CONFIG_MAPS[name] ? { metadata: { name }, data: CONFIG_MAPS[name] } : undefined),
};

function resolve(shape: Record<string, unknown>): Record<string, string> {
  const other = { name: "other", resources: { limits: { cpu: "3" } } };
  const pod = boundPod({ containers: [shape as Partial<Container>, other] });
  pod.metadata.labels = { app: "x" };
  const [container] = pod.spec.containers;
  if (!container) throw new Error("no container");
  return resolveEnvironment(pod, container, objects);
}

const secretKey = (name: string, key: string, optional?: boolean) => ({
  env: [{ name: "V", valueFrom: { secretKeyRef: { name, key, ...(optional === undefined ? {} : { optional }) } } }],
});
const configKey = (name: string, key: string) => ({
  env: [{ name: "V", valueFrom: { configMapKeyRef: { name, key } } }],
});

describe("an environment", () => {
  test.each<[string, Record<string, unknown>, Record<string, string>]>([
    ["plain values", { env: [{ name: "A", value: "1" }, { name: "B" }] }, { A: "1", B: "" }],
    ["a key of a Secret", secretKey("creds", "token"), { V: "t0p" }],
    ["a key of a ConfigMap", configKey("settings", "level"), { V: "debug" }],
    ["a whole Secret", { envFrom: [{ secretRef: { name: "creds" } }] }, { token: "t0p", url: "http://a" }],
    [
      "a whole ConfigMap with a prefix",
      { envFrom: [{ prefix: "P_", configMapRef: { name: "settings" } }] },
      { P_level: "debug" },
    ],
    [
      "fields of the Pod",
      { env: [{ name: "N", valueFrom: { fieldRef: { fieldPath: "metadata.name" } } }] },
      { N: "work-1" },
    ],
    ["a label", { env: [{ name: "L", valueFrom: { fieldRef: { fieldPath: "metadata.labels['app']" } } }] }, { L: "x" }],
    [
      "a limit, in whole units of the divisor",
      {
        resources: { limits: { memory: "1500Ki" } },
        env: [{ name: "M", valueFrom: { resourceFieldRef: { resource: "limits.memory", divisor: "1Mi" } } }],
      },
      { M: "2" },
    ],
    [
      "a limit of another container",
      { env: [{ name: "M", valueFrom: { resourceFieldRef: { resource: "limits.cpu", containerName: "other" } } }] },
      { M: "3" },
    ],
    [
      "env values before envFrom values",
      { envFrom: [{ secretRef: { name: "creds" } }], env: [{ name: "token", value: "mine" }] },
      { token: "mine", url: "http://a" },
    ],
    [
      "earlier values in later ones",
      {
        env: [
          { name: "A", value: "1" },
          { name: "B", value: "$(A)$(C)" },
          { name: "C", value: "3" },
        ],
      },
      { A: "1", B: "1$(C)", C: "3" },
    ],
    ["nothing if an optional Secret is missing", secretKey("none", "x", true), {}],
    ["nothing if an optional key is missing", secretKey("creds", "x", true), {}],
    ["nothing of a missing optional Secret", { envFrom: [{ secretRef: { name: "none", optional: true } }] }, {}],
  ])("contains %s", (_what, shape, env) => {
    expect(resolve(shape)).toEqual(env);
  });

  test.each<[string, Record<string, unknown>, string]>([
    ["a missing Secret", secretKey("none", "x"), 'secret "none" not found'],
    ["a missing key", secretKey("creds", "x"), "couldn't find key x in Secret tb/creds"],
    ["a missing ConfigMap", configKey("none", "x"), 'configmap "none" not found'],
    ["a missing key of a ConfigMap", configKey("settings", "x"), "couldn't find key x in ConfigMap tb/settings"],
    ["a missing whole Secret", { envFrom: [{ secretRef: { name: "none" } }] }, 'secret "none" not found'],
    [
      "a field that the kubelet doesn't know",
      { env: [{ name: "F", valueFrom: { fieldRef: { fieldPath: "spec.x" } } }] },
      "unsupported fieldPath: spec.x",
    ],
  ])("is rejected with the kubelet's message for %s", (_what, shape, message) => {
    expect(() => resolve(shape)).toThrow(new Error(message));
  });

  test("lists every object that it uses once, optional or not", () => {
    const shape = {
      name: "c",
      envFrom: [{ secretRef: { name: "a" } }, { configMapRef: { name: "m" } }],
      env: [...secretKey("a", "k").env, ...secretKey("b", "k", true).env, ...configKey("n", "k").env],
    } as Container;
    expect(referencesOf(shape)).toEqual({ secrets: ["a", "b"], configMaps: ["m", "n"] });
  });
});

test.each([
  ["$(A)", "1"],
  ["$(A)$(A)", "11"],
  ["$$(A)", "$(A)"],
  ["$$$(A)", "$1"],
  ["$(NONE)", "$(NONE)"],
  ["$A (A) $", "$A (A) $"],
  ["$(A", "$(A"],
])("%s expands to %s", (text, expanded) => {
  expect(expand(text, { A: "1" })).toBe(expanded);
});
