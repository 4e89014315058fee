import { type Simulator, startSimulator } from "../../simulator/simulator.ts";
import type { ConditionReason } from "../../src/api/condition-reasons.ts";
import type { ConditionStatus, ConditionType } from "../../src/api/condition-types.ts";
import { NAMESPACES, NODES, type Resource, SECRETS } from "../../src/kube/resource.ts";
import { ENVIRONMENTS } from "../../src/reconcile/finalizer.ts";
import type { FateInput } from "../../testbed/node/node.ts";
import type { TestCluster } from "../support/cluster.ts";
import type { InProcessOperator, World, WorldOptions } from "../support/world.ts";
import { type Lack, limitedUser, limitOperator, unlimitOperator } from "./limited-operator.ts";

/** What a user sees of a fault. */
export interface Shown {
  readonly type: ConditionType;
  readonly status: ConditionStatus;
  readonly reason: ConditionReason;
  /** Texts that the message must contain: the error, its place, and the fix. */
  readonly words: readonly (string | RegExp)[];
}

/** The kind of the operator's tries that shows that it continues while the fault lasts. */
export type Tries =
  | "key"
  | "template"
  | "poll"
  | "stats"
  | "create"
  | "recovery"
  | "journal"
  | "policy"
  | "ack"
  | "stop"
  | "pod-deletion"
  | "secret-deletion";

/**
 * One fault, how it is reported, and how a user fixes it. Everything is real except the Work API and the node. The
 * tests check each against the conditions, and docs/troubleshooting quotes their messages.
 */
export interface Fault {
  /** Used in test names and in the mark of a recorded text. */
  readonly name: string;
  readonly world?: WorldOptions;
  /** Fields that override those of a plain spec. */
  readonly spec?: (world: World) => Record<string, unknown>;
  /** The permission that the operator lacks until the fix. */
  readonly lack?: Lack;
  /** Extra flags of the operator. */
  readonly flags?: readonly string[];
  /** Runs before the Environment is created. */
  readonly before?: (world: World) => Promise<unknown> | unknown;
  /** Runs once the Environment is Ready. Without it, the fault exists from the start. */
  readonly later?: (world: World) => Promise<unknown> | unknown;
  readonly shows: Shown;
  /** Status and reason of Ready, if they differ from those of the condition. */
  readonly ready?: { readonly status: ConditionStatus; readonly reason: ConditionReason };
  readonly tries: Tries;
  /** Whether tries also write objects, so that only conditions and Events stay unchanged. */
  readonly restless?: boolean;
  /** Whether Events may repeat, since each is about another item. */
  readonly eventPerItem?: boolean;
  readonly fix: (world: World) => Promise<unknown> | unknown;
  /** Ends what the fix started. */
  readonly after?: () => Promise<unknown>;
  /** The condition's reason after the fix. */
  readonly heals: ConditionReason;
}

const QUOTAS: Resource = {
  group: "",
  version: "v1",
  plural: "resourcequotas",
  kind: "ResourceQuota",
  namespaced: true,
};

const CONFIG_MAPS: Resource = {
  group: "",
  version: "v1",
  plural: "configmaps",
  kind: "ConfigMap",
  namespaced: true,
};

const WRONG_KEY = "sk-ant-oat01-wrong-wrong-wrong";

const putKey = (world: World, data: Record<string, string | null>) =>
  world.kube.patch(
    SECRETS,
    { namespace: world.namespace, name: "key" },
    {
      data: Object.fromEntries(
        Object.entries(data).map(([name, value]) => [
          name,
          value === null ? null : Buffer.from(value).toString("base64"),
        ]),
      ),
    },
    { type: "merge" },
  );

const rightKey = (world: World) => world.simulator.environmentKey(world.environmentId);

const labelNamespace = (world: World, labels: Record<string, string | null>) =>
  world.kube.patch(NAMESPACES, { name: world.namespace }, { metadata: { labels } }, { type: "merge" });

