import { describe, expect, test } from "vitest";
import type { CheckResult } from "../../src/doctor/checks.ts";
import { checkRuntimeClass } from "../../src/doctor/runtime-class-check.ts";
import type { KubeClient } from "../../src/kube/client.ts";
import { KubeApiError } from "../../src/kube/errors.ts";
import { type Json, parsed, podTemplate, sessionsSpec, stored } from "../api/environments.ts";

const FORBIDDEN = new KubeApiError("forbidden", { status: 403, reason: "Forbidden" });
const NOT_FOUND = new KubeApiError("not found", { status: 404, reason: "NotFound" });
const CLASS = { metadata: { name: "gvisor" }, handler: "runsc" };
const LABELED = { ...CLASS, scheduling: { nodeSelector: { runtime: "gvisor" } } };
const TAINT = { key: "sandbox", value: "gvisor", effect: "NoSchedule" };

const node = (name: string, handlers: readonly string[] | null, spec: Json = {}, labels: Json = {}): Json => ({
  metadata: { name, labels },
  spec,
  status: handlers === null ? {} : { runtimeHandlers: handlers.map((handler) => ({ name: handler })) },
});

/** Checks an Environment with isolation gVisor in a cluster with this RuntimeClass and these nodes, or their errors. */
function check(
  found: Json | Error,
  nodes: readonly Json[] | Error,
  spec: Json = sessionsSpec({ isolation: "gVisor" }),
): Promise<CheckResult> {
  const answer = <T>(value: T | Error): T => {
    if (value instanceof Error) throw value;
    return value;
  };
  const kube = { get: async () => answer(found), listAll: async () => ({ items: answer(nodes) }) };
  return checkRuntimeClass(kube as unknown as KubeClient, parsed(stored(spec)));
}

test("Pods without a RuntimeClass need no check", async () => {
  const result = await check(NOT_FOUND, FORBIDDEN, sessionsSpec());
  expect(result).toMatchObject({ status: "pass", message: "Pods use the default runtime of their node" });
});

test("a RuntimeClass that does not exist is left to the conditions", async () => {
  expect(await check(NOT_FOUND, [])).toMatchObject({
    status: "skip",
    message: "not checked: needs RuntimeClass gvisor",
  });
});

describe("the nodes of a RuntimeClass", () => {
  const runsc = node("a", ["", "runsc"]);
  const plain = node("b", ["", "runc"]);

  test.each<[string, Json, readonly Json[], CheckResult["status"], string]>([
    ["all have its handler", CLASS, [runsc], "pass", "RuntimeClass gvisor (handler runsc) fits 1 node"],
    ["some lack it", CLASS, [runsc, plain], "warn", "1 of 2 nodes for RuntimeClass gvisor lack its handler runsc: b"],
    ["all lack it", CLASS, [plain], "fail", "1 of 1 nodes for RuntimeClass gvisor lack its handler runsc: b"],
    [
      "do not report their handlers",
      CLASS,
      [runsc, node("c", null)],
      "pass",
      "fits 2 nodes, of which 1 do not report their handlers",
    ],
    [
      "are those with its labels",
      LABELED,
      [node("a", ["runsc"], {}, { runtime: "gvisor" }), plain],
      "pass",
      "fits 1 node",
    ],
    ["are none with its labels", LABELED, [plain], "warn", "no node fits RuntimeClass gvisor"],
    ["exclude cordoned ones", CLASS, [runsc, node("c", ["runc"], { unschedulable: true })], "pass", "fits 1 node"],
    ["exclude tainted ones", CLASS, [runsc, node("c", ["runc"], { taints: [TAINT] })], "pass", "fits 1 node"],
    [
      "include those whose taint it tolerates",
      { ...CLASS, scheduling: { tolerations: [{ key: "sandbox", operator: "Exists" }] } },
      [node("c", ["runc"], { taints: [TAINT] })],
      "fail",
      "1 of 1 nodes",
    ],
    [
      "include those that the scheduler only avoids",
      CLASS,
      [node("c", ["runc"], { taints: [{ ...TAINT, effect: "PreferNoSchedule" }] })],
      "fail",
      "1 of 1 nodes",
    ],
  ])("%s", async (_what, found, nodes, status, words) => {
    const result = await check(found, nodes);
    expect(result).toMatchObject({ status, message: expect.stringContaining(words) });
    expect(result.fix === null).toBe(status === "pass");
  });

  test("also fit the template's selector and tolerations", async () => {
    const template = podTemplate({ nodeSelector: { pool: "agents" }, tolerations: [{ key: "pool", value: "agents" }] });
    const spec = sessionsSpec({ isolation: "gVisor", template });
    const taints = [{ key: "pool", value: "agents", effect: "NoSchedule" }];
    const nodes = [node("a", ["runsc"], { taints }, { pool: "agents" }), node("b", ["runc"])];
    expect(await check(CLASS, nodes, spec)).toMatchObject({
      status: "pass",
      message: expect.stringMatching(/1 node$/),
    });
  });

  test("are not checked without the right to read them", async () => {
    expect(await check(CLASS, FORBIDDEN)).toMatchObject({ status: "skip", message: "not checked: needs list nodes" });
    expect(await check(FORBIDDEN, [])).toMatchObject({
      status: "skip",
      message: "not checked: needs get runtimeclasses gvisor",
    });
  });
});
