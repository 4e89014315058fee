/** Minimal Environments, as specs and stored objects, and their parsed results. */
import { type Environment, parseEnvironment } from "../../src/api/environment.ts";

export type Json = Record<string, unknown>;

/** A minimal template, with `extra` fields in its Pod spec. */
export const podTemplate = (extra: Json = {}): Json => ({
  spec: { containers: [{ name: "worker", image: "worker:1" }], ...extra },
});

/** `spec` of a minimal sessions Environment, with `sessions` fields replaced or added. */
export const sessionsSpec = (sessions: Json = {}, spec: Json = {}): Json => ({
  environmentId: "env_1",
  api: { keySecretRef: { name: "key" } },
  sessions: { maxConcurrent: 5, template: podTemplate(), ...sessions },
  ...spec,
});

/** `spec` of a minimal workers Environment, with `workers` fields replaced or added. */
export const workersSpec = (workers: Json = {}, spec: Json = {}): Json => ({
  environmentId: "env_1",
  api: { keySecretRef: { name: "key" } },
  workers: { maxReplicas: 5, template: podTemplate(), ...workers },
  ...spec,
});

/** An Environment as the API server stores it. */
export const stored = (spec: Json, more: Json = {}): Json => ({
  apiVersion: "berth.dev/v1alpha1",
  kind: "Environment",
  metadata: {
    name: "research",
    namespace: "agents",
    uid: "5f0c3b8a-9c4e-4b0e-8b1f-2d9f7f6f0a11",
    generation: 1,
    resourceVersion: "17",
    creationTimestamp: "2026-01-02T03:04:05Z",
  },
  spec,
  ...more,
});

/** Returns the parsed Environment. @throws an error that lists the problems */
export function parsed(raw: Json): Environment {
  const result = parseEnvironment(raw);
  if (!result.ok) throw new Error(result.problems.join("\n"));
  return result.environment;
}

/** Returns the problems; empty if there are none. */
export function problems(raw: unknown): string[] {
  const result = parseEnvironment(raw);
  return result.ok ? [] : result.problems;
}
