/** Cases for the rules of the schema, for tests of `parseEnvironment` and of the CRD on an API server. */
import { RESERVED_ENV } from "../../src/api/names.ts";
import { type Json, podTemplate, sessionsSpec, workersSpec } from "./environments.ts";

/** One rule of the schema: a spec that breaks it, one that just passes, and the refusal's text. */
export interface RuleCase {
  /** The result, as a sentence. */
  readonly name: string;
  readonly refused: Json;
  readonly accepted: Json;
  /** Part of the message, from the server and from `parseEnvironment`. */
  readonly message: string;
  /** The field that the message is about. */
  readonly field: string;
}

const inTemplate = (template: Json) => sessionsSpec({ template });
const withContainer = (extra: Json) =>
  inTemplate({ spec: { containers: [{ name: "worker", image: "worker:1", ...extra }] } });
const withAnnotations = (annotations: Json) => inTemplate({ metadata: { annotations }, ...podTemplate() });
const withApi = (api: Json) =>
  sessionsSpec({}, { api: { keySecretRef: { name: "key" }, ...api }, network: { egress: { cidrs: [] } } });
const withNetwork = (network: Json, baseUrl = "https://api.anthropic.com") =>
  sessionsSpec({}, { network, api: { baseUrl, keySecretRef: { name: "key" } } });

const DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container";

const withStorage = (storage: string, more: Json = {}) =>
  sessionsSpec({ workspace: { type: "PerSession", claimTemplate: { resources: { requests: { storage } }, ...more } } });
const PER_SESSION = { type: "PerSession", claimTemplate: { resources: { requests: { storage: "1Gi" } } } };

/** A sidecar before the session container, which the annotation names. */
const twoContainers = (sidecar: Json, session: Json) =>
  inTemplate({
    metadata: { annotations: { [DEFAULT_CONTAINER]: "worker" } },
    spec: {
      containers: [
        { name: "sidecar", image: "sidecar:1", ...sidecar },
        { name: "worker", image: "worker:1", ...session },
      ],
    },
  });

