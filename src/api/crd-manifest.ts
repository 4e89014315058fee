import { environmentResource } from "./environment.ts";
import { GROUP, KIND, LABEL_NAME, LABEL_PART_OF, PLURAL, VERSION } from "./names.ts";
import { type StructuralSchema, toStructuralSchema } from "./structural-schema.ts";

/**
 * The columns of `kubectl get benv`. Columns with priority 1 need `-o wide`. Each path works for both modes; a value
 * that exists in one mode only is empty in the other.
 */
export const PRINTER_COLUMNS = [
  { name: "Mode", type: "string", jsonPath: ".status.mode", description: "Sessions or Workers." },
  { name: "Queue", type: "integer", jsonPath: ".status.queue.depth", description: "Waiting work items." },
  {
    name: "Warm",
    type: "integer",
    jsonPath: ".status.sessions.warm",
    description: "Warm Pods, which wait for a session.",
  },
  { name: "Running", type: "integer", jsonPath: ".status.sessions.running", description: "Running sessions." },
  { name: "Sleeping", type: "integer", jsonPath: ".status.sessions.sleeping", description: "Sleeping sessions." },
  {
    name: "Max",
    type: "integer",
    jsonPath: ".status.max",
    description: "The spec's maxConcurrent or maxReplicas.",
  },
  {
    name: "Ready",
    type: "string",
    jsonPath: '.status.conditions[?(@.type=="Ready")].status',
    description: "Whether Berth serves the Environment.",
  },
  {
    name: "Reason",
    type: "string",
    jsonPath: '.status.conditions[?(@.type=="Ready")].reason',
    description: "Reason of Ready.",
  },
  { name: "Age", type: "date", jsonPath: ".metadata.creationTimestamp", description: "Time since creation." },
  {
    name: "Pending",
    type: "integer",
    jsonPath: ".status.queue.pending",
    description: "Work items polled but not acknowledged.",
    priority: 1,
  },
  {
    name: "Workers",
    type: "integer",
    jsonPath: ".status.workers.replicas",
    description: "Existing workers.",
    priority: 1,
  },
  {
    name: "Busy",
    type: "integer",
    jsonPath: ".status.workers.busy",
    description: "Workers that the busyProbe reports as busy.",
    priority: 1,
  },
  {
    name: "Environment",
    type: "string",
    jsonPath: ".spec.environmentId",
    description: "Id of the environment.",
    priority: 1,
  },
  {
    name: "Message",
    type: "string",
    jsonPath: '.status.conditions[?(@.type=="Ready")].message',
    description: "Message of Ready: the cause and the fix.",
    priority: 1,
  },
];

/** The schema of version v1alpha1, as the CRD contains it. */
export function environmentSchema(): StructuralSchema {
  const { properties = {}, ...schema } = toStructuralSchema(environmentResource);
  return {
    ...schema,
    required: ["spec"],
    properties: {
      apiVersion: { type: "string", description: `Version of the resource: ${GROUP}/${VERSION}.` },
      kind: { type: "string", description: `Kind of the resource: ${KIND}.` },
      ...properties,
    },
  };
}

/**
 * The CustomResourceDefinition. It deliberately has no `scale` subresource: the disruption controller would take its
 * count as the number of expected Pods.
 */
export function environmentCrd() {
  return {
    apiVersion: "apiextensions.k8s.io/v1",
    kind: "CustomResourceDefinition",
    metadata: { name: `${PLURAL}.${GROUP}`, labels: { [LABEL_NAME]: "berth", [LABEL_PART_OF]: "berth" } },
    spec: {
      group: GROUP,
      scope: "Namespaced",
      names: {
        kind: KIND,
        listKind: `${KIND}List`,
        plural: PLURAL,
        singular: "environment",
        shortNames: ["benv"],
        categories: ["berth"],
      },
      versions: [
        {
          name: VERSION,
          served: true,
          storage: true,
          schema: { openAPIV3Schema: environmentSchema() },
          subresources: { status: {} },
          additionalPrinterColumns: PRINTER_COLUMNS,
        },
      ],
    },
  };
}
