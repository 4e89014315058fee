import {
  ANY,
  apparmorAnnotations,
  CONTROL_PLANE_TAINTS,
  capability,
  DEFAULT_ACCOUNT,
  folder,
  type Look,
  named,
  nonZero,
  otherKind,
  otherThan,
  saying,
  tokenWhen,
  toleration,
  VOLUME_KINDS,
  whenTrue,
} from "./policy-looks.ts";
import { celOfPath, placesOf, type TemplatePath } from "./template-path.ts";

/** One item that a template requests beyond the permissions of every template, with its rule and field. */
export interface Need {
  readonly key: PolicyKey;
  /** The name, path or kind that needs permission; empty for a switch. */
  readonly item: string;
  /** Relative to the template. */
  readonly field: string;
}

/** One value of the chart's `podPolicy`. */
export interface PolicyRule {
  /**
   * `switch`: true or false. `names`: a list, in which `*` means all. `paths`: a list of folders, in which / means all.
   */
  readonly kind: "switch" | "names" | "paths";
  /** A description for people of what it allows. */
  readonly about: string;
  readonly looks: readonly Look[];
}

const HOST_NAMESPACES = ["hostNetwork", "hostPID", "hostIPC"] as const;

/**
 * Sysctls that Kubernetes counts as safe: each applies to a namespace of the Pod (Pod Security Standards, Baseline).
 */
const SAFE_SYSCTLS = [
  "kernel.shm_rmid_forced",
  "net.ipv4.ip_local_port_range",
  "net.ipv4.ip_local_reserved_ports",
  "net.ipv4.ip_unprivileged_port_start",
  "net.ipv4.ping_group_range",
  "net.ipv4.tcp_fin_timeout",
  "net.ipv4.tcp_keepalive_intvl",
  "net.ipv4.tcp_keepalive_probes",
  "net.ipv4.tcp_keepalive_time",
  "net.ipv4.tcp_syncookies",
];