/** Rules that a single object can break. Both the server's CEL and `parseEnvironment` check them. */
export const RULE_CASES: readonly RuleCase[] = [
  {
    name: "refuses a spec with both sessions and workers",
    refused: { ...sessionsSpec(), ...workersSpec() },
    accepted: workersSpec(),
    message:
      "sessions and workers: exactly one is required; set sessions for a Pod per session, or workers for always-on workers",
    field: "spec",
  },
  {
    name: "refuses a spec with neither sessions nor workers",
    refused: { environmentId: "env_1", api: { keySecretRef: { name: "key" } } },
    accepted: sessionsSpec(),
    message:
      "sessions and workers: exactly one is required; set sessions for a Pod per session, or workers for always-on workers",
    field: "spec",
  },
  {
    name: "refuses a key instead of the environment's id",
    refused: sessionsSpec({}, { environmentId: "sk-ant-oat01-notarealkey" }),
    accepted: sessionsSpec({}, { environmentId: "env_011CZkZ9X2dpNyB7HsEFoRfW" }),
    message: "environmentId looks like a key",
    field: "spec.environmentId",
  },
  {
    name: "refuses an id that would change the request path",
    refused: sessionsSpec({}, { environmentId: "env_1/../env_2" }),
    accepted: sessionsSpec({}, { environmentId: "env_1.a-b_c" }),
    message: "environmentId must be an id such as env_",
    field: "spec.environmentId",
  },
  ...[
    ["a path", "https://api.example.com/v1"],
    ["a slash at the end", "https://api.example.com/"],
    ["a query", "https://api.example.com?x=1"],
    ["a fragment", "https://api.example.com#x"],
    ["a user", "https://user:password@api.example.com"],
    ["another scheme", "ftp://api.example.com"],
    ["no scheme", "api.example.com"],
    ["a line break", "https://api.example.com\n"],
    ["no host", "https://"],
  ].map(([what, baseUrl]) => ({
    name: `refuses a baseUrl with ${what}`,
    refused: withApi({ baseUrl }),
    accepted: withApi({ baseUrl: "http://[::1]:8080" }),
    message: "baseUrl must have only a scheme, a host and a port",
    field: "spec.api.baseUrl",
  })),
  {
    name: "refuses a workspace's name instead of its id",
    refused: withApi({ workspaceId: "research" }),
    accepted: withApi({ workspaceId: "wrkspc_01JwQvzr7rXLA5AGx3HKfFUJ" }),
    message: "workspaceId must begin with wrkspc_",
    field: "spec.api.workspaceId",
  },
  {
    name: "refuses the key itself instead of its Secret's name",
    refused: withApi({ keySecretRef: { name: "sk-ant-oat01-NotARealKey" } }),
    accepted: withApi({ keySecretRef: { name: "research.key-1" } }),
    message: "keySecretRef.name must be the name of a Secret",
    field: "spec.api.keySecretRef.name",
  },
  {
    name: "refuses an invalid key of a Secret",
    refused: withApi({ keySecretRef: { name: "key", key: "environment key" } }),
    accepted: withApi({ keySecretRef: { name: "key", key: "Environment_key.1" } }),
    message: "keySecretRef.key must be a key of the Secret's data",
    field: "spec.api.keySecretRef.key",
  },
  {
    name: "refuses a budget group that is no word",
    refused: withApi({ budgetGroup: "My Group" }),
    accepted: withApi({ budgetGroup: "my-group-2" }),
    message: "budgetGroup must be a word",
    field: "spec.api.budgetGroup",
  },
  {
    name: "refuses a busy probe's path without a slash",
    refused: workersSpec({ busyProbe: { httpGet: { path: "busy", port: 9000 } } }),
    accepted: workersSpec({ busyProbe: { httpGet: { path: "/busy?a=b", port: 9000 } } }),
    message: "path must begin with a slash",
    field: "spec.workers.busyProbe.httpGet.path",
  },
  {
    name: "refuses isolation beside a runtime class of the template of sessions",
    refused: sessionsSpec({ isolation: "gVisor", template: podTemplate({ runtimeClassName: "gvisor" }) }),
    accepted: sessionsSpec({ isolation: "gVisor" }),
    message: "isolation and template.spec.runtimeClassName both set the Pods' runtime; remove one of them",
    field: "spec.sessions.isolation",
  },
  {
    name: "refuses isolation beside a runtime class of the template of workers",
    refused: workersSpec({ isolation: "Kata", template: podTemplate({ runtimeClassName: "other" }) }),
    accepted: workersSpec({ template: podTemplate({ runtimeClassName: "other" }) }),
    message: "isolation and template.spec.runtimeClassName both set the Pods' runtime; remove one of them",
    field: "spec.workers.isolation",
  },
  {
    name: "refuses warm above maxConcurrent",
    refused: sessionsSpec({ maxConcurrent: 2, warm: 3 }),
    accepted: sessionsSpec({ maxConcurrent: 2, warm: 2 }),
    message: "warm must not be greater than maxConcurrent; lower warm, or raise maxConcurrent",
    field: "spec.sessions.warm",
  },
  {
    name: "refuses minReplicas above maxReplicas",
    refused: workersSpec({ minReplicas: 3, maxReplicas: 2 }),
    accepted: workersSpec({ minReplicas: 2, maxReplicas: 2 }),
    message: "minReplicas must not be greater than maxReplicas; lower minReplicas, or raise maxReplicas",
    field: "spec.workers.minReplicas",
  },
  ...[
    ["another https origin", "https://api.example.com"],
    ["its own proxy", "http://proxy.example:8080"],
    ["an address in the cluster", "http://10.96.0.20"],
    ["another spelling of the default", "https://api.anthropic.com:443"],
    ["a host name that starts like a loopback address", "http://127.0.0.1.example.com"],
  ].map(([what, baseUrl]) => ({
    name: `refuses ${what} without its networks`,
    refused: withNetwork({}, baseUrl),
    accepted: withNetwork({ egress: { cidrs: ["10.96.0.20/32"] } }, baseUrl),
    message: "network.egress must name your Work API if api.baseUrl is not",
    field: "spec.network.egress",
  })),
  ...["http://127.0.0.1:8080", "http://localhost", "http://[::1]:9"].map((baseUrl) => ({
    name: `needs no networks for ${baseUrl}, which NetworkPolicies do not affect`,
    refused: withNetwork({ policy: "Managed" }, "https://api.example.com"),
    accepted: withNetwork({ policy: "Managed" }, baseUrl),
    message: "network.egress must name your Work API if api.baseUrl is not",
    field: "spec.network.egress",
  })),
  {
    name: "takes the Pods of a Work API in the cluster instead of networks",
    refused: withNetwork({ egress: {} }, "https://work-api.platform.svc"),
    accepted: withNetwork({ egress: { pods: [{ namespaceSelector: {} }] } }, "https://work-api.platform.svc"),
    message: "network.egress must name your Work API if api.baseUrl is not",
    field: "spec.network.egress",
  },
  {
    name: "refuses Pods without a selector",
    refused: withNetwork({ egress: { pods: [{}] } }),
    accepted: withNetwork({ egress: { pods: [{ podSelector: { matchLabels: { app: "mirror" } } }] } }),
    message: "set namespaceSelector, podSelector or both; {} selects all",
    field: "spec.network.egress.pods[0]",
  },
  {
    name: "needs no networks without a NetworkPolicy",
    refused: withNetwork({}, "https://api.example.com"),
    accepted: withNetwork({ policy: "None" }, "https://api.example.com"),
    message: "or set network.policy: None",
    field: "spec.network.egress",
  },
  ...["10.0.0.0", "10.0.0/8", "256.0.0.0/8", "10.0.0.0/33", "all", "::/129", "10.0.0.0/08"].map((cidr) => ({
    name: `refuses ${cidr} as a network`,
    refused: withNetwork({ egress: { cidrs: ["10.0.0.0/8", cidr] } }),
    accepted: withNetwork({ egress: { cidrs: ["0.0.0.0/0", "203.0.113.7/32", "::/0", "2001:db8::/32"] } }),
    message: "cidrs must be networks",
    field: "spec.network.egress.cidrs",
  })),
  ...[sessionsSpec, workersSpec].map((spec, mode) => ({
    name: `refuses hostNetwork in a template of ${mode === 0 ? "sessions" : "workers"} with a NetworkPolicy`,
    refused: spec({ template: podTemplate({ hostNetwork: true }) }),
    accepted: spec({ template: podTemplate({ hostNetwork: true }) }, { network: { policy: "None" } }),
    message: "a NetworkPolicy has no effect on Pods with hostNetwork",
    field: "spec.network.policy",
  })),
  ...[{ name: "mine" }, { generateName: "mine-" }, { namespace: "others" }].flatMap((metadata) =>
    [sessionsSpec, workersSpec].map((spec, mode) => ({
      name: `refuses ${Object.keys(metadata)} of the Pod in a template of ${mode === 0 ? "sessions" : "workers"}`,
      refused: spec({ template: { metadata, ...podTemplate() } }),
      accepted: spec({ template: { metadata: { labels: { name: "mine" } }, ...podTemplate() } }),
      message: "name, generateName and namespace must not be set",
      field: `spec.${mode === 0 ? "sessions" : "workers"}.template.metadata`,
    })),
  ),
  {
    name: "refuses a volume per session without a claimTemplate",
    refused: sessionsSpec({ workspace: { type: "PerSession" } }),
    accepted: sessionsSpec({ workspace: { type: "Ephemeral" } }),
    message: "workspace type PerSession needs a claimTemplate",
    field: "spec.sessions.workspace.claimTemplate",
  },
  ...["0", "ten", "10 Gi", "-1Gi", "0.0Gi"].map((storage) => ({
    name: `refuses a workspace of ${storage}`,
    refused: withStorage(storage),
    accepted: withStorage("0.5Gi"),
    message: "storage must be an amount above 0",
    field: "spec.sessions.workspace.claimTemplate.resources.requests.storage",
  })),
  {
    name: "refuses sleep with a workspace that keeps no files",
    refused: sessionsSpec({ workspace: { type: "Ephemeral", sleepSeconds: 600 } }),
    accepted: sessionsSpec({ workspace: { type: "Ephemeral", sleepSeconds: 0 } }),
    message: "sleepSeconds must be 0 with workspace type Ephemeral",
    field: "spec.sessions.workspace.sleepSeconds",
  },
  {
    name: "refuses sleep with a workspace whose type is left out",
    refused: sessionsSpec({ workspace: { sleepSeconds: 600 } }),
    accepted: sessionsSpec({ workspace: { ...PER_SESSION, sleepSeconds: 604_800 } }),
    message: "set type to Pod or PerSession, or remove sleepSeconds",
    field: "spec.sessions.workspace.sleepSeconds",
  },
  ...[{ type: "Ephemeral" }, PER_SESSION].map((workspace) => ({
    name: `refuses a size limit of a workspace of type ${workspace.type}`,
    refused: sessionsSpec({ workspace: { ...workspace, sizeLimit: "1Gi" } }),
    accepted: sessionsSpec({ workspace: { type: "Pod", sizeLimit: "1Gi" } }),
    message: "sizeLimit needs workspace type Pod",
    field: "spec.sessions.workspace.sizeLimit",
  })),
  ...["0", "ten", "10 Gi"].map((sizeLimit) => ({
    name: `refuses a workspace's size limit of ${sizeLimit}`,
    refused: sessionsSpec({ workspace: { type: "Pod", sizeLimit } }),
    accepted: sessionsSpec({ workspace: { type: "Pod", sizeLimit: "0.5Gi", sleepSeconds: 1 } }),
    message: "sizeLimit must be an amount above 0",
    field: "spec.sessions.workspace.sizeLimit",
  })),
  ...["workspace", "/", "/a/../b", "/a:b", "/a/"].map((mountPath) => ({
    name: `refuses a workspace at ${mountPath}`,
    refused: sessionsSpec({ workspace: { ...PER_SESSION, mountPath } }),
    accepted: sessionsSpec({ workspace: { ...PER_SESSION, mountPath: "/home/agent/.cache" } }),
    message: "mountPath must be an absolute path",
    field: "spec.sessions.workspace.mountPath",
  })),
  {
    name: "refuses an invalid name of a StorageClass",
    refused: withStorage("1Gi", { storageClassName: "Fast SSD" }),
    accepted: withStorage("1Gi", { storageClassName: "fast.ssd-1" }),
    message: "storageClassName must be the name of a StorageClass",
    field: "spec.sessions.workspace.claimTemplate.storageClassName",
  },
  {
    name: "refuses a volume with the name of the workspace's volume",
    refused: inTemplate(podTemplate({ volumes: [{ name: "berth-workspace", emptyDir: {} }] })),
    accepted: inTemplate(podTemplate({ volumes: [{ name: "workspace", emptyDir: {} }] })),
    message: "no volume may have the name berth-workspace",
    field: "spec.sessions.template.spec.volumes",
  },
  {
    name: "refuses a volume with the name of the one for sessions that sleep",
    refused: inTemplate(podTemplate({ volumes: [{ name: "berth-keeper", emptyDir: {} }] })),
    accepted: inTemplate(podTemplate({ volumes: [{ name: "keeper", emptyDir: {} }] })),
    message: "no volume may have the name berth-keeper",
    field: "spec.sessions.template.spec.volumes",
  },
  {
    name: "refuses activeDeadlineSeconds in a session's template",
    refused: inTemplate(podTemplate({ activeDeadlineSeconds: 600 })),
    accepted: sessionsSpec({ maxDurationSeconds: 600 }),
    message: "activeDeadlineSeconds must not be set",
    field: "spec.sessions.template.spec.activeDeadlineSeconds",
  },
  {
    name: "refuses activeDeadlineSeconds in a worker's template",
    refused: workersSpec({ template: podTemplate({ activeDeadlineSeconds: 600 }) }),
    accepted: workersSpec(),
    message: "activeDeadlineSeconds must not be set",
    field: "spec.workers.template.spec.activeDeadlineSeconds",
  },
  ...["Always", "OnFailure"].map((restartPolicy) => ({
    name: `refuses restartPolicy ${restartPolicy} of a session's Pod`,
    refused: inTemplate(podTemplate({ restartPolicy })),
    accepted: inTemplate(podTemplate({ restartPolicy: "Never" })),
    message: "restartPolicy must be Never, because",
    field: "spec.sessions.template.spec.restartPolicy",
  })),
  {
    name: "refuses restartPolicy Never of a worker's Pod",
    refused: workersSpec({ template: podTemplate({ restartPolicy: "Never" }) }),
    accepted: workersSpec({ template: podTemplate({ restartPolicy: "Always" }) }),
    message: "restartPolicy must be Always, because",
    field: "spec.workers.template.spec.restartPolicy",
  },
  {
    name: "refuses a session container that restarts",
    refused: withContainer({ restartPolicy: "OnFailure" }),
    accepted: withContainer({ restartPolicy: "Never" }),
    message: "the session container must not restart",
    field: "spec.sessions.template.spec.containers",
  },
  {
    name: "refuses a session container with restart rules",
    refused: withContainer({ restartPolicy: "Never", restartPolicyRules: [{ action: "Restart" }] }),
    accepted: twoContainers({ restartPolicy: "Never", restartPolicyRules: [{ action: "Restart" }] }, {}),
    message: "the session container must not restart",
    field: "spec.sessions.template.spec.containers",
  },
  ...RESERVED_ENV.map((name) => ({
    name: `refuses a session container that sets ${name}`,
    refused: withContainer({
      env: [
        { name: "A", value: "1" },
        { name, value: "x" },
      ],
    }),
    accepted: withContainer({ env: [{ name: `${name}_OF_MINE`, value: "x" }] }),
    message: "env of the session or worker container must not set ANTHROPIC_ENVIRONMENT_ID",
    field: "spec.sessions.template.spec.containers",
  })),
  {
    name: "refuses a reserved variable in the container that the annotation names, and accepts it in others",
    refused: twoContainers({}, { env: [{ name: "ANTHROPIC_WORK_ID", value: "x" }] }),
    accepted: twoContainers({ env: [{ name: "ANTHROPIC_WORK_ID", value: "x" }] }, {}),
    message: "env of the session or worker container must not set ANTHROPIC_ENVIRONMENT_ID",
    field: "spec.sessions.template.spec.containers",
  },
  {
    name: "refuses a worker's container that sets a reserved variable",
    refused: workersSpec({
      template: {
        spec: { containers: [{ name: "worker", env: [{ name: "ANTHROPIC_ENVIRONMENT_KEY", value: "x" }] }] },
      },
    }),
    accepted: workersSpec({
      template: { spec: { containers: [{ name: "worker", env: [{ name: "ANTHROPIC_BASE_URL", value: "x" }] }] } },
    }),
    message: "env of the session or worker container must not set ANTHROPIC_ENVIRONMENT_ID",
    field: "spec.workers.template.spec.containers",
  },
  {
    name: "refuses a default-container annotation that names no container",
    refused: withAnnotations({ [DEFAULT_CONTAINER]: "wroker" }),
    accepted: withAnnotations({ [DEFAULT_CONTAINER]: "worker" }),
    message: "must name a container of the template",
    field: "spec.sessions.template.metadata.annotations",
  },
  {
    name: "refuses a label with Berth's prefix in the template",
    refused: inTemplate({ metadata: { labels: { "berth.dev/phase": "warm" } }, ...podTemplate() }),
    accepted: inTemplate({ metadata: { labels: { "example.com/berth.dev": "parked" } }, ...podTemplate() }),
    message: "labels that begin with berth.dev/ must not be set",
    field: "spec.sessions.template.metadata.labels",
  },
  {
    name: "refuses an annotation with Berth's prefix in the template",
    refused: withAnnotations({ "berth.dev/session-container": "worker" }),
    accepted: withAnnotations({ "example.com/note": "anything" }),
    message: "annotations that begin with berth.dev/ must not be set",
    field: "spec.sessions.template.metadata.annotations",
  },
];
