import { describe, expect, test } from "vitest";
import type { KubeApiError } from "../../src/kube/errors.ts";
import type { Pod } from "../../src/kube/resource.ts";
import { newPodName } from "../../src/pods/pod-render.ts";
import type { CheckedTemplate } from "../../src/reconcile/environment-runtime.ts";
import { templateOf as templateOfEnvironment } from "../../src/reconcile/modes.ts";
import { checkTemplate } from "../../src/reconcile/template-check.ts";
import { parsed, sessionsSpec, stored } from "../api/environments.ts";
import { type Answer, FakeKube, noAnswer, refusal } from "./fake-kube.ts";

const NAME = "berth-research-template";
const ABOUT = `create pods agents/${NAME}: `;

function templateOf(container: Record<string, unknown> = {}, pod: Record<string, unknown> = {}): CheckedTemplate {
  const template = { spec: { containers: [{ name: "worker", image: "worker:1", ...container }], ...pod } };
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
    message: "the API server accepts Pods of the template",
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

describe("limits alone, which each waiting or sleeping Pod reserves,", () => {
  const messageFor = async (resources: Record<string, unknown>, pod: Record<string, unknown> = {}) => {
    const { accepted, reason, message } = await check(taken(), templateOf({ resources }, pod));
    expect([accepted, reason]).toEqual([true, message.startsWith("spec.") ? "AcceptedWithWarning" : "Accepted"]);
    return message;
  };

  test("are named with their amounts", async () => {
    expect(await messageFor({ limits: { memory: "2Gi", cpu: 4, "example.com/gpu": 1 } })).toBe(
      "spec.sessions.template.spec.containers[0].resources.requests: each waiting or sleeping Pod reserves 4 of cpu and 2Gi of memory, because Kubernetes takes a limit without a request as the request; set requests for what an idle Pod needs",
    );
    expect(await messageFor({ limits: { memory: "2Gi" }, requests: { cpu: "100m" } })).toContain(
      "reserves 2Gi of memory",
    );
  });

  test.each([
    ["beside requests", { limits: { memory: "2Gi" }, requests: { memory: "2Gi" } }, {}],
    ["of a device", { limits: { "example.com/gpu": 1 } }, {}],
    [
      "if the Pod states its own resources",
      { limits: { memory: "2Gi" } },
      { resources: { requests: { memory: "1Gi" } } },
    ],
  ])("are fine %s", async (_, resources, pod) => {
    expect(await messageFor(resources, pod)).toBe("the API server accepts Pods of the template");
  });
});

test("refuses mounts that don't fit the workspace permanently", async () => {
  const kube = taken();
  const mounts = { volumeMounts: [{ name: "berth-workspace", mountPath: "/seed" }] };
  expect(await check(kube, templateOf(mounts))).toEqual({
    accepted: false,
    final: true,
    reason: "Refused",
    message: expect.stringContaining("volumeMounts[0].name: there is no volume berth-workspace"),
  });
});

describe("the operator's own policy", () => {
  const privileged = templateOf({ securityContext: { privileged: true } });

  const FORBIDDEN =
    "spec.sessions.template.spec.containers[0].securityContext.privileged: not allowed (podPolicy.privileged=false); remove it, or set the chart's podPolicy.privileged=true (--allowed-in-templates privileged)";

  test.each<[string, Answer]>([
    ["accepts", ({ body }) => body],
    ["does not check", () => noAnswer("create pods agents/x")],
    ["refuses by a policy", () => refusal(403, "Forbidden", `${ABOUT}pods is forbidden: violates PodSecurity`)],
  ])("forbids a template permanently, also one that the API server %s", async (_what, answer) => {
    const kube = new FakeKube(answer);
    expect(await checkTemplate(kube.client, "research", privileged, {})).toEqual({
      accepted: false,
      final: true,
      reason: "TemplateForbidden",
      message: FORBIDDEN,
    });
  });

  test("names what it forbids together with what the API server refuses", async () => {
    const words = `${ABOUT}Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "spec.nodeSelectr"`;
    const kube = new FakeKube(({ body }) =>
      "nodeSelectr" in (body as Pod).spec ? refusal(400, "BadRequest", words) : body,
    );
    const template = templateOf({ securityContext: { privileged: true } }, { nodeSelectr: {} });
    expect(await checkTemplate(kube.client, "research", template, {})).toMatchObject({
      reason: "TemplateForbidden",
      message: `2 problems: (1) ${FORBIDDEN} (2) spec.sessions.template.spec.nodeSelectr: unknown field; correct its name, or remove it`,
    });
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
      "spec.sessions.template.spec.containers[0].imagee: unknown field; correct its name, or remove it",
    ],
    [
      "an invalid value",
      refusal(
        422,
        "Invalid",
        `${ABOUT}Pod "${NAME}" is invalid: spec.containers[0].image: Invalid value: " x": must not have leading or trailing whitespace`,
        [
          {
            field: "spec.containers[0].image",
            message: 'Invalid value: " x": must not have leading or trailing whitespace',
          },
        ],
      ),
      "Refused",
      'spec.sessions.template.spec.containers[0].image: Invalid value: " x": must not have leading or trailing whitespace',
    ],
    [
      "Pod Security",
      refusal(
        403,
        "Forbidden",
        `${ABOUT}pods "${NAME}" is forbidden: violates PodSecurity "restricted:latest": privileged (container "worker" must not set securityContext.privileged=true)`,
      ),
      "AdmissionRefused",
      `spec.sessions.template: a policy of the cluster refuses its Pods: violates PodSecurity "restricted:latest": privileged (container "worker" must not set securityContext.privileged=true); change the template, or ask the cluster's administrator to change the policy`,
    ],
    [
      "a LimitRange",
      refusal(
        403,
        "Forbidden",
        `${ABOUT}pods "${NAME}" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi`,
      ),
      "AdmissionRefused",
      "spec.sessions.template: a policy of the cluster refuses its Pods: maximum memory usage per Container is 1Gi, but limit is 2Gi; change the template, or ask the cluster's administrator to change the policy",
    ],
    [
      "a ValidatingAdmissionPolicy, which answers as an invalid value does",
      refusal(
        422,
        "Invalid",
        `${ABOUT}pods "${NAME}" is forbidden: ValidatingAdmissionPolicy 'images' with binding 'images' denied request: use our registry`,
      ),
      "AdmissionRefused",
      "spec.sessions.template: a policy of the cluster refuses its Pods: ValidatingAdmissionPolicy 'images' with binding 'images' denied request: use our registry; change the template, or ask the cluster's administrator to change the policy",
    ],
    [
      "a webhook with its own status",
      refusal(400, "", `${ABOUT}admission webhook "policy.example.com" denied the request: no owner label`),
      "AdmissionRefused",
      `spec.sessions.template: a policy of the cluster refuses its Pods: admission webhook "policy.example.com" denied the request: no owner label; change the template, or ask the cluster's administrator to change the policy`,
    ],
    [
      "a quota that wants requests to be set is a matter of the template",
      refusal(
        403,
        "Forbidden",
        `${ABOUT}pods "${NAME}" is forbidden: failed quota: tight: must specify cpu for: worker`,
      ),
      "AdmissionRefused",
      "spec.sessions.template: a policy of the cluster refuses its Pods: failed quota: tight: must specify cpu for: worker; change the template, or ask the cluster's administrator to change the policy",
    ],
    [
      "no permission to create Pods, which is no matter of the template",
      refusal(
        403,
        "Forbidden",
        `${ABOUT}pods is forbidden: User "op" cannot create resource "pods" in API group "" in the namespace "agents"`,
      ),
      "TemplateUnchecked",
      'spec.sessions.template: not checked: User "op" cannot create resource "pods" in API group "" in the namespace "agents"; give the operator permission to create Pods in namespace agents',
    ],
    [
      "a namespace that is going",
      refusal(
        403,
        "Forbidden",
        `${ABOUT}pods "${NAME}" is forbidden: unable to create new content in namespace agents because it is being terminated`,
      ),
      "TemplateUnchecked",
      "spec.sessions.template: not checked: unable to create new content in namespace agents because it is being terminated",
    ],
    [
      "a webhook that is down",
      refusal(500, "InternalError", `${ABOUT}Internal error occurred: failed calling webhook "policy.example.com"`),
      "TemplateUnchecked",
      'spec.sessions.template: not checked yet: Internal error occurred: failed calling webhook "policy.example.com"; Berth tries again',
    ],
  ])("%s", async (_what, error, reason, message) => {
    const kube = new FakeKube(() => error);
    const verdict = await check(kube);
    expect(verdict).toEqual({ accepted: false, final: false, reason, message });
    expect(await check(kube), "the same text on every try").toEqual(verdict);
  });

  test.each<[string, Record<string, unknown>, Record<string, unknown>, string]>([
    [
      "of isolation",
      { isolation: "gVisor" },
      {},
      "spec.sessions.isolation: the cluster has no RuntimeClass gvisor; create it, or set the chart's runtimeClasses.gVisor to one that exists (--runtime-classes)",
    ],
    [
      "of the template",
      {},
      { runtimeClassName: "gvisor" },
      "spec.sessions.template.spec.runtimeClassName: the cluster has no RuntimeClass gvisor; create it, or correct the name",
    ],
  ])("names the field of a RuntimeClass %s that does not exist", async (_what, sessions, pod, message) => {
    const template = { spec: { containers: [{ name: "worker", image: "worker:1" }], ...pod } };
    const checked = templateOfEnvironment(parsed(stored(sessionsSpec({ ...sessions, template }))));
    const words = `${ABOUT}pods "${NAME}" is forbidden: pod rejected: RuntimeClass "gvisor" not found`;
    const allowing = { runtimeClasses: ["gvisor"] };
    const kube = new FakeKube(() => refusal(403, "Forbidden", words));
    expect(await checkTemplate(kube.client, "research", checked, allowing)).toEqual({
      accepted: false,
      final: false,
      reason: "AdmissionRefused",
      message,
    });
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

describe("a template with several problems", () => {
  const QUANTITY = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
  const decoding = (words: string) =>
    refusal(400, "BadRequest", `${ABOUT}Pod in version "v1" cannot be handled as a Pod: ${words}`);

  /** The order in which API server 1.36 checks a Pod: it names problems of one kind at a time. */
  const strict: Answer = ({ body }) => {
    const { spec } = body as Pod & { spec: { nodeSelectr?: unknown; terminationGracePeriodSeconds?: unknown } };
    const [worker = { name: "" }] = spec.containers;
    if (JSON.stringify(spec).includes("2gb")) return decoding(QUANTITY);
    if (typeof spec.terminationGracePeriodSeconds === "string") {
      return decoding(
        "json: cannot unmarshal string into Go struct field PodSpec.spec.terminationGracePeriodSeconds of type int64",
      );
    }
    if (worker["tty"] === "yes") {
      return decoding("json: cannot unmarshal string into Go struct field Container.spec.containers.tty of type bool");
    }
    const unknown = [
      ...("imagee" in worker ? ['unknown field "spec.containers[0].imagee"'] : []),
      ...("nodeSelectr" in spec ? ['unknown field "spec.nodeSelectr"'] : []),
    ];
    if (unknown.length > 0) return decoding(`strict decoding error: ${unknown.join(", ")}`);
    return refusal(422, "Invalid", `${ABOUT}Pod "${NAME}" is invalid: ...`, [
      { field: "spec.containers[0].image", message: "Required value" },
      // The rendered Pod has two variables of Berth's own before the template's.
      { field: "spec.containers[0].env[2].name", message: 'Invalid value: "a=b": must not contain =' },
      { field: "spec.containers[0].tty", message: "Required value" },
      { field: "spec.volumes[0].emptyDir", message: "Invalid value: of Berth" },
    ]);
  };
  const template = templateOf(
    {
      image: undefined,
      imagee: "worker:1",
      tty: "yes",
      args: "--verbose",
      env: [{ name: "a=b", value: "1" }],
      resources: { limits: { memory: "2gb", cpu: "500m", "example.com/gpu": 1 } },
    },
    { nodeSelectr: { pool: "a" } },
  );

  test("is refused with the path and the value of each", async () => {
    const kube = new FakeKube(strict);
    const verdict = await check(kube, template);
    const path = "spec.sessions.template.spec";
    expect(verdict).toMatchObject({ accepted: false, reason: "Refused" });
    expect(verdict.message.split(/ (?=\(\d\) )/)).toEqual([
      "8 problems:",
      `(1) ${path}.containers[0].args: a string has the wrong type; write a list`,
      `(2) ${path}.containers[0].resources.limits.memory: invalid quantity "2gb"; use for example 2Gi`,
      `(3) ${path}.containers[0].tty: "yes" has the wrong type; write true or false, without quotes`,
      `(4) ${path}.containers[0].imagee: unknown field; correct its name, or remove it`,
      `(5) ${path}.nodeSelectr: unknown field; correct its name, or remove it`,
      `(6) ${path}.containers[0].image: is required; set it`,
      `(7) ${path}.containers[0].env[0].name: Invalid value: "a=b": must not contain =`,
      "(8) spec.sessions.template: field spec.volumes[0].emptyDir of its Pod: Invalid value: of Berth",
    ]);
    expect(await check(new FakeKube(strict), template), "the same text on every try").toEqual(verdict);
  });

  test("also names the policy of the cluster that refuses the rest", async () => {
    const kube = new FakeKube((call) => {
      const error = strict(call) as KubeApiError;
      return error.status === 422
        ? refusal(403, "Forbidden", `${ABOUT}pods "${NAME}" is forbidden: use our registry`)
        : error;
    });
    expect((await check(kube, templateOf({}, { nodeSelectr: {} }))).message).toBe(
      "2 problems: (1) spec.sessions.template.spec.nodeSelectr: unknown field; correct its name, or remove it (2) spec.sessions.template: a policy of the cluster refuses its Pods: use our registry; change the template, or ask the cluster's administrator to change the policy",
    );
  });

  test("does not make dry runs without end", async () => {
    let at = 0;
    const fields = Object.fromEntries(Array.from({ length: 100 }, (_, index) => [`field${index}`, 1]));
    const kube = new FakeKube(() => decoding(`strict decoding error: unknown field "spec.field${at++}"`));
    await check(kube, templateOf({}, fields));
    expect(kube.calls).toHaveLength(10);
  });

  test("does not ask again about a field that it cannot find", async () => {
    const kube = new FakeKube(() => decoding("json: cannot unmarshal array into Go value of type core.Pod"));
    expect((await check(kube)).message).toBe(
      "spec.sessions.template: the API server refuses its Pods: json: cannot unmarshal array into Go value of type core.Pod; correct it",
    );
    expect(kube.calls).toHaveLength(1);
  });
});
