import { z } from "zod";
import { DEFAULT_RUNTIME_CLASSES, type RuntimeClasses, withRuntimeClass } from "./isolation.ts";
import { API_VERSION, KIND } from "./names.ts";
import { DEFAULT_BASE_URL, networkRules, networkSpec } from "./network-spec.ts";
import { problemsOf, sayProblem } from "./problems.ts";
import { fieldMatches, MAX_NAME, NAME_PATTERN, type Rule, seconds, withRules } from "./rule.ts";
import { sessionsSpec } from "./sessions-spec.ts";
import { environmentStatus } from "./status.ts";
import { workersSpec } from "./workers-spec.ts";

export type { Condition } from "./conditions.ts";
export type { NetworkSpec } from "./network-spec.ts";
export type { PodTemplate } from "./pod-template.ts";
export type { SessionsSpec } from "./sessions-spec.ts";
export type { EnvironmentStatus, QueueStatus, SessionsStatus, WorkersStatus, WorkspacesStatus } from "./status.ts";
export type { WorkersSpec } from "./workers-spec.ts";
export type { WorkspaceSpec } from "./workspace-spec.ts";

const DAY = 86_400;
/** Ids become part of request paths, so they have no characters that need escaping. */
const MAX_ID = 128;
const ID_PATTERN = "^[A-Za-z0-9][A-Za-z0-9_.-]*$";
const WORKSPACE_PATTERN = "^wrkspc_[A-Za-z0-9_-]+$";
const ORIGIN_PATTERN = "^https?://([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\\[[0-9A-Fa-f:.]+\\])(:[0-9]{1,5})?$";
const MAX_URL = 512;
const SECRET_KEY_PATTERN = "^[-._a-zA-Z0-9]+$";
const GROUP_PATTERN = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
const MAX_GROUP = 63;
const MAX_OTHER_POLLERS = 10_000;
/**
 * Pods are named `berth-<environment>-<random>` and carry the name as a label. 46 characters leave 10 for the random
 * part within the 63 of a label and of a host name.
 */
export const MAX_ENVIRONMENT_NAME = 46;
/** The prefix of environment keys. A key pasted into environmentId would be readable by everyone. */
const KEY_PREFIX = "sk-";

/** What ids of the platform begin with. Other ids are accepted, because ids are opaque. */
const ID_PREFIX = "env_";

const environmentId = z.string().min(1).max(MAX_ID).meta({
  description: "Id of the environment to serve, such as env_011CZkZ9X2dpNyB7HsEFoRfW. Immutable.",
});

const keySecretRef = withRules(
  z
    .strictObject({
      name: z.string().min(1).max(MAX_NAME).meta({
        description: "Name of the Secret, in the Environment's namespace.",
      }),
      key: z.string().min(1).max(MAX_NAME).default("environment-key").meta({
        description: "Key in the Secret's data.",
      }),
    })
    .meta({ description: "Secret with the environment key. The operator notices a new key." }),
  [
    fieldMatches(
      "name",
      NAME_PATTERN,
      "keySecretRef.name must be the name of a Secret (lowercase letters, digits, - and .); put the key itself into that Secret",
    ),
    fieldMatches(
      "key",
      SECRET_KEY_PATTERN,
      "keySecretRef.key must be a key of the Secret's data (letters, digits, -, _ and .); use for example environment-key",
    ),
  ],
);

const apiSpec = withRules(
  z
    .strictObject({
      baseUrl: z.string().max(MAX_URL).default(DEFAULT_BASE_URL).meta({
        description:
          "Origin of the Work API: scheme, host and port only. The operator's allowedApiOrigins must list it. Immutable.",
      }),
      keySecretRef,
      workspaceId: z.string().max(MAX_ID).optional().meta({
        description: "Workspace of the requests (wrkspc_...), if the key is valid for several.",
      }),
      otherPollers: z.int32().min(0).max(MAX_OTHER_POLLERS).default(0).meta({
        description:
          "Number of other pollers to expect, such as those of other clusters. PollersExpected reports more.",
      }),
      budgetGroup: z.string().min(1).max(MAX_GROUP).default("default").meta({
        description: "Name (lowercase letters, digits, -) of the request budget to share. Use one per organization.",
      }),
    })
    .meta({ description: "Address and key of the Work API." }),
  [
    {
      cel: "self.baseUrl == oldSelf.baseUrl",
      field: "baseUrl",
      message: "baseUrl cannot be changed; create another Environment for another address",
    },
    fieldMatches(
      "baseUrl",
      ORIGIN_PATTERN,
      "baseUrl must have only a scheme, a host and a port, such as https://api.anthropic.com; remove the user, path, query and final slash",
    ),
    fieldMatches(
      "workspaceId",
      WORKSPACE_PATTERN,
      "workspaceId must begin with wrkspc_; copy it from the console, or remove the field",
    ),
    fieldMatches(
      "budgetGroup",
      GROUP_PATTERN,
      "budgetGroup must be a word of lowercase letters, digits and -; use for example default",
    ),
  ],
);