const template = (world: World, container: Record<string, unknown>, podSpec: Record<string, unknown> = {}) => ({
  spec: {
    nodeSelector: world.nodeSelector,
    terminationGracePeriodSeconds: 2,
    ...podSpec,
    containers: [{ name: "worker", image: "worker:1", ...container }],
  },
});

const WORKER = { name: "worker", image: "worker:1" };
const fixTemplate = (world: World) => world.patchSpec({ sessions: { template: { spec: { containers: [WORKER] } } } });

/** The operator's own Pod policy allows it. */
const PRIVILEGED = ["--allowed-in-templates", "privileged"];

const faultyApi = (name: string, fault: Parameters<Simulator["inject"]>[0], shows: Shown): Fault => ({
  name,
  later: (world) => world.simulator.inject(fault),
  shows,
  tries: "stats",
  fix: (world) => world.simulator.clearFaults(),
  heals: "Reachable",
});

/** Stops the simulator, and starts another one at the same address with the same environment and key. */
function apiThatGoesAway(): Fault {
  let address: { port: number; id: string; key: string };
  let revived: Simulator | undefined;
  return {
    name: "api-unreachable",
    later: async (world) => {
      address = { port: world.simulator.port, id: world.environmentId, key: rightKey(world) };
      await world.simulator.close();
    },
    shows: {
      type: "QueueReachable",
      status: "False",
      reason: "Unreachable",
      words: [/^Work API (poll|stats): /, /ECONNREFUSED 127\.0\.0\.1/, "check spec.api.baseUrl, network policies"],
    },
    tries: "stats",
    fix: async () => {
      revived = await startSimulator({ port: address.port });
      revived.createEnvironment({ id: address.id, key: address.key });
    },
    heals: "Reachable",
    after: async () => revived?.close(),
  };
}

/** An image that fails right after its start until it is fixed. The probe claim detects the fix. */
function failingImage(): Fault {
  let fate: FateInput = { kind: "exit", code: 1, afterMs: 0, message: "no such model: clade-5" };
  return {
    name: "image-fails",
    world: { node: { fates: () => fate } },
    later: (world) => {
      for (let item = 0; item < 4; item += 1) world.simulator.enqueue(world.environmentId);
    },
    shows: {
      type: "SessionsStarting",
      status: "False",
      reason: "StartsFailing",
      words: [/^\d+ starts in a row failed/, "exit code 1: no such model: clade-5", "fix the image"],
    },
    tries: "stats",
    fix: (world) => {
      fate = { kind: "worker", workMs: 100 };
      world.simulator.enqueue(world.environmentId);
    },
    heals: "Starting",
  };
}

/** Every Pod ends before it is parked, and the next one is created after a pause. */
function initContainerThatFails(): Fault {
  let fate: FateInput = { kind: "exit", code: 2, afterMs: 0, message: "no such branch" };
  return {
    name: "init-container-fails",
    world: {
      podSpec: { initContainers: [{ name: "checkout", image: "git:2" }] },
      node: { fates: (_pod, { name }) => (name === "checkout" ? fate : { kind: "worker", workMs: 100 }) },
    },
    shows: {
      type: "CapacityAvailable",
      status: "False",
      reason: "PreparationFailing",
      words: ["Pods do not get ready: init container checkout ended with 2: no such branch"],
    },
    restless: true,
    tries: "create",
    fix: () => {
      fate = { kind: "exit", code: 0, afterMs: 0 };
    },
    heals: "Available",
  };
}

/** Pods wait in a shell, and the image lacks the program that it should run. */
function missingProgram(): Fault {
  let fate: FateInput = { kind: "start-error" };
  return {
    name: "program-missing",
    world: {
      sessions: { parking: "Shell" },
      container: { command: ["agent-worker"] },
      node: { fates: () => fate },
    },
    shows: {
      type: "CapacityAvailable",
      status: "False",
      reason: "PreparationFailing",
      words: [
        "Pods do not get ready: agent-worker: not found in the image, or not executable",
        "correct the command of container worker in spec.sessions.template",
      ],
    },
    restless: true,
    tries: "create",
    fix: () => {
      fate = { kind: "worker", workMs: 100 };
    },
    heals: "Available",
  };
}

