import { describe, expect, test } from "vitest";
import { hashOf } from "../../src/core/json.ts";
import { RENDERING as SESSION_RENDERING, sessionTemplate } from "../../src/pods/pod-render.ts";
import { RENDERING as WORKER_RENDERING, workerTemplate } from "../../src/workers/template.ts";
import { type Json, parsed, sessionsSpec, stored, workersSpec } from "../api/environments.ts";

/**
 * Digests of what is rendered around a template, by rendering number. Pods are distinguished by a hash of the template
 * and this number. If the rendering changes and the number does not, two kinds of parked Pods count as one, and
 * Deployments change in place, which rolls busy workers. So increase the number, and record the new digests here.
 */
const SESSION_POD: Readonly<Record<number, readonly string[]>> = {
  1: ["b17201c77687", "142fafa54e78", "dc43a99b1bfe", "17d3c68f7920", "37182038d9a2"],
  2: ["c683bd8a8653", "4d71ab7cc01a", "d22689cc24a7", "9ac37335fc85", "e600394ec343"],
  3: ["9e3c72c1228d", "2003d2a615ed", "208b6d29f2bb", "dca9d979bcc9", "36a16ec12a0b"],
  // Labels that only people read were added under the same number, which replaced no Pods.
  4: ["af14a06b33c7", "34a2dacb9dbb", "72a98247ae19", "f5ae217cf02d", "d3b1d93bc3a1", "ed763e3636e6"],
  // An annotation that nothing reads was removed under the same number.
  5: ["eff1df9c2c34", "cb3a35140417", "372e74eab38e", "abd6fadd133e", "faa0e362ef97", "0d3e108cac83"],
  6: ["6c34e108ed4c", "bbbb6ab6046e", "0874cddd053b", "2d2b89e966a2", "81536d4ca890"],
};
const WORKER_DEPLOYMENT: Readonly<Record<number, readonly string[]>> = {
  1: ["0fdcc854b753", "1c3fbcc517cc"],
  2: ["a391dd1b2fa4", "69b9b8a89107"],
  3: ["d1df23112aef", "be649706ce1a"],
  4: ["bc9a73a51e32", "a265abb580d3"],
  5: ["464a5dcd485c", "2d4aef355065"],
};

const TEMPLATE: Json = { spec: { containers: [{ name: "worker", image: "worker:1" }] } };
/** A container with a command waits in a shell, if parking is left out. */
const WITH_COMMAND: Json = { spec: { containers: [{ name: "worker", image: "worker:1", command: ["worker"] }] } };
const WAYS: readonly Json[] = [
  {},
  { lease: "Operator" },
  { parking: "Shell", template: WITH_COMMAND },
  { parking: "Program", template: WITH_COMMAND },
  { credential: "EnvironmentKey", template: WITH_COMMAND },
];

/** The rendered object without the hash, which depends on the number. */
const digestOf = (object: unknown, hash: string) => hashOf(JSON.parse(JSON.stringify(object).replaceAll(hash, "HASH")));

describe("what is rendered around a template changes only with the number", () => {
  test("for a session's Pod, in each way of parking", () => {
    const digests = WAYS.map((way) => {
      const template = sessionTemplate(parsed(stored(sessionsSpec({ template: TEMPLATE, ...way }))));
      return digestOf(template.render("berth-research-bcdfghjk"), template.hash);
    });
    expect(digests).toEqual(SESSION_POD[SESSION_RENDERING]);
  });

  test("for a worker's Deployment, with and without a busyProbe", () => {
    const digests = [{}, { busyProbe: { httpGet: { path: "/busy", port: 9000 } } }].map((probe) => {
      const template = workerTemplate(parsed(stored(workersSpec({ template: TEMPLATE, ...probe }))));
      return digestOf(template.deployment(1), template.hash);
    });
    expect(digests).toEqual(WORKER_DEPLOYMENT[WORKER_RENDERING]);
  });
});
