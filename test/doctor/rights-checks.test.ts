import { describe, expect, test } from "vitest";
import type { InstalledOperator, OperatorSettings } from "../../src/doctor/operators.ts";
import { checkRights } from "../../src/doctor/rights-checks.ts";
import type { KubeClient } from "../../src/kube/client.ts";

/** The fields of a SubjectAccessReview that name a right. */
interface Reviewed {
  readonly verb: string;
  readonly resource: string;
  readonly subresource?: string;
  readonly namespace?: string;
}

/**
 * Checks the rights of an operator of two namespaces that lacks some, such as `get pods/log in agents`.
 */
function check(...lacking: readonly string[]) {
  const raw = async (_method: string, _path: string, review: { spec: { resourceAttributes: Reviewed } }) => {
    const { verb, resource, subresource, namespace } = review.spec.resourceAttributes;
    const right = `${verb} ${resource}${subresource === undefined ? "" : `/${subresource}`}`;
    return { status: { allowed: !lacking.some((each) => each === right || each === `${right} in ${namespace}`) } };
  };
  const operator = {
    namespace: "berth-system",
    deployment: { metadata: { name: "berth-operator" } },
    serviceAccount: "berth-operator",
    settings: { namespaces: ["agents", "batch"], leases: { elected: true } } as unknown as OperatorSettings,
  } as unknown as InstalledOperator;
  return checkRights({ raw } as unknown as KubeClient, operator);
}

describe("the rights of an operator", () => {
  test("pass if it has all of them", async () => {
    expect(await check()).toMatchObject({ check: "operator-rights", status: "pass" });
  });

  test("cause a warning with the effect and the value to set if it may not attach", async () => {
    expect(await check("create pods/attach in batch")).toMatchObject({
      status: "warn",
      message:
        "service account berth-system/berth-operator may not create pods/attach in namespace batch: Pods cannot wait in a shell or in their program, so Environments that do not set parking use Key",
      fix: "Set the chart's rbac.attach=true, unless this is intended.",
    });
  });

  test("cause a warning if it may attach but not read logs", async () => {
    expect(await check("get pods/log in agents")).toMatchObject({
      status: "warn",
      message: expect.stringMatching(/may not get pods\/log in namespace agents: after a lost connection/),
      fix: "Set the chart's rbac.attach=true, unless this is intended.",
    });
  });

  test("cause a warning if it may not add turns to Pods", async () => {
    expect(await check("patch pods/ephemeralcontainers in batch")).toMatchObject({
      status: "warn",
      message:
        "service account berth-system/berth-operator may not patch pods/ephemeralcontainers in namespace batch: sessions cannot sleep there, so each work item gets a new Pod",
      fix: "Set the chart's rbac.ephemeralContainers=true, unless this is intended.",
    });
  });

  test("cause one warning for all optional rights", async () => {
    expect(await check("get pods/attach in agents", "list nodes")).toMatchObject({
      status: "warn",
      message: expect.stringMatching(
        /Environments that do not set parking use Key; it also may not list nodes: Berth may claim Pods on/,
      ),
      fix: "Set the chart's rbac.attach=true and features.nodes=true, unless this is intended.",
    });
  });

  test("fail if it lacks another one", async () => {
    expect(await check("get pods/attach", "patch pods in batch")).toMatchObject({
      status: "fail",
      message: "service account berth-system/berth-operator may not patch pods in namespace batch",
    });
  });
});