/** The node reports the cause in Events, which the operator may not read, as with the Role of an older release. */
function unreadableEvents(): Fault {
  let fate: FateInput = { kind: "sandbox" };
  return {
    name: "may-not-list-events",
    world: { sessions: { prepareTimeoutSeconds: 1 }, node: { fates: () => fate } },
    lack: { resource: "events", verb: "list" },
    before: (world) => limitOperator(world, { resource: "events", verb: "list" }),
    shows: {
      type: "CapacityAvailable",
      status: "False",
      reason: "PreparationFailing",
      words: [
        "Pods do not get ready: not within prepareTimeoutSeconds, and the operator has no permission to list Events",
        /`kubectl -n \S+ describe pods -l berth\.dev\/environment=\S+`/,
      ],
    },
    restless: true,
    tries: "create",
    fix: async (world) => {
      fate = { kind: "worker", workMs: 100 };
      await unlimitOperator(world);
    },
    heals: "Available",
  };
}

/** Every Pod is replaced after its timeout. */
function neverReady(): Fault {
  let fate: FateInput = { kind: "never-starts" };
  return {
    name: "never-ready",
    world: { sessions: { prepareTimeoutSeconds: 1 }, node: { fates: () => fate } },
    shows: {
      type: "CapacityAvailable",
      status: "False",
      reason: "PreparationFailing",
      words: ["Pods do not get ready: not within prepareTimeoutSeconds"],
    },
    restless: true,
    tries: "create",
    fix: () => {
      fate = { kind: "worker", workMs: 100 };
    },
    heals: "Available",
  };
}

/** An operator without a permission names it, and recovers once it is granted. */
const lacking = (
  lack: Lack,
  tries: Tries,
  shows: Shown,
  ready: NonNullable<Fault["ready"]>,
  more: Partial<Fault> = {},
): Fault => ({
  name: `may-not-${lack.verb}-${lack.resource}`,
  lack,
  before: (world) => limitOperator(world, lack),
  shows: {
    ...shows,
    words: [...shows.words, new RegExp(`User "operator-\\S+" cannot ${lack.verb} resource "${lack.resource}"`)],
  },
  ready,
  tries,
  fix: unlimitOperator,
  heals: "Ready",
  ...more,
});

const WEBHOOKS: Resource = {
  group: "admissionregistration.k8s.io",
  version: "v1",
  plural: "validatingwebhookconfigurations",
  kind: "ValidatingWebhookConfiguration",
  namespaced: false,
};

/** An unavailable admission webhook makes the API server refuse these requests in the world's namespace with a 500. */
const failingWebhook = (
  world: World,
  { operation, resource }: { readonly operation: "UPDATE" | "DELETE"; readonly resource: string },
) =>
  world.kube.create(WEBHOOKS, {
    apiVersion: "admissionregistration.k8s.io/v1",
    kind: "ValidatingWebhookConfiguration",
    metadata: { name: world.namespace },
    webhooks: [
      {
        name: "guard.example.com",
        admissionReviewVersions: ["v1"],
        sideEffects: "None",
        failurePolicy: "Fail",
        timeoutSeconds: 1,
        clientConfig: { url: "https://127.0.0.1:1/guard" },
        namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": world.namespace } },
        rules: [{ apiGroups: [""], apiVersions: ["v1"], operations: [operation], resources: [resource] }],
      },
    ],
  } as never);

const fixWebhook = (world: World) => world.kube.delete(WEBHOOKS, { name: world.namespace });

const FAILED_WEBHOOK = 'failed calling webhook "guard.example.com"';

/**
 * Starts an operator and the Environment in a world with this fault. The world was created with the fault's options.
 */