/** Types for containers, with equal confinement (Pod Security Standards, Baseline). */
const SELINUX_TYPES = ["container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

const CONTEXTS: readonly TemplatePath[] = ["@pod.securityContext", "@container.securityContext"];
const HANDLER = "(httpGet|tcpSocket).host";

/**
 * What templates need the policy's permission for: everything that reaches beyond the Pod's namespace or weakens its
 * confinement. The keys are those of the chart's `podPolicy`. The rules cover at least what Pod Security `baseline`
 * refuses, for the reasons given there: https://kubernetes.io/docs/concepts/security/pod-security-standards/#baseline.
 */
export const POLICY_RULES = {
  privileged: {
    kind: "switch",
    about: "privileged containers, and Windows containers on the host (hostProcess)",
    looks: [
      whenTrue("@container.securityContext.privileged"),
      ...CONTEXTS.map((context) => whenTrue(`${context}.windowsOptions.hostProcess`)),
    ],
  },
  privilegeEscalation: {
    kind: "switch",
    about: "allowPrivilegeEscalation: true, with which setuid programs such as sudo work",
    looks: [whenTrue("@container.securityContext.allowPrivilegeEscalation")],
  },
  unconfined: {
    kind: "switch",
    about: "seccomp and AppArmor profiles Unconfined, custom SELinux options, and procMount: Unmasked",
    looks: [
      ...CONTEXTS.flatMap((context) => [
        saying(`${context}.seccompProfile.type`, "Unconfined"),
        saying(`${context}.appArmorProfile.type`, "Unconfined"),
        otherThan(`${context}.seLinuxOptions.type`, SELINUX_TYPES),
        otherThan(`${context}.seLinuxOptions.(user|role)`),
      ]),
      otherThan("@container.securityContext.procMount", ["Default"]),
      apparmorAnnotations,
    ],
  },
  capabilities: {
    kind: "names",
    about: "capabilities that containers add",
    looks: [capability("@container.securityContext.capabilities.add[]")],
  },
  hostNamespaces: {
    kind: "names",
    about: "namespaces of the node: hostNetwork, hostPID, hostIPC, and hostUsers: true",
    looks: [...HOST_NAMESPACES, "hostUsers"].map((name) => whenTrue(`@pod.${name}`, name)),
  },
  hostPorts: {
    kind: "switch",
    about: "ports of the node (hostPort)",
    looks: [nonZero("@container.ports[].hostPort")],
  },
  hostPaths: {
    kind: "paths",
    about: "folders of the node that hostPath volumes may mount, with everything below them",
    looks: [folder("@pod.volumes[].hostPath.path")],
  },
  probeHosts: {
    kind: "switch",
    about: "probes and lifecycle hooks that the kubelet sends to another host than the Pod",
    looks: [
      otherThan(`@container.(livenessProbe|readinessProbe|startupProbe).${HANDLER}`),
      otherThan(`@container.lifecycle.(postStart|preStop).${HANDLER}`),
    ],
  },
  sysctls: {
    kind: "names",
    about: "sysctls other than those that Kubernetes considers safe",
    looks: [named("@pod.securityContext.sysctls[].name", SAFE_SYSCTLS)],
  },
  csiDrivers: {
    kind: "names",
    about: "drivers of inline CSI volumes",
    looks: [named("@pod.volumes[].csi.driver")],
  },
  volumeKinds: {
    kind: "names",
    about: `kinds of volumes other than ${VOLUME_KINDS.join(", ")}`,
    looks: [otherKind("@pod.volumes[]")],
  },
  serviceAccounts: {
    kind: "names",
    about:
      "service accounts, other than default, that Pods may run as, and service accounts whose tokens they may have (automountServiceAccountToken, projected tokens and certificates)",
    looks: [
      named("@pod.(serviceAccountName|serviceAccount)", [DEFAULT_ACCOUNT]),
      tokenWhen(
        "@pod.automountServiceAccountToken",
        (value) => value === true,
        (value) => `${value} != true`,
      ),
      tokenWhen(
        "@pod.volumes[].projected.sources[].(serviceAccountToken|podCertificate)",
        () => true,
        (value) => `${value} == null`,
      ),
    ],
  },
  runtimeClasses: {
    kind: "names",
    about: "runtime classes other than those of isolation",
    looks: [named("@pod.runtimeClassName")],
  },
  priorityClasses: {
    kind: "names",
    about: "priority classes",
    looks: [named("@pod.priorityClassName")],
  },
  schedulers: {
    kind: "names",
    about: "schedulers other than default-scheduler",
    looks: [named("@pod.schedulerName", ["default-scheduler"])],
  },
  nodeName: {
    kind: "switch",
    about: "nodeName, with which a Pod bypasses the scheduler and taints",
    looks: [otherThan("@pod.nodeName")],
  },
  tolerations: {
    kind: "names",
    about: `tolerations of all taints ("${ANY}") and of control plane taints (keys ${CONTROL_PLANE_TAINTS}...)`,
    looks: [toleration("@pod.tolerations[]")],
  },
} as const satisfies Record<string, PolicyRule>;

export type PolicyKey = keyof typeof POLICY_RULES;
export const POLICY_KEYS = Object.keys(POLICY_RULES) as PolicyKey[];

const rulesOf: Readonly<Record<PolicyKey, PolicyRule>> = POLICY_RULES;

/** Returns all needs of a template by these rules. `template` is any JSON, such as a PodTemplateSpec or a Pod. */
export function needsOf(template: unknown): Need[] {
  return POLICY_KEYS.flatMap((key) =>
    rulesOf[key].looks.flatMap(({ at, items }) =>
      placesOf(template, at).flatMap((place) =>
        items(place, template).map((item) => ({ key, item, field: place.field })),
      ),
    ),
  );
}

/** CEL of one rule. It uses the variables template, containers, account, and allowed: a map of lists by key. */
export function celOfRule(key: PolicyKey): string {
  const allowed = `variables.allowed.${key}`;
  return rulesOf[key].looks.map(({ at, cel }) => `(${celOfPath(at, (value) => cel(value, allowed))})`).join(" && ");
}
