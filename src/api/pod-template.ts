import { z } from "zod";
import { ANNOTATION_DEFAULT_CONTAINER, GROUP, KEEPER_VOLUME, RESERVED_ENV, WORKSPACE_VOLUME } from "./names.ts";
import { MAX_NAME, type Rule, withRules } from "./rule.ts";

/** Bounds the cost of the rules over containers. Real Pods have far fewer. */
const MAX_CONTAINERS = 32;
/** The same for volumes. A node can attach far fewer. */
const MAX_VOLUMES = 256;
/** Bounds the cost of the rule over environment variables. */
const MAX_ENV = 512;
/** Bounds the cost of the rules over labels and annotations. */
const MAX_LABELS = 128;
/** A DNS label, which Kubernetes requires for container names. */
const MAX_CONTAINER_NAME = 63;
const MAX_ENV_NAME = 512;
const MAX_IMAGE = 1024;
/** Draining waits for the longest grace period: beyond a day, a deletion would look stuck. */
const MAX_GRACE_SECONDS = 86_400;
/** A stock worker's teardown can take 90 s (tool drain, memory sync, flush: 30 s each). */
export const SESSION_GRACE_SECONDS = 120;
/** An always-on worker that is deleted finishes its sessions first. Only the deletion of the Environment hurries it. */
export const WORKER_GRACE_SECONDS = 3600;
/** Kubernetes' own bound for all annotations together. */
const MAX_ANNOTATION_VALUE = 262_144;

const envVar = z
  .looseObject({
    name: z.string().min(1).max(MAX_ENV_NAME).meta({ description: "Name of the variable." }),
  })
  .meta({ description: "An environment variable: an EnvVar." });

const container = z
  .looseObject({
    name: z.string().min(1).max(MAX_CONTAINER_NAME).meta({ description: "Name of the container, unique in the Pod." }),
    image: z.string().min(1).max(MAX_IMAGE).optional().meta({ description: "Image of the container." }),
    imagePullPolicy: z.enum(["Always", "IfNotPresent", "Never"]).optional().meta({
      description:
        "When to pull the image. Default of the session or worker container: IfNotPresent. With parking Key, Always contacts the registry every few seconds while a Pod waits.",
    }),
    restartPolicy: z.string().max(16).optional().meta({
      description: "The session container must have Never, or none.",
    }),
    restartPolicyRules: z
      .array(z.looseObject({}).meta({ description: "A ContainerRestartRule." }))
      .max(MAX_CONTAINERS)
      .optional()
      .meta({ description: "The session container must have none." }),
    env: z
      .array(envVar)
      .max(MAX_ENV)
      .optional()
      .meta({ description: `Environment variables. Berth sets ${RESERVED_ENV.join(", ")} itself.` }),
  })
  .meta({
    description: "A Container. Fields that are not listed here are passed through.",
  });

const containers = z
  .array(container)
  .min(1)
  .max(MAX_CONTAINERS)
  .meta({
    description:
      "The session or worker runs in the container that the annotation kubectl.kubernetes.io/default-container names, else in the first.",
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["name"],
  });

