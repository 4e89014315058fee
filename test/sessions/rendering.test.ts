import { describe, expect, test } from "vitest";
import { hashOf } from "../../src/core/hash.ts";
import { RENDERING as SESSION_RENDERING, sessionTemplate } from "../../src/sessions/pod-render.ts";
import { RENDERING as WORKER_RENDERING, workerTemplate } from "../../src/workers/template.ts";
import { type Json, parsed, sessionsSpec, stored, workersSpec } from "../api/environments.ts";

/**
 * Digests of what is rendered around a template, by the number of the rendering. Pods are told apart by a hash of the
 * template and that number: when what is rendered changes and the number stays, parked Pods of two kinds count as one, and
 * Deployments are changed in place, which rolls busy workers. So raise the number, and write the new digest down here.
 */
const SESSION_POD: Readonly<Record<number, readonly string[]>> = {
  1: ["b17201c77687", "142fafa54e78", "dc43a99b1bfe", "17d3c68f7920", "37182038d9a2"],
};
const WORKER_DEPLOYMENT: Readonly<Record<number, readonly string[]>> = {
  1: ["0fdcc854b753", "1c3fbcc517cc"],
};

const TEMPLATE: Json = { spec: { containers: [{ name: "worker", image: "worker:1" }] } };
const WAYS: readonly Json[] = [
  {},
  { lease: "Operator" },
  { parking: "Init" },
  { parking: "Init", secretDelivery: "File" },
  { credential: "EnvironmentKey" },
];

/** What is rendered, without the hash that goes with the number. */
const digestOf = (object: unknown, hash: string) => hashOf(JSON.parse(JSON.stringify(object).replaceAll(hash, "HASH")));

describe("what is rendered around a template does not change under its number", () => {
  test("a session's Pod, in each way to park and to be given its work", () => {
    const digests = WAYS.map((way) => {
      const template = sessionTemplate(parsed(stored(sessionsSpec({ template: TEMPLATE, ...way }))));
      return digestOf(template.render("berth-research-bcdfghjk"), template.hash);
    });
    expect(digests).toEqual(SESSION_POD[SESSION_RENDERING]);
  });

  test("a worker's Deployment, with a busyProbe and without", () => {
    const digests = [{}, { busyProbe: { httpGet: { path: "/busy", port: 9000 } } }].map((probe) => {
      const template = workerTemplate(parsed(stored(workersSpec({ template: TEMPLATE, ...probe }))));
      return digestOf(template.deployment(1), template.hash);
    });
    expect(digests).toEqual(WORKER_DEPLOYMENT[WORKER_RENDERING]);
  });
});
