import { describe, expect, test } from "vitest";
import type { KubeApiError } from "../../src/kube/errors.ts";
import type { Pod } from "../../src/kube/resource.ts";
import { newPodName } from "../../src/pods/pod-render.ts";
import type { CheckedTemplate } from "../../src/reconcile/environment-runtime.ts";
import { templateOf as templateOfEnvironment } from "../../src/reconcile/modes.ts";
import { checkTemplate } from "../../src/reconcile/template-check.ts";
import { parsed, sessionsSpec, stored } from "../api/environments.ts";
import { FakeKube, noAnswer, refusal } from "./fake-kube.ts";

const NAME = "berth-research-template";
const ABOUT = `create pods agents/${NAME}: `;

function templateOf(container: Record<string, unknown> = {}): CheckedTemplate {
  const template = { spec: { containers: [{ name: "worker", image: "worker:1", ...container }] } };
  return templateOfEnvironment(parsed(stored(sessionsSpec({ template }))));
}

const check = (kube: FakeKube, template = templateOf()) => checkTemplate(kube.client, "research", template, {});

/** The API server accepts the Pod, and admission may change it. */
const taken = (change: (pod: Pod) => void = () => {}) =>
  new FakeKube(({ body }) => {
    const pod = structuredClone(body) as Pod;
    change(pod);
    return pod;
  });

test("requests a dry run with strict validation, under a name that no real Pod gets", async () => {
  const kube = taken();
  expect(await check(kube)).toEqual({
    accepted: true,
    final: true,
    reason: "Accepted",
    message: "the API server takes Pods of the template",
  });
  expect(kube.calls).toMatchObject([
    { verb: "create", plural: "pods", ref: { name: NAME }, query: { dryRun: true, fieldValidation: "Strict" } },
  ]);
  // Real names end without vowels.
  expect(newPodName("research")).not.toMatch(/[aeiou][a-z]*$/);
});

test("the longest Environment name still gives a valid Pod name", async () => {
  const kube = taken();
  await checkTemplate(kube.client, `${"a".repeat(20)}.${"b".repeat(25)}`, templateOf(), {});
  expect(kube.calls[0]?.ref.name).toMatch(/^[a-z0-9-]{1,63}$/);
});

test.each<[string, () => Promise<{ reason: string; message: string }>]>([
  ["by the template", () => check(taken(), templateOf({ imagePullPolicy: "Always" }))],
  [
    "by admission (AlwaysPullImages)",
    () =>
      check(
        taken((pod) => {
          for (const container of pod.spec.containers) container.imagePullPolicy = "Always";
        }),
      ),
  ],
])("warns of imagePullPolicy Always, set %s", async (_how, checked) => {
  expect(await checked()).toMatchObject({
    accepted: true,
    reason: "AcceptedWithWarning",
    message: expect.stringContaining("IfNotPresent"),
  });
});

test("refuses mounts that don't fit the workspace permanently, without a request to the API server", async () => {
  const kube = new FakeKube();
  const mounts = { volumeMounts: [{ name: "berth-workspace", mountPath: "/seed" }] };
  expect(await check(kube, templateOf(mounts))).toEqual({
    accepted: false,
    final: true,
    reason: "Refused",
    message: expect.stringContaining("volumeMounts[0].name: there is no volume berth-workspace"),
  });
  expect(kube.calls).toEqual([]);
});

describe("the operator's own policy", () => {
  const privileged = templateOf({ securityContext: { privileged: true } });

  test("forbids a template permanently, without a request to the API server", async () => {
    const kube = new FakeKube();
    expect(await checkTemplate(kube.client, "research", privileged, {})).toEqual({
      accepted: false,
      final: true,
      reason: "TemplateForbidden",
      message:
        "the operator's policy for Pods does not allow spec.sessions.template.spec.containers[0].securityContext.privileged: leave it out, or have it allowed by the chart's value podPolicy.privileged=true (--allowed-in-templates privileged)",
    });
    expect(kube.calls).toEqual([]);
  });

  test("permits what it allows, and then checks with the API server", async () => {
    const kube = taken();
    expect(await checkTemplate(kube.client, "research", privileged, { privileged: ["*"] })).toMatchObject({
      reason: "Accepted",
    });
    expect(kube.calls).toHaveLength(1);
  });
});