/** A list of named parts of a Pod, for rules that search by name. */
const named = (what: string, max: number, description: string) =>
  z
    .array(
      z
        .looseObject({
          name: z
            .string()
            .min(1)
            .max(MAX_CONTAINER_NAME)
            .meta({ description: `Name of the ${what}.` }),
        })
        .meta({ description: `One ${what}. Fields that are not listed here are passed through.` }),
    )
    .max(max)
    .meta({ description, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"] });

const metadata = z
  .looseObject({
    name: z.string().max(MAX_NAME).optional().meta({ description: "Must not be set: Berth names each Pod." }),
    generateName: z.string().max(MAX_NAME).optional().meta({ description: "Must not be set: Berth names each Pod." }),
    namespace: z.string().max(MAX_CONTAINER_NAME).optional().meta({
      description: "Must not be set: Pods are in the Environment's namespace.",
    }),
    labels: z
      .record(z.string(), z.string().max(MAX_CONTAINER_NAME))
      .optional()
      .meta({ description: "Labels of the Pods. The prefix berth.dev/ is reserved.", maxProperties: MAX_LABELS }),
    annotations: z
      .record(z.string(), z.string().max(MAX_ANNOTATION_VALUE))
      .optional()
      .meta({ description: "Annotations of the Pods. The prefix berth.dev/ is reserved.", maxProperties: MAX_LABELS }),
  })
  .meta({ description: "Labels and annotations. Must not have name, generateName or namespace." });

const spec = z
  .looseObject({
    containers,
    initContainers: named("init container", MAX_CONTAINERS, "Init containers and sidecars of the Pod.").optional(),
    volumes: named(
      "volume",
      MAX_VOLUMES,
      "In a session's Pod, the names berth-workspace and berth-keeper are reserved.",
    ).optional(),
    restartPolicy: z.string().max(16).optional().meta({
      description: "Must be Never for sessions and Always for workers, the defaults.",
    }),
    activeDeadlineSeconds: z.int().optional().meta({
      description: "Must not be set. For sessions, Berth sets it from maxDurationSeconds.",
    }),
    terminationGracePeriodSeconds: z
      .int()
      .min(0)
      .max(MAX_GRACE_SECONDS)
      .optional()
      .meta({
        description: `Seconds from SIGTERM to SIGKILL. A stock worker can take 90. Default: ${SESSION_GRACE_SECONDS} in sessions; ${WORKER_GRACE_SECONDS} in workers, which finish their sessions first.`,
      }),
    runtimeClassName: z.string().max(MAX_NAME).optional().meta({
      description: "RuntimeClass of the Pods. Must not be set with isolation.",
    }),
    hostNetwork: z.boolean().optional().meta({ description: "Whether the Pods use the network of their node." }),
    hostPID: z.boolean().optional().meta({ description: "Whether the Pods see the processes of their node." }),
    hostIPC: z.boolean().optional().meta({ description: "Whether the Pods share the IPC namespace of their node." }),
  })
  .meta({
    description:
      "A PodSpec. Fields that are not listed here are passed through, and checked by a dry run. The operator's policy limits what it can contain. Defaults fit Pod Security restricted.",
  });

/** Strict at this level, which Kubernetes has never extended: a misspelled `spec` is found at once. */
const template = z.strictObject({ metadata: metadata.optional(), spec });

/** A PodTemplateSpec. Only fields that rules read are declared; all others are kept unchanged. */
export type PodTemplate = z.output<typeof template>;
export type PodTemplateContainer = PodTemplate["spec"]["containers"][number];

/**
 * Name of the container in which a session (or a worker) runs: the one of the default-container annotation, else the
 * first. A wrong annotation may name no container; the schema refuses such a template.
 */
export function sessionContainerName(template: PodTemplate): string {
  const named = template.metadata?.annotations?.[ANNOTATION_DEFAULT_CONTAINER];
  return named ?? template.spec.containers[0]?.name ?? "";
}

/** The container in which a session (or a worker) runs, or undefined when the annotation names none. */
export function sessionContainer(template: PodTemplate): PodTemplateContainer | undefined {
  const name = sessionContainerName(template);
  return template.spec.containers.find((candidate) => candidate.name === name);
}

const quoted = (words: readonly string[]) => words.map((word) => `'${word}'`).join(", ");
const OWN_PREFIX = `${GROUP}/`;
const keysOf = (record: Record<string, string> | undefined) => Object.keys(record ?? {});

/** CEL that applies `body` to the session container `c`. */
const overSessionContainer = (body: string) =>
  `self.spec.containers.all(c, c.name != (has(self.metadata) && has(self.metadata.annotations) && '${ANNOTATION_DEFAULT_CONTAINER}' in self.metadata.annotations ? self.metadata.annotations['${ANNOTATION_DEFAULT_CONTAINER}'] : self.spec.containers[0].name) || (${body}))`;

const noDeadline = (instead: string): Rule<PodTemplate> => ({
  cel: "!has(self.spec.activeDeadlineSeconds)",
  field: "spec.activeDeadlineSeconds",
  message: `activeDeadlineSeconds must not be set; ${instead}`,
  holds: ({ spec }) => spec.activeDeadlineSeconds === undefined,
});

const commonRules: Rule<PodTemplate>[] = [
  {
    cel: `!has(self.metadata) || !has(self.metadata.annotations) || !('${ANNOTATION_DEFAULT_CONTAINER}' in self.metadata.annotations) || self.spec.containers.exists(c, c.name == self.metadata.annotations['${ANNOTATION_DEFAULT_CONTAINER}'])`,
    field: "metadata.annotations",
    message: `annotation ${ANNOTATION_DEFAULT_CONTAINER} must name a container of the template; name one of spec.containers, or remove it to use the first`,
    holds: (template) => {
      const named = template.metadata?.annotations?.[ANNOTATION_DEFAULT_CONTAINER];
      return named === undefined || template.spec.containers.some(({ name }) => name === named);
    },
  },
  {
    cel: overSessionContainer(`!has(c.env) || !c.env.exists(e, e.name in [${quoted(RESERVED_ENV)}])`),
    field: "spec.containers",
    message: `env of the session or worker container must not set ${RESERVED_ENV.join(", ")}, which Berth sets; remove them`,
    holds: (template) => {
      const reserved = new Set<string>(RESERVED_ENV);
      return !sessionContainer(template)?.env?.some(({ name }) => reserved.has(name));
    },
  },
  {
    cel: `!has(self.metadata) || !has(self.metadata.labels) || self.metadata.labels.all(k, !k.startsWith('${OWN_PREFIX}'))`,
    field: "metadata.labels",
    message: `labels that begin with ${OWN_PREFIX} must not be set, because Berth sets them; remove them`,
    holds: ({ metadata }) => !keysOf(metadata?.labels).some((key) => key.startsWith(OWN_PREFIX)),
  },
  {
    cel: `!has(self.metadata) || !has(self.metadata.annotations) || self.metadata.annotations.all(k, !k.startsWith('${OWN_PREFIX}'))`,
    field: "metadata.annotations",
    message: `annotations that begin with ${OWN_PREFIX} must not be set, because Berth sets them; remove them`,
    holds: ({ metadata }) => !keysOf(metadata?.annotations).some((key) => key.startsWith(OWN_PREFIX)),
  },
  {
    // `namespace` is a reserved word of CEL. Older API servers require the escaped form, and newer ones accept it.
    cel: "!has(self.metadata) || (!has(self.metadata.name) && !has(self.metadata.generateName) && !has(self.metadata.__namespace__))",
    field: "metadata",
    message:
      "name, generateName and namespace must not be set, because Berth names each Pod in the Environment's namespace; remove them",
    holds: ({ metadata }) =>
      metadata?.name === undefined && metadata?.generateName === undefined && metadata?.namespace === undefined,
  },
];

/** Names of volumes that Berth adds to a Pod, with what it uses them for. */
const volumeRules: Rule<PodTemplate>[] = [
  [WORKSPACE_VOLUME, "a session's workspace"],
  [KEEPER_VOLUME, "sessions that sleep"],
].map(([reserved, use]) => ({
  cel: `!has(self.spec.volumes) || self.spec.volumes.all(v, v.name != '${reserved}')`,
  field: "spec.volumes",
  message: `no volume may have the name ${reserved}, which Berth uses for ${use}; choose another name`,
  holds: ({ spec }) => !spec.volumes?.some(({ name }) => name === reserved),
}));

/** The list type makes the API server refuse duplicate names; here a check is needed. */
const uniqueNames = <S extends z.ZodType<PodTemplate>>(schema: S): S =>
  schema.refine(({ spec }) => new Set(spec.containers.map(({ name }) => name)).size === spec.containers.length, {
    message: "two containers have the same name; give each its own name",
    path: ["spec", "containers"],
  });

/**
 * A PodSpec has about a dozen levels. A JSON parser accepts thousands, which would overflow the stack of code that
 * writes the template again. CEL cannot count levels.
 */
const MAX_DEPTH = 100;

const notTooDeep = <S extends z.ZodType<PodTemplate>>(schema: S): S =>
  schema.refine((template) => isNotDeeper(template, MAX_DEPTH), {
    message: `the template has more than ${MAX_DEPTH} levels, more than any Pod; remove the field that is nested so deeply`,
  });

/** Checks level by level, because a recursive walk would overflow the stack itself. */
function isNotDeeper(value: unknown, most: number): boolean {
  let level: unknown[] = [value];
  for (let depth = 0; depth <= most; depth += 1) {
    level = level.flatMap((part) => (typeof part === "object" && part !== null ? Object.values(part) : []));
    if (level.length === 0) return true;
  }
  return false;
}

/** Template of Pods that serve one session each. */
export const sessionTemplate = withRules(
  uniqueNames(notTooDeep(template)).meta({
    description: "Template of a session's Pod: a PodTemplateSpec.",
  }),
  [
    ...commonRules,
    ...volumeRules,
    noDeadline("set maxDurationSeconds, from which Berth sets the Pod's deadline"),
    {
      cel: "!has(self.spec.restartPolicy) || self.spec.restartPolicy == 'Never'",
      field: "spec.restartPolicy",
      message: "restartPolicy must be Never, because a Pod serves one session; set Never, or remove the field",
      holds: ({ spec }) => spec.restartPolicy === undefined || spec.restartPolicy === "Never",
    },
    {
      cel: overSessionContainer(
        "(!has(c.restartPolicy) || c.restartPolicy == 'Never') && (!has(c.restartPolicyRules) || c.restartPolicyRules.size() == 0)",
      ),
      field: "spec.containers",
      message: "the session container must not restart; remove its restartPolicy and restartPolicyRules",
      holds: (template) => {
        const session = sessionContainer(template);
        const never = session?.restartPolicy === undefined || session.restartPolicy === "Never";
        return never && !session?.restartPolicyRules?.length;
      },
    },
  ],
);

/** Template of always-on workers: Pods of a Deployment. */
export const workerTemplate = withRules(
  uniqueNames(notTooDeep(template)).meta({
    description: "Template of a worker's Pod: a PodTemplateSpec.",
  }),
  [
    ...commonRules,
    noDeadline("remove it, because workers run until the Environment scales down"),
    {
      cel: "!has(self.spec.restartPolicy) || self.spec.restartPolicy == 'Always'",
      field: "spec.restartPolicy",
      message:
        "restartPolicy must be Always, because a Deployment restarts its workers; set Always, or remove the field",
      holds: ({ spec }) => spec.restartPolicy === undefined || spec.restartPolicy === "Always",
    },
  ],
);