export async function makeHappen(fault: Fault, world: World, cluster: TestCluster): Promise<InProcessOperator> {
  await fault.before?.(world);
  const flags = fault.lack ? ["--kubeconfig", await cluster.kubeconfigFor(limitedUser(world))] : [];
  const operator = world.startOperator({ flags: [...flags, ...(fault.flags ?? [])] });
  await world.createEnvironment(fault.spec?.(world));
  if (fault.later) {
    await world.untilCondition("Ready", "Ready");
    await world.untilParked(1);
    await fault.later(world);
  }
  return operator;
}

/** All faults of an Environment, one at a time. Creates new objects each time, since some keep state. */
export function faults(): Fault[] {
  return [
    {
      name: "key-rejected",
      world: { key: false },
      before: (world) => world.createKey(WRONG_KEY),
      shows: {
        type: "Authenticated",
        status: "False",
        reason: "KeyRejected",
        words: ["the environment key was rejected", "Secret key (key environment-key)", /env_\w+/, "401"],
      },
      tries: "key",
      fix: (world) => putKey(world, { "environment-key": rightKey(world) }),
      heals: "KeyAccepted",
    },
    {
      name: "key-revoked",
      later: (world) => world.simulator.rotateKey(world.environmentId),
      shows: {
        type: "Authenticated",
        status: "False",
        reason: "KeyRejected",
        words: ["the environment key was rejected", "Secret key (key environment-key)"],
      },
      tries: "key",
      fix: (world) => putKey(world, { "environment-key": rightKey(world) }),
      heals: "KeyAccepted",
    },
    {
      name: "key-secret-missing",
      world: { key: false },
      shows: {
        type: "Authenticated",
        status: "False",
        reason: "KeySecretMissing",
        words: [
          /^spec\.api\.keySecretRef\.name: Secret key does not exist in namespace \S+; create it, or correct the field$/,
        ],
      },
      tries: "key",
      fix: (world) => world.createKey(),
      heals: "KeyAccepted",
    },
    {
      name: "key-missing",
      before: (world) => putKey(world, { "environment-key": null, "api-key": "x" }),
      shows: {
        type: "Authenticated",
        status: "False",
        reason: "KeyMissing",
        words: ["spec.api.keySecretRef.key: Secret key has no key environment-key; add it, or correct the field"],
      },
      tries: "key",
      fix: (world) => putKey(world, { "environment-key": rightKey(world) }),
      heals: "KeyAccepted",
    },
    {
      name: "key-empty",
      before: (world) => putKey(world, { "environment-key": "\n" }),
      shows: {
        type: "Authenticated",
        status: "False",
        reason: "KeyEmpty",
        words: ["key environment-key of Secret key is empty; put the environment key there"],
      },
      tries: "key",
      fix: (world) => putKey(world, { "environment-key": rightKey(world) }),
      heals: "KeyAccepted",
    },
    {
      name: "template-typo",
      spec: (world) => ({
        sessions: { maxConcurrent: 4, warm: 1, template: template(world, { imagee: "worker:1", tty: "yes" }) },
      }),
      shows: {
        type: "TemplateAccepted",
        status: "False",
        reason: "Refused",
        words: [
          '2 problems: (1) spec.sessions.template.spec.containers[0].tty: "yes" has the wrong type; write true or false, without quotes',
          "(2) spec.sessions.template.spec.containers[0].imagee: unknown field; correct its name, or remove it",
        ],
      },
      tries: "template",
      fix: fixTemplate,
      heals: "Accepted",
    },
    {
      name: "template-invalid",
      spec: (world) => ({
        sessions: {
          maxConcurrent: 4,
          warm: 1,
          template: template(world, { resources: { requests: { memory: "2Gi" }, limits: { memory: "1Gi" } } }),
        },
      }),
      shows: {
        type: "TemplateAccepted",
        status: "False",
        reason: "Refused",
        words: ['spec.sessions.template.spec.containers[0].resources.requests: Invalid value: "2Gi"'],
      },
      tries: "template",
      fix: fixTemplate,
      heals: "Accepted",
    },
    {
      name: "template-forbidden",
      world: { container: { securityContext: { privileged: true } } },
      shows: {
        type: "TemplateAccepted",
        status: "False",
        reason: "TemplateForbidden",
        words: [
          "spec.sessions.template.spec.containers[0].securityContext.privileged: not allowed (podPolicy.privileged=false)",
          "set the chart's podPolicy.privileged=true (--allowed-in-templates privileged)",
        ],
      },
      tries: "stats",
      fix: fixTemplate,
      heals: "Accepted",
    },
    {
      name: "template-policy",
      flags: PRIVILEGED,
      world: { container: { securityContext: { privileged: true } } },
      before: (world) => labelNamespace(world, { "pod-security.kubernetes.io/enforce": "restricted" }),
      shows: {
        type: "TemplateAccepted",
        status: "False",
        reason: "AdmissionRefused",
        words: [
          'violates PodSecurity "restricted:latest"',
          'container "worker" must not set securityContext.privileged=true',
          "change the template, or ask the cluster's administrator to change the policy",
        ],
      },
      tries: "template",
      fix: (world) => labelNamespace(world, { "pod-security.kubernetes.io/enforce": null }),
      heals: "Accepted",
    },
    {
      name: "policy-later",
      flags: PRIVILEGED,
      world: { container: { securityContext: { privileged: true } } },
      later: async (world) => {
        await labelNamespace(world, { "pod-security.kubernetes.io/enforce": "restricted" });
        await world.patchSpec({ sessions: { warm: 3 } });
      },
      shows: {
        type: "CapacityAvailable",
        status: "False",
        reason: "PreparationFailing",
        words: ['violates PodSecurity "restricted:latest"', "change the template"],
      },
      tries: "create",
      fix: (world) => labelNamespace(world, { "pod-security.kubernetes.io/enforce": null }),
      heals: "Available",
    },
    {
      name: "quota",
      before: async (world) => {
        const ref = { namespace: world.namespace, name: "tight" };
        await world.kube.create(QUOTAS, { metadata: ref, spec: { hard: { pods: "0" } } } as never);
        await world.until("the quota counts the objects", async () => {
          const { status } = (await world.kube.get(QUOTAS, ref)) as { status?: { used?: Record<string, string> } };
          return status?.used?.pods === "0";
        });
      },
      shows: {
        type: "CapacityAvailable",
        status: "False",
        reason: "QuotaExceeded",
        words: ["exceeded quota: tight, requested: pods=1, used: pods=0, limited: pods=0", "raise the quota"],
      },
      tries: "create",
      fix: (world) => world.kube.delete(QUOTAS, { namespace: world.namespace, name: "tight" }),
      heals: "Available",
    },
    {
      name: "unschedulable",
      world: { podSpec: { nodeSelector: { "example.com/pool": "sandboxes" } } },
      shows: {
        type: "CapacityAvailable",
        status: "False",
        reason: "Unschedulable",
        words: [/0\/\d+ nodes are available/, "node affinity/selector", "add nodes, or change the template"],
      },
      tries: "stats",
      fix: (world) =>
        world.kube.patch(
          NODES,
          { name: world.node.name },
          { metadata: { labels: { "example.com/pool": "sandboxes" } } },
          { type: "merge" },
        ),
      heals: "Available",
    },
    {
      name: "image-missing",
      world: { container: { image: "registry.invalid/agents/worker:1.4.2" } },
      shows: {
        type: "CapacityAvailable",
        status: "False",
        reason: "ImagePullFailing",
        words: [
          "registry.invalid/agents/worker:1.4.2",
          "no such host",
          "correct the image's name or its imagePullSecrets",
        ],
      },
      tries: "stats",
      fix: (world) =>
        world.patchSpec({ sessions: { template: { spec: { containers: [{ name: "worker", image: "worker:1" }] } } } }),
      heals: "Available",
    },
    {
      name: "config-map-missing",
      world: {
        container: { env: [{ name: "MODEL", valueFrom: { configMapKeyRef: { name: "models", key: "default" } } }] },
      },
      shows: {
        type: "CapacityAvailable",
        status: "False",
        reason: "PreparationFailing",
        words: ['Pods do not get ready: CreateContainerConfigError: configmap "models" not found'],
      },
      tries: "stats",
      fix: (world) =>
        world.kube.create(CONFIG_MAPS, {
          metadata: { name: "models", namespace: world.namespace },
          data: { default: "large" },
        } as never),
      heals: "Available",
    },
    {
      name: "sandbox-fails",
      world: { podSpec: { securityContext: { runAsGroup: 20_002 } } },
      shows: {
        type: "CapacityAvailable",
        status: "False",
        reason: "PreparationFailing",
        words: [
          "Pods do not get ready: FailedCreatePodSandBox: Failed to create pod sandbox: rpc error",
          'user group "20002" is specified without user; fix the template\'s securityContext',
        ],
      },
      tries: "stats",
      fix: (world) => world.patchSpec({ sessions: { template: { spec: { securityContext: { runAsUser: 20_001 } } } } }),
      heals: "Available",
    },
    missingProgram(),
    unreadableEvents(),
    initContainerThatFails(),
    neverReady(),
    failingImage(),
    apiThatGoesAway(),
    {
      name: "environment-unknown",
      world: { spec: { environmentId: "env_of-tomorrow" } },
      shows: {
        type: "QueueReachable",
        status: "False",
        reason: "EnvironmentNotFound",
        words: ["environment env_of-tomorrow is unknown", "check spec.environmentId", "404"],
      },
      ready: { status: "False", reason: "EnvironmentNotFound" },
      tries: "stats",
      fix: (world) =>
        world.simulator.createEnvironment({
          id: "env_of-tomorrow",
          key: world.simulator.environmentKey(world.environmentId),
        }),
      heals: "Reachable",
    },
    faultyApi(
      "rate-limited",
      { kind: "status", status: 429, retryAfterSeconds: 0 },
      {
        type: "QueueReachable",
        status: "False",
        reason: "RateLimited",
        words: ["too many requests; Berth tries again later, more slowly", "429", "the same spec.api.budgetGroup"],
      },
    ),
    faultyApi(
      "api-fails",
      { kind: "status", status: 500 },
      {
        type: "QueueReachable",
        status: "False",
        reason: "Unreachable",
        words: ["the server failed; Berth tries again", "500"],
      },
    ),
    faultyApi(
      "polls-fail",
      { kind: "status", status: 500, call: "poll" },
      { type: "QueueReachable", status: "False", reason: "Unreachable", words: [/^Work API poll: the server failed/] },
    ),
    faultyApi(
      "web-page",
      { kind: "html", status: 200 },
      {
        type: "QueueReachable",
        status: "False",
        reason: "BadReply",
        words: ["a web page", /check that spec\.api\.baseUrl \(http:\S+\) is the Work API/],
      },
    ),
    {
      name: "origin-not-allowed",
      world: { api: { baseUrl: "https://api.example.com" }, spec: { network: { egress: { cidrs: [] } } } },
      shows: {
        type: "QueueReachable",
        status: "False",
        reason: "OriginNotAllowed",
        words: ["may not send keys to https://api.example.com", "spec.api.baseUrl: ", "--allowed-api-origins"],
      },
      tries: "key",
      fix: async (world) => {
        await world.deleteEnvironment();
        await world.createEnvironment({ api: { baseUrl: world.simulator.url, keySecretRef: { name: "key" } } });
      },
      heals: "Reachable",
    },
    {
      name: "id-shared",
      before: async (world) => {
        const metadata = { name: "second", namespace: world.namespace };
        const { metadata: made } = await world.kube.create(ENVIRONMENTS, {
          metadata,
          spec: world.spec({ paused: true }),
        } as never);
        // API times have no fractions, and the older one is served.
        const youngerMs = Date.parse(made.creationTimestamp ?? "") + 1_000;
        await world.until("another second", () => world.kube.now() >= youngerMs);
      },
      shows: {
        type: "Ready",
        status: "False",
        reason: "EnvironmentIdShared",
        words: [
          /^spec\.environmentId: already served by Environment \S+\/second, which is older and paused, /,
          "delete one of the two, or create this one again with its own environmentId",
        ],
      },
      tries: "key",
      fix: (world) => world.kube.delete(ENVIRONMENTS, { namespace: world.namespace, name: "second" }),
      heals: "Ready",
    },
    {
      name: "credential-missing",
      world: { sessions: { maxConcurrent: 1 } },
      later: (world) => world.simulator.enqueue(world.environmentId, { secret: false }),
      shows: {
        type: "CredentialMissing",
        status: "True",
        reason: "CredentialMissing",
        words: [/work item work_\w+ came without its own secret and was stopped/, "set EnvironmentKey"],
      },
      ready: { status: "False", reason: "CredentialMissing" },
      tries: "stats",
      eventPerItem: true,
      fix: (world) => world.simulator.enqueue(world.environmentId),
      heals: "CredentialsPresent",
    },
    lacking(
      { resource: "secrets", verb: "get" },
      "key",
      {
        type: "Authenticated",
        status: "Unknown",
        reason: "KeySecretUnreadable",
        words: [
          /^spec\.api\.keySecretRef\.name: cannot read Secret key: .*; give the operator permission to get Secrets in namespace \S+$/,
        ],
      },
      { status: "Unknown", reason: "KeySecretUnreadable" },
      { heals: "KeyAccepted" },
    ),
    lacking(
      { resource: "pods", verb: "create" },
      "template",
      {
        type: "TemplateAccepted",
        status: "Unknown",
        reason: "TemplateUnchecked",
        words: [
          /^spec\.sessions\.template: not checked: .*; give the operator permission to create Pods in namespace /,
        ],
      },
      { status: "Unknown", reason: "TemplateUnchecked" },
      { heals: "Accepted" },
    ),
    lacking(
      { resource: "networkpolicies", verb: "create" },
      "policy",
      {
        type: "NetworkPolicyReady",
        status: "False",
        reason: "PolicyFailing",
        words: [
          /^the NetworkPolicy could not be made, so no Pod is made and nothing is claimed: /,
          "give the operator permission to get, create, patch and delete NetworkPolicies",
        ],
      },
      { status: "False", reason: "PolicyFailing" },
      { heals: "PolicyInPlace" },
    ),
    lacking(
      { resource: "secrets", verb: "list" },
      "recovery",
      {
        type: "Ready",
        status: "False",
        reason: "NothingStarts",
        words: ["Berth claims nothing until it can list the Secrets of earlier claims", "permission to list Secrets"],
      },
      { status: "False", reason: "NothingStarts" },
    ),
    lacking(
      { resource: "secrets", verb: "create" },
      "journal",
      {
        type: "Ready",
        status: "False",
        reason: "NothingStarts",
        words: ["Berth claims nothing while it cannot create the Secrets of claims", "permission to create Secrets"],
      },
      { status: "False", reason: "NothingStarts" },
      // The finalizer is added before each claim and removed after it.
      {
        restless: true,
        world: { sessions: { maxConcurrent: 1 } },
        later: (world) => world.simulator.enqueue(world.environmentId),
      },
    ),
    lacking(
      { resource: "pods/attach", verb: "get" },
      "stats",
      {
        type: "CapacityAvailable",
        status: "False",
        reason: "AttachFailing",
        words: [/^cannot attach to waiting Pods: /, "give the operator get and create on pods/attach"],
      },
      { status: "False", reason: "AttachFailing" },
      {
        name: "may-not-attach",
        world: { sessions: { parking: "Shell" }, container: { command: ["agent-worker"] } },
        heals: "Available",
      },
    ),
    {
      name: "opening-refused",
      later: async (world) => {
        await failingWebhook(world, { operation: "UPDATE", resource: "secrets" });
        for (let item = 0; item < 4; item += 1) world.simulator.enqueue(world.environmentId);
      },
      shows: {
        type: "SessionsStarting",
        status: "False",
        reason: "StartsFailing",
        words: ["claimed sessions do not start while Berth cannot change the Secrets of claims", FAILED_WEBHOOK],
      },
      tries: "stats",
      fix: async (world) => {
        await fixWebhook(world);
        world.simulator.enqueue(world.environmentId);
      },
      heals: "Starting",
    },
    {
      name: "pods-not-deleted",
      later: async (world) => {
        await failingWebhook(world, { operation: "DELETE", resource: "pods" });
        await world.patchSpec({
          sessions: { template: { spec: { containers: [{ ...WORKER, image: "worker:2" }] } } },
        });
      },
      shows: {
        type: "Ready",
        status: "False",
        reason: "CleanupFailing",
        words: ["Pods count towards maxConcurrent while Berth cannot delete them", FAILED_WEBHOOK],
      },
      tries: "pod-deletion",
      restless: true,
      fix: fixWebhook,
      heals: "Ready",
    },
    {
      name: "secrets-not-deleted",
      world: { node: { fates: () => ({ kind: "worker", workMs: 100 }) } },
      later: async (world) => {
        await failingWebhook(world, { operation: "DELETE", resource: "secrets" });
        world.simulator.enqueue(world.environmentId);
      },
      shows: {
        type: "Ready",
        status: "False",
        reason: "CleanupFailing",
        words: ["ended sessions keep their Secrets and Pods", FAILED_WEBHOOK],
      },
      tries: "secret-deletion",
      restless: true,
      fix: fixWebhook,
      heals: "Ready",
    },
    {
      ...faultyApi(
        "acks-refused",
        { kind: "status", status: 400, call: "ack" },
        {
          type: "Ready",
          status: "False",
          reason: "NothingStarts",
          words: ["no session starts while Berth cannot acknowledge work items", "Work API ack: ", "400"],
        },
      ),
      later: (world) => {
        world.simulator.inject({ kind: "status", status: 400, call: "ack" });
        world.simulator.enqueue(world.environmentId);
      },
      tries: "ack",
      restless: true,
      heals: "Ready",
    },
    {
      ...faultyApi(
        "stops-refused",
        { kind: "status", status: 400, call: "stop" },
        {
          type: "Ready",
          status: "False",
          reason: "CleanupFailing",
          words: ["ended sessions stay active while Berth cannot stop work items", "Work API stop: ", "400"],
        },
      ),
      world: { node: { fates: () => ({ kind: "exit", code: 3, afterMs: 100 }) }, sessions: { lease: "Operator" } },
      later: (world) => {
        world.simulator.inject({ kind: "status", status: 400, call: "stop" });
        world.simulator.enqueue(world.environmentId);
      },
      tries: "stop",
      restless: true,
      heals: "Ready",
    },
    {
      name: "paused",
      later: (world) => world.patchSpec({ paused: true }),
      shows: { type: "Ready", status: "False", reason: "Paused", words: ["spec.paused is true", "set it to false"] },
      tries: "stats",
      fix: (world) => world.patchSpec({ paused: false }),
      heals: "Ready",
    },
    {
      name: "pulls-always",
      world: { container: { imagePullPolicy: "Always" } },
      shows: {
        type: "TemplateAccepted",
        status: "True",
        reason: "AcceptedWithWarning",
        words: ["imagePullPolicy: with Always, the kubelet contacts the registry", "IfNotPresent"],
      },
      ready: { status: "True", reason: "Ready" },
      tries: "stats",
      fix: fixTemplate,
      heals: "Accepted",
    },
  ];
}
