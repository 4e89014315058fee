import { z } from "zod";
import { type Rule, withRules } from "./rule.ts";

/** The Work API of the platform. The operator knows its published networks, but not those of other addresses. */
export const DEFAULT_BASE_URL = "https://api.anthropic.com";

/** Bounds the cost of the rules, and the size of the NetworkPolicy. */
const MAX_CIDRS = 64;
/** Length of the longest IPv6 address with its prefix length. */
const MAX_CIDR = 49;

const BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
const V4 = `(${BYTE}\\.){3}${BYTE}/(3[0-2]|[12]?[0-9])`;
/** Checks only the characters. The API server parses the addresses in the NetworkPolicy. */
const V6 = "[0-9a-fA-F.]*:[0-9a-fA-F:.]*/(12[0-8]|1[01][0-9]|[1-9]?[0-9])";
/** Valid for RE2 and JavaScript. CEL's `isCIDR` is missing in the oldest cluster that the chart supports. */
export const CIDR_PATTERN = `^(${V4}|${V6})$`;

/** Connections of a Pod to itself. NetworkPolicies do not affect them, so they need no network in the spec. */
const LOOPBACK_PATTERN = "^https?://(localhost|127\\.[0-9.]+|\\[::1\\])(:[0-9]+)?$";

/** Bounds of the API server for keys and values of labels. */
const MAX_LABEL_KEY = 317;
const MAX_LABEL_VALUE = 63;
const MAX_SELECTED = 16;

const labelSelector = z.strictObject({
  matchLabels: z
    .record(z.string(), z.string().max(MAX_LABEL_VALUE))
    .optional()
    .meta({ description: "Labels with exactly these values.", maxProperties: MAX_SELECTED }),
  matchExpressions: z
    .array(
      z
        .strictObject({
          key: z.string().max(MAX_LABEL_KEY).meta({ description: "Key of the label." }),
          operator: z
            .enum(["In", "NotIn", "Exists", "DoesNotExist"])
            .meta({ description: "How the label relates to the values." }),
          values: z
            .array(z.string().max(MAX_LABEL_VALUE).meta({ description: "A value of the label." }))
            .max(MAX_SELECTED)
            .optional()
            .meta({ description: "Values, for In and NotIn." }),
        })
        .meta({ description: "A requirement of one label." }),
    )
    .max(MAX_SELECTED)
    .optional()
    .meta({ description: "More requirements." }),
});

/** In the shape of a NetworkPolicyPeer. */
const selectedPods = withRules(
  z
    .strictObject({
      namespaceSelector: labelSelector
        .optional()
        .meta({ description: "Labels of the namespaces. Default: the Environment's namespace." }),
      podSelector: labelSelector.optional().meta({ description: "Labels of the Pods. Default: all Pods." }),
    })
    .meta({ description: "Pods by their labels, as in a NetworkPolicy." }),
  [
    {
      cel: "has(self.namespaceSelector) || has(self.podSelector)",
      message: "set namespaceSelector, podSelector or both; {} selects all",
      holds: ({ namespaceSelector, podSelector }) => namespaceSelector !== undefined || podSelector !== undefined,
    },
  ],
);

const egress = withRules(
  z
    .strictObject({
      cidrs: z
        .array(z.string().max(MAX_CIDR).meta({ description: "A network in CIDR notation, such as 10.20.0.0/16." }))
        .max(MAX_CIDRS)
        .optional()
        .meta({
          description: "Networks, such as 10.20.0.0/16.",
          "x-kubernetes-list-type": "atomic",
        }),
      pods: z.array(selectedPods).max(MAX_SELECTED).optional().meta({
        description:
          "Pods of the cluster, such as those behind a Service. Each entry has namespaceSelector, podSelector or both; {} selects all.",
        "x-kubernetes-list-type": "atomic",
      }),
    })
    .meta({
      description:
        "What else the Pods can reach, on all ports. Only the networks of the default api.baseUrl are known: with another one, set cidrs or pods, even if empty.",
    }),
  [
    {
      cel: `!has(self.cidrs) || self.cidrs.all(c, c.matches('${CIDR_PATTERN.replaceAll("\\", "\\\\")}'))`,
      field: "cidrs",
      message: "cidrs must be networks; use for example 10.20.0.0/16, 203.0.113.7/32 or 2001:db8::/32",
      holds: ({ cidrs = [] }) => cidrs.every((cidr) => new RegExp(CIDR_PATTERN).test(cidr)),
    },
  ],
);

/** `spec.network`: which networks the Pods of either mode may reach, and which may reach them. */
export const networkSpec = z
  .strictObject({
    policy: z.enum(["Managed", "None"]).default("Managed").meta({
      description:
        "Managed: the NetworkPolicy allows no incoming connections except busy probes, and outgoing ones only to DNS, the API and egress. None: no NetworkPolicy; required with hostNetwork.",
    }),
    egress: egress.prefault({}),
  })
  .prefault({})
  .meta({ description: "NetworkPolicy of the Pods. The cluster's network must enforce it." });
export type NetworkSpec = z.output<typeof networkSpec>;

/** The parts of an Environment's spec that concern its network. */
interface Networked {
  readonly network: NetworkSpec;
  readonly api: { readonly baseUrl: string };
  readonly sessions?: WithTemplate | undefined;
  readonly workers?: WithTemplate | undefined;
}
interface WithTemplate {
  readonly template: { readonly spec: { readonly hostNetwork?: boolean | undefined } };
}

const onHost = (mode: string) =>
  `has(self.${mode}) && has(self.${mode}.template.spec.hostNetwork) && self.${mode}.template.spec.hostNetwork`;

/** Rules of the whole spec. */
export const networkRules: readonly Rule<Networked>[] = [
  {
    cel: `self.network.policy == 'None' || has(self.network.egress.cidrs) || has(self.network.egress.pods) || self.api.baseUrl == '${DEFAULT_BASE_URL}' || self.api.baseUrl.matches('${LOOPBACK_PATTERN.replaceAll("\\", "\\\\")}')`,
    field: "network.egress",
    message: `network.egress must name your Work API if api.baseUrl is not ${DEFAULT_BASE_URL}; add its networks to cidrs (such as 10.20.0.0/16) or its Pods to pods, or set network.policy: None`,
    holds: ({ network, api }) =>
      network.policy === "None" ||
      network.egress.cidrs !== undefined ||
      network.egress.pods !== undefined ||
      api.baseUrl === DEFAULT_BASE_URL ||
      new RegExp(LOOPBACK_PATTERN).test(api.baseUrl),
  },
  {
    cel: `self.network.policy == 'None' || !((${onHost("sessions")}) || (${onHost("workers")}))`,
    field: "network.policy",
    message:
      "a NetworkPolicy has no effect on Pods with hostNetwork; remove hostNetwork from the template, or set network.policy: None",
    holds: ({ network, sessions, workers }) =>
      network.policy === "None" || !(sessions ?? workers)?.template.spec.hostNetwork,
  },
];
