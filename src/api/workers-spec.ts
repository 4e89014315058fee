import { z } from "zod";
import { isolation, isolationRule } from "./isolation.ts";
import { workerTemplate } from "./pod-template.ts";
import { fieldMatches, withRules } from "./rule.ts";

/** Each worker polls. A thousand pollers exceed an organization's request limits. */
const MAX_REPLICAS = 1000;
const MAX_SESSIONS_PER_REPLICA = 1000;
/** The bounds of autoscaling/v2 (pkg/apis/autoscaling/validation in kubernetes). */
const MAX_STABILIZATION_SECONDS = 3600;
const MAX_PERIOD_SECONDS = 1800;
const MAX_POLICIES = 16;
const MAX_PATH = 1024;
const MAX_PORT = 65_535;

const policy = z
  .strictObject({
    type: z
      .enum(["Pods", "Percent"])
      .meta({ description: "Unit of value: Pods, or percent of the replicas. From 0, each percentage allows 1." }),
    value: z.int32().min(1).meta({ description: "Maximum change within the period." }),
    periodSeconds: z.int32().min(1).max(MAX_PERIOD_SECONDS).meta({
      description: "Period in seconds.",
    }),
  })
  .meta({ description: "A limit of the rate of change." });

const direction = (window: number, description: string) =>
  z
    .strictObject({
      stabilizationWindowSeconds: z.int32().min(0).max(MAX_STABILIZATION_SECONDS).default(window).meta({
        description: "Seconds of past recommendations to consider, against flapping.",
      }),
      selectPolicy: z.enum(["Max", "Min", "Disabled"]).default("Max").meta({
        description:
          "Which policy applies. Max: the one that allows most change. Min: least. Disabled: no scaling in this direction.",
      }),
      policies: z.array(policy).max(MAX_POLICIES).default([]).meta({
        description: "Limits of the rate of change. Empty, the default: no limit.",
        "x-kubernetes-list-type": "atomic",
      }),
    })
    .prefault({})
    .meta({ description });

/**
 * The windows are the defaults of autoscaling/v2 for HorizontalPodAutoscalerBehavior. There are no default policies: an
 * HPA paces its growth because its metric is a noisy average, but the queue's depth is exact.
 */
const behavior = z
  .strictObject({
    scaleUp: direction(0, "How fast Berth adds replicas. By default, only maxReplicas limits it."),
    scaleDown: direction(300, "How fast Berth removes replicas. It never removes busy ones."),
  })
  .prefault({})
  .meta({ description: "How fast Berth adds and removes replicas, as in a HorizontalPodAutoscaler." });

const busyProbe = z
  .strictObject({
    httpGet: withRules(
      z
        .strictObject({
          path: z.string().min(1).max(MAX_PATH).default("/").meta({ description: "Path of the request." }),
          port: z.int32().min(1).max(MAX_PORT).meta({ description: "Port of the worker's container." }),
        })
        .meta({ description: "HTTP request to the worker. 200 means busy, 204 idle, and anything else unknown." }),
      [fieldMatches("path", "^/", "path must begin with a slash; use for example /busy")],
    ),
  })
  .meta({
    description: "How the operator detects busy workers. Without it, no worker is removed while any session runs.",
  });

/** `spec.workers`: always-on workers, which poll themselves. */
export const workersSpec = withRules(
  z
    .strictObject({
      minReplicas: z
        .int32()
        .min(0)
        .max(MAX_REPLICAS)
        .default(0)
        .meta({ description: "Minimum number of workers. 0 scales to zero." }),
      maxReplicas: z.int32().min(1).max(MAX_REPLICAS).meta({ description: "Maximum number of workers." }),
      sessionsPerReplica: z.int32().min(1).max(MAX_SESSIONS_PER_REPLICA).default(1).meta({
        description: "Sessions that one worker serves at a time.",
      }),
      behavior,
      busyProbe: busyProbe.optional(),
      isolation,
      template: workerTemplate,
    })
    .meta({
      description: "Runs always-on workers, which poll the queue themselves. Set either sessions or workers.",
    }),
  [
    {
      cel: "self.minReplicas <= self.maxReplicas",
      field: "minReplicas",
      message: "minReplicas must not be greater than maxReplicas; lower minReplicas, or raise maxReplicas",
      holds: ({ minReplicas, maxReplicas }) => minReplicas <= maxReplicas,
    },
    isolationRule,
  ],
);
export type WorkersSpec = z.output<typeof workersSpec>;