describe("refusals", () => {
  // Error texts of a real API server, 1.36.
  test.each<[string, KubeApiError, string, string]>([
    [
      "a misspelt field",
      refusal(
        400,
        "BadRequest",
        `${ABOUT}Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "spec.containers[0].imagee"`,
      ),
      "Refused",
      'fix spec.sessions.template: unknown field "spec.containers[0].imagee"',
    ],
    [
      "an invalid value",
      refusal(
        422,
        "Invalid",
        `${ABOUT}Pod "${NAME}" is invalid: spec.containers[0].image: Invalid value: " x": must not have leading or trailing whitespace`,
      ),
      "Refused",
      'fix spec.sessions.template: spec.containers[0].image: Invalid value: " x": must not have leading or trailing whitespace',
    ],
    [
      "Pod Security",
      refusal(
        403,
        "Forbidden",
        `${ABOUT}pods "${NAME}" is forbidden: violates PodSecurity "restricted:latest": privileged (container "worker" must not set securityContext.privileged=true)`,
      ),
      "AdmissionRefused",
      'Pods of spec.sessions.template are refused by a policy of the cluster: violates PodSecurity "restricted:latest": privileged (container "worker" must not set securityContext.privileged=true); fix the template, or have the policy changed',
    ],
    [
      "a LimitRange",
      refusal(
        403,
        "Forbidden",
        `${ABOUT}pods "${NAME}" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi`,
      ),
      "AdmissionRefused",
      "Pods of spec.sessions.template are refused by a policy of the cluster: maximum memory usage per Container is 1Gi, but limit is 2Gi; fix the template, or have the policy changed",
    ],
    [
      "a ValidatingAdmissionPolicy, which answers as an invalid value does",
      refusal(
        422,
        "Invalid",
        `${ABOUT}pods "${NAME}" is forbidden: ValidatingAdmissionPolicy 'images' with binding 'images' denied request: use our registry`,
      ),
      "AdmissionRefused",
      "Pods of spec.sessions.template are refused by a policy of the cluster: ValidatingAdmissionPolicy 'images' with binding 'images' denied request: use our registry; fix the template, or have the policy changed",
    ],
    [
      "a webhook with a status of its own",
      refusal(400, "", `${ABOUT}admission webhook "policy.example.com" denied the request: no owner label`),
      "AdmissionRefused",
      'Pods of spec.sessions.template are refused by a policy of the cluster: admission webhook "policy.example.com" denied the request: no owner label; fix the template, or have the policy changed',
    ],
    [
      "a quota that wants requests to be set is a matter of the template",
      refusal(
        403,
        "Forbidden",
        `${ABOUT}pods "${NAME}" is forbidden: failed quota: tight: must specify cpu for: worker`,
      ),
      "AdmissionRefused",
      "Pods of spec.sessions.template are refused by a policy of the cluster: failed quota: tight: must specify cpu for: worker; fix the template, or have the policy changed",
    ],
    [
      "no permission to create Pods, which is no matter of the template",
      refusal(
        403,
        "Forbidden",
        `${ABOUT}pods is forbidden: User "op" cannot create resource "pods" in API group "" in the namespace "agents"`,
      ),
      "TemplateUnchecked",
      'the template could not be checked: give the operator permission to create Pods in namespace agents (User "op" cannot create resource "pods" in API group "" in the namespace "agents")',
    ],
    [
      "a namespace that is going",
      refusal(
        403,
        "Forbidden",
        `${ABOUT}pods "${NAME}" is forbidden: unable to create new content in namespace agents because it is being terminated`,
      ),
      "TemplateUnchecked",
      "unable to create new content in namespace agents because it is being terminated",
    ],
    [
      "a webhook that is down",
      refusal(500, "InternalError", `${ABOUT}Internal error occurred: failed calling webhook "policy.example.com"`),
      "TemplateUnchecked",
      'the template could not be checked yet, it is tried again: Internal error occurred: failed calling webhook "policy.example.com"',
    ],
  ])("%s", async (_what, error, reason, message) => {
    const kube = new FakeKube(() => error);
    const verdict = await check(kube);
    expect(verdict).toEqual({ accepted: false, final: false, reason, message });
    expect(await check(kube), "the same text on every try").toEqual(verdict);
  });

  test("reports a missing answer as unchecked, and retries", async () => {
    expect(await check(new FakeKube(() => noAnswer("create pods agents/x")))).toMatchObject({
      accepted: false,
      reason: "TemplateUnchecked",
      message: expect.stringContaining("ECONNREFUSED"),
    });
  });

  test("accepts the template if the quota is full", async () => {
    const words = `${ABOUT}pods "${NAME}" is forbidden: exceeded quota: tight, requested: pods=1, used: pods=9, limited: pods=9`;
    expect(await check(new FakeKube(() => refusal(403, "Forbidden", words)))).toMatchObject({
      accepted: true,
      reason: "Accepted",
    });
  });
});
