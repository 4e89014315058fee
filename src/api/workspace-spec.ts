import { z } from "zod";
import { fieldMatches, MAX_NAME, NAME_PATTERN, seconds, withRules } from "./rule.ts";

const DAY = 86_400;
const MINUTE = 60;
/** A former operator may have requested a Pod that will mount the volume. By then, that request has arrived. */
const MIN_RETAIN = MINUTE;
const MAX_RETAIN = 365 * DAY;
/** A sleeping Pod reserves its requests on its node. */
const MAX_SLEEP = 7 * DAY;
const MAX_PATH = 1024;
const MAX_QUANTITY = 32;
/** Kubernetes has this many. */
const MAX_ACCESS_MODES = 4;
const QUANTITY_PATTERN = "^([1-9][0-9]*|[0-9]+\\.[0-9]*[1-9][0-9]*)(k|Ki|M|Mi|G|Gi|T|Ti|P|Pi|E|Ei)?$";
const PATH_PATTERN = "^(/[A-Za-z0-9._-]*[A-Za-z0-9_-][A-Za-z0-9._-]*)+$";

const requests = withRules(
  z
    .strictObject({
      storage: z.string().min(1).max(MAX_QUANTITY).meta({ description: "Size of a session's volume, such as 10Gi." }),
    })
    .meta({ description: "Requests of each volume." }),
  [
    fieldMatches(
      "storage",
      QUANTITY_PATTERN,
      "storage must be an amount above 0 with a unit; use for example 10Gi or 500Mi",
    ),
  ],
);

const claimTemplate = withRules(
  z
    .strictObject({
      accessModes: z
        .array(
          z.enum(["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"]).meta({
            description: "An access mode of a PersistentVolumeClaim.",
          }),
        )
        .min(1)
        .max(MAX_ACCESS_MODES)
        .default(["ReadWriteOnce"])
        .meta({
          description:
            "How nodes can mount a volume: ReadWriteOnce, ReadWriteOncePod (if the driver supports it) or ReadWriteMany. Change it only if your StorageClass needs another mode: one Pod at a time uses a volume.",
          "x-kubernetes-list-type": "atomic",
        }),
      resources: z.strictObject({ requests }).meta({ description: "Size of each volume." }),
      storageClassName: z.string().max(MAX_NAME).optional().meta({
        description:
          "StorageClass of the volumes. Set it if the cluster has no default, or if sessions need faster or cheaper disks.",
      }),
    })
    .meta({ description: "Template of each session's PersistentVolumeClaim. Required with type PerSession." }),
  [
    fieldMatches(
      "storageClassName",
      NAME_PATTERN,
      "storageClassName must be the name of a StorageClass (lowercase letters, digits, - and .); correct the name",
    ),
  ],
);

/** `spec.sessions.workspace`: the files that a session finds at its next work item. */
export const workspaceSpec = withRules(
  z
    .strictObject({
      type: z.enum(["Ephemeral", "Pod", "PerSession"]).default("Ephemeral").meta({
        description:
          "Which files a session finds at its next work item. Ephemeral: none. Pod: those at mountPath, until its Pod is deleted. PerSession: those at mountPath, on a volume per session that outlives its Pods. Set Pod for files that can be lost, and PerSession for others.",
      }),
      claimTemplate: claimTemplate.optional(),
      mountPath: z.string().min(1).max(MAX_PATH).default("/workspace").meta({
        description:
          "Absolute path of the kept folder in the session container. Change it if your program writes elsewhere.",
      }),
      retainSeconds: seconds(
        7 * DAY,
        MIN_RETAIN,
        MAX_RETAIN,
        "Only with type PerSession: seconds to keep a session's volume that no Pod uses. Each use by a Pod, also a sleeping one, starts them again. Then Berth deletes the volume with its files. Raise it if sessions return later.",
      ),
      sizeLimit: z.string().min(1).max(MAX_QUANTITY).optional().meta({
        description:
          "Only with type Pod: maximum size of a session's files, such as 10Gi. The kubelet evicts a Pod that exceeds it, and the files are lost. Set it so that one session cannot fill its node's disk. Default: no limit.",
      }),
      sleepSeconds: z.int32().min(0).max(MAX_SLEEP).optional().meta({
        description:
          "Seconds that a session sleeps in its Pod after a work item. Its next item finds the Pod with its files, and starts the time again; otherwise the Pod is deleted. 0, the only value for Ephemeral: it does not sleep. Raise it if messages come later. Default: 1800 with type Pod, else 0.",
      }),
    })
    .prefault({})
    .meta({ description: "Files that a session keeps between messages." }),
  [
    {
      // The API server validates the default of the whole object before it fills in the nested defaults.
      cel: "!has(self.type) || self.type != 'PerSession' || has(self.claimTemplate)",
      field: "claimTemplate",
      message: "workspace type PerSession needs a claimTemplate; set at least resources.requests.storage",
      holds: ({ type, claimTemplate: template }) => type !== "PerSession" || template !== undefined,
    },
    fieldMatches(
      "mountPath",
      PATH_PATTERN,
      "mountPath must be an absolute path without . and ..; use for example /workspace",
    ),
    {
      cel: "!has(self.sizeLimit) || (has(self.type) && self.type == 'Pod')",
      field: "sizeLimit",
      message:
        "sizeLimit needs workspace type Pod; remove it (claimTemplate.resources.requests.storage is the size of a PerSession volume)",
      holds: ({ type, sizeLimit }) => sizeLimit === undefined || type === "Pod",
    },
    fieldMatches(
      "sizeLimit",
      QUANTITY_PATTERN,
      "sizeLimit must be an amount above 0 with a unit; use for example 10Gi or 500Mi",
    ),
    {
      cel: "!has(self.sleepSeconds) || self.sleepSeconds == 0 || (has(self.type) && self.type != 'Ephemeral')",
      field: "sleepSeconds",
      message:
        "sleepSeconds must be 0 with workspace type Ephemeral, which keeps no files; set type to Pod or PerSession, or remove sleepSeconds",
      holds: ({ type, sleepSeconds = 0 }) => sleepSeconds === 0 || type !== "Ephemeral",
    },
  ],
);
export type WorkspaceSpec = z.output<typeof workspaceSpec>;