const environmentSpec = withRules(
  z
    .strictObject({
      environmentId,
      paused: z.boolean().default(false).meta({
        description:
          "Stops claiming work items. Running sessions continue; sleeping ones keep their files until their sleep ends.",
      }),
      deletionGraceSeconds: seconds(
        600,
        0,
        7 * DAY,
        "Seconds that running sessions can continue after the Environment is deleted. Sleeping Pods are deleted at once.",
      ),
      api: apiSpec,
      network: networkSpec,
      sessions: sessionsSpec.optional(),
      workers: workersSpec.optional(),
    })
    .meta({ description: "The desired state." }),
  [
    {
      cel: "self.environmentId == oldSelf.environmentId",
      field: "environmentId",
      message: "environmentId cannot be changed; create another Environment for another id",
    },
    fieldMatches(
      "environmentId",
      ID_PATTERN,
      "environmentId must be an id such as env_011CZkZ9X2dpNyB7HsEFoRfW; copy it from the console",
    ),
    {
      cel: `!self.environmentId.startsWith('${KEY_PREFIX}')`,
      field: "environmentId",
      message:
        "environmentId looks like a key; revoke the key, put the new one into a Secret, and name that in api.keySecretRef",
      holds: ({ environmentId }) => !environmentId.startsWith(KEY_PREFIX),
    },
    {
      cel: "has(self.sessions) != has(self.workers)",
      message:
        "sessions and workers: exactly one is required; set sessions for a Pod per session, or workers for always-on workers",
      holds: ({ sessions, workers }) => (sessions === undefined) !== (workers === undefined),
    },
    {
      cel: "has(self.sessions) == has(oldSelf.sessions)",
      message: "sessions and workers cannot be exchanged; create another Environment, and delete this one",
    },
    ...networkRules,
  ],
);

const stringMap = z.record(z.string(), z.string());
const metadata = z.looseObject({
  name: z.string(),
  namespace: z.string(),
  uid: z.string(),
  generation: z.int(),
  resourceVersion: z.string(),
  creationTimestamp: z.string(),
  deletionTimestamp: z.string().optional(),
  finalizers: z.array(z.string()).optional(),
  annotations: stringMap.optional(),
  labels: stringMap.optional(),
});

const nameRule: Rule<{ metadata: { name: string } }> = {
  cel: `self.metadata.name.size() <= ${MAX_ENVIRONMENT_NAME}`,
  message: `metadata.name must have at most ${MAX_ENVIRONMENT_NAME} characters, because names of Pods and labels contain it; choose a shorter one`,
  holds: ({ metadata }) => metadata.name.length <= MAX_ENVIRONMENT_NAME,
};

/** The part of the resource that the CRD describes. The API server owns metadata. */
export const environmentResource = withRules(
  z
    .object({ metadata: metadata.meta({ opaque: true }), spec: environmentSpec, status: environmentStatus.optional() })
    .meta({
      description:
        "An environment of self-hosted sandboxes. Berth serves its work queue with a Pod per session, or with always-on workers.",
    }),
  [nameRule],
);

const environment = withRules(
  z.looseObject({
    apiVersion: z.literal(API_VERSION),
    kind: z.literal(KIND),
    metadata,
    spec: environmentSpec,
    // The operator writes the status, so a status that does not fit must not prevent it from serving an Environment.
    status: environmentStatus.optional().catch(undefined),
  }),
  [nameRule],
);

/** An Environment as the operator uses it: complete, with all defaults. */
export type Environment = z.output<typeof environment>;

export type ParsedEnvironment =
  | { readonly ok: true; readonly environment: Environment }
  | { readonly ok: false; readonly problems: string[] };

/** The queue that an Environment serves: the address of the Work API, and the id there. Undefined: the spec names none. */
export function queueOf(spec: unknown): string | undefined {
  const { environmentId, api } = (spec ?? {}) as { environmentId?: unknown; api?: { baseUrl?: unknown } };
  return typeof environmentId === "string" ? `${api?.baseUrl ?? DEFAULT_BASE_URL} ${environmentId}` : undefined;
}

/** Why an environmentId is probably wrong, with the fix; null: it looks right. */
export function environmentIdDoubt({ environmentId }: Pick<Environment["spec"], "environmentId">): string | null {
  if (environmentId.startsWith(ID_PREFIX)) return null;
  return `spec.environmentId: ${environmentId} does not begin with ${ID_PREFIX}; copy the id from the console`;
}

/**
 * Parses an object of the API server. Never throws. An object that does not fit (one stored under an older or newer
 * CRD) returns problems, each with the field's path and the fix.
 * @param classes the operator's RuntimeClasses: the parsed template has the one that `isolation` names
 */
export function parseEnvironment(raw: unknown, classes = DEFAULT_RUNTIME_CLASSES): ParsedEnvironment {
  const result = environment.safeParse(raw, { error: sayProblem });
  return result.success
    ? { ok: true, environment: isolated(result.data, classes) }
    : { ok: false, problems: problemsOf(result.error) };
}

/** The parsed Environment with the RuntimeClasses of another operator. */
export function isolated(environment: Environment, classes: RuntimeClasses): Environment {
  const { sessions, workers } = environment.spec;
  return {
    ...environment,
    spec: {
      ...environment.spec,
      ...(sessions && { sessions: withRuntimeClass(sessions, classes) }),
      ...(workers && { workers: withRuntimeClass(workers, classes) }),
    },
  };
}

/**
 * Returns an Environment for the care of running sessions when `parseEnvironment` has problems only with the network or
 * with how Pods wait for a session; otherwise null. Sessions that are already claimed depend on neither, and objects may
 * be older than the rules for them.
 */
export function parseForRunning(raw: unknown, classes = DEFAULT_RUNTIME_CLASSES): Environment | null {
  const { data } = stored.safeParse(raw);
  if (!data) return null;
  const sessions = { ...data.spec.sessions, parking: "Key" };
  const found = environment.safeParse({ ...data, spec: { ...data.spec, sessions, network: { policy: "None" } } });
  return found.success ? isolated(found.data, classes) : null;
}

const stored = z.looseObject({ spec: z.looseObject({ sessions: z.looseObject({}) }) });
