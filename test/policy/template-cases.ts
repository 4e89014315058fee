/** Pod templates and the permissions that they need, for tests of the operator and of its admission policy. */
import type { Json } from "../api/environments.ts";

/** A Pod template, and what the operator's policy would have to allow for it, in words of --allowed-in-templates. */
export interface TemplateCase {
  /** The part of the template that matters. */
  readonly name: string;
  readonly metadata?: Json;
  /** Fields of the Pod's spec, and of the container in which the session or the worker runs. */
  readonly pod?: Json;
  readonly container?: Json;
  readonly needs: readonly string[];
  /** The field below the template; required if something is refused. */
  readonly field?: string;
  /** Only the policy checks this: the API server refuses such a Pod under any policy. */
  readonly impossible?: true;
}

/** Returns the template of a case, for either mode. */
export function templateOf({ metadata, pod, container }: Omit<TemplateCase, "name" | "needs">): Json {
  return {
    ...(metadata ? { metadata } : {}),
    spec: { ...pod, containers: [{ name: "worker", image: "worker:1", ...container }] },
  };
}

const main = "spec.containers[0]";
const inContainer = (securityContext: Json) => ({ container: { securityContext } });
const inPod = (securityContext: Json) => ({ pod: { securityContext } });
const volume = (source: Json) => ({ pod: { volumes: [{ name: "v", ...source }] } });
const init = (container: Json) => ({ pod: { initContainers: [{ name: "first", image: "git:2", ...container }] } });
const probe = (host: string) => ({ httpGet: { host, port: 80 } });

/** Templates that are refused while the policy allows nothing. */
const FORBIDDEN: readonly TemplateCase[] = [
  {
    name: "a privileged container",
    ...inContainer({ privileged: true }),
    needs: ["privileged"],
    field: `${main}.securityContext.privileged`,
  },
  {
    name: "a privileged init container",
    ...init({ securityContext: { privileged: true } }),
    needs: ["privileged"],
    field: "spec.initContainers[0].securityContext.privileged",
  },
  {
    name: "a privileged sidecar",
    ...init({ restartPolicy: "Always", securityContext: { privileged: true } }),
    needs: ["privileged"],
    field: "spec.initContainers[0].securityContext.privileged",
  },
  {
    name: "a privileged ephemeral container",
    pod: { ephemeralContainers: [{ name: "debug", image: "sh:1", securityContext: { privileged: true } }] },
    needs: ["privileged"],
    field: "spec.ephemeralContainers[0].securityContext.privileged",
    impossible: true,
  },
  {
    name: "a Windows container on the host",
    ...inContainer({ windowsOptions: { hostProcess: true } }),
    needs: ["privileged"],
    field: `${main}.securityContext.windowsOptions.hostProcess`,
    impossible: true,
  },
  {
    name: "a Windows Pod on the host",
    pod: { os: { name: "windows" }, hostNetwork: true, securityContext: { windowsOptions: { hostProcess: true } } },
    needs: ["hostNamespaces=hostNetwork", "privileged"],
    field: "spec.securityContext.windowsOptions.hostProcess",
  },
  {
    name: "escalation",
    ...inContainer({ allowPrivilegeEscalation: true }),
    needs: ["privilegeEscalation"],
    field: `${main}.securityContext.allowPrivilegeEscalation`,
  },
  ...["NET_ADMIN", "CAP_NET_ADMIN", "net_admin", "cap_net_admin"].map((capability) => ({
    name: `the capability ${capability}`,
    ...inContainer({ capabilities: { add: [capability] } }),
    needs: ["capabilities=NET_ADMIN"],
    field: `${main}.securityContext.capabilities.add[0]`,
  })),
  {
    name: "all capabilities, beside one",
    ...inContainer({ capabilities: { add: ["CHOWN", "ALL"] } }),
    needs: ["capabilities=ALL", "capabilities=CHOWN"],
    field: `${main}.securityContext.capabilities.add[1]`,
  },
  {
    name: "a capability of an init container",
    ...init({ securityContext: { capabilities: { add: ["SYS_PTRACE"] } } }),
    needs: ["capabilities=SYS_PTRACE"],
    field: "spec.initContainers[0].securityContext.capabilities.add[0]",
  },
  {
    name: "an unmasked /proc",
    ...inContainer({ procMount: "Unmasked" }),
    pod: { hostUsers: false },
    needs: ["unconfined"],
    field: `${main}.securityContext.procMount`,
  },
  ...[
    { seccompProfile: { type: "Unconfined" } },
    { appArmorProfile: { type: "Unconfined" } },
    { seLinuxOptions: { type: "spc_t" } },
    { seLinuxOptions: { user: "system_u" } },
    { seLinuxOptions: { role: "system_r" } },
  ].flatMap((context) => {
    const text = JSON.stringify(context).replaceAll(/["{}]/g, "").replaceAll(":", ".");
    const field = text.split(".").slice(0, 2).join(".");
    return [
      {
        name: `${text} for a container`,
        ...inContainer(context),
        needs: ["unconfined"],
        field: `${main}.securityContext.${field}`,
      },
      { name: `${text} for the Pod`, ...inPod(context), needs: ["unconfined"], field: `spec.securityContext.${field}` },
    ];
  }),
  {
    name: "AppArmor disabled by an annotation",
    metadata: { annotations: { "container.apparmor.security.beta.kubernetes.io/worker": "unconfined" } },
    needs: ["unconfined"],
    field: "metadata.annotations",
  },
  ...["hostPID", "hostIPC"].map((name) => ({
    name,
    pod: { [name]: true },
    needs: [`hostNamespaces=${name}`],
    field: `spec.${name}`,
  })),
  {
    name: "hostNetwork",
    pod: { hostNetwork: true },
    needs: ["hostNamespaces=hostNetwork"],
    field: "spec.hostNetwork",
  },
  {
    name: "the users of the node",
    pod: { hostUsers: true },
    needs: ["hostNamespaces=hostUsers"],
    field: "spec.hostUsers",
  },
  {
    name: "a port of the node",
    container: { ports: [{ containerPort: 80 }, { containerPort: 8080, hostPort: 8080 }] },
    needs: ["hostPorts"],
    field: `${main}.ports[1].hostPort`,
  },
  {
    name: "a port of the node in a sidecar",
    ...init({ restartPolicy: "Always", ports: [{ containerPort: 53, hostPort: 53, protocol: "UDP" }] }),
    needs: ["hostPorts"],
    field: "spec.initContainers[0].ports[0].hostPort",
  },
  ...["/", "/var/run/docker.sock", "/data", "relative", "//etc"].map((path) => ({
    name: `hostPath ${path}`,
    ...volume({ hostPath: { path } }),
    needs: [`hostPaths=${path}`],
    field: "spec.volumes[0].hostPath.path",
  })),
  {
    name: "a path with a step out of its folder",
    ...volume({ hostPath: { path: "/data/../etc" } }),
    needs: ["hostPaths=/data/../etc"],
    field: "spec.volumes[0].hostPath.path",
    impossible: true,
  },
  ...["livenessProbe", "readinessProbe", "startupProbe"].map((kind) => ({
    name: `a ${kind} of another host`,
    ...init({ restartPolicy: "Always", [kind]: probe("127.0.0.1") }),
    needs: ["probeHosts"],
    field: `spec.initContainers[0].${kind}.httpGet.host`,
  })),
  {
    name: "a hook that opens a socket of another host",
    container: { lifecycle: { preStop: { httpGet: { host: "169.254.169.254", port: 80, path: "/latest" } } } },
    needs: ["probeHosts"],
    field: `${main}.lifecycle.preStop.httpGet.host`,
  },
  {
    name: "a sysctl of the node",
    ...inPod({
      sysctls: [
        { name: "kernel.shm_rmid_forced", value: "1" },
        { name: "kernel.msgmax", value: "65536" },
      ],
    }),
    needs: ["sysctls=kernel.msgmax"],
    field: "spec.securityContext.sysctls[1].name",
  },
  {
    name: "an inline CSI volume",
    ...volume({ csi: { driver: "secrets-store.csi.k8s.io" } }),
    needs: ["csiDrivers=secrets-store.csi.k8s.io"],
    field: "spec.volumes[0].csi.driver",
  },
  {
    name: "an NFS volume",
    ...volume({ nfs: { server: "nfs.example", path: "/" } }),
    needs: ["volumeKinds=nfs"],
    field: "spec.volumes[0]",
  },
  {
    name: "a volume of an unknown kind",
    ...volume({ wormhole: { to: "anywhere" } }),
    needs: ["volumeKinds=wormhole"],
    field: "spec.volumes[0]",
    impossible: true,
  },
  {
    name: "a service account",
    pod: { serviceAccountName: "builder" },
    needs: ["serviceAccounts=builder"],
    field: "spec.serviceAccountName",
  },
  {
    name: "a service account by its old name",
    pod: { serviceAccount: "builder" },
    needs: ["serviceAccounts=builder"],
    field: "spec.serviceAccount",
  },
  {
    name: "another service account behind the default one",
    pod: { serviceAccountName: "default", serviceAccount: "builder" },
    needs: ["serviceAccounts=builder"],
    field: "spec.serviceAccount",
  },
  {
    name: "the token of the default service account",
    pod: { automountServiceAccountToken: true },
    needs: ["serviceAccounts=default"],
    field: "spec.automountServiceAccountToken",
  },
  {
    name: "the token of a service account",
    pod: { serviceAccountName: "builder", automountServiceAccountToken: true },
    needs: ["serviceAccounts=builder"],
    field: "spec.automountServiceAccountToken",
  },
  {
    name: "a projected token",
    ...volume({ projected: { sources: [{ serviceAccountToken: { path: "token", audience: "vault" } }] } }),
    needs: ["serviceAccounts=default"],
    field: "spec.volumes[0].projected.sources[0].serviceAccountToken",
  },
  {
    name: "a projected certificate",
    ...volume({
      projected: {
        sources: [
          { podCertificate: { signerName: "example.com/signer", keyType: "ED25519", credentialBundlePath: "b" } },
        ],
      },
    }),
    needs: ["serviceAccounts=default"],
    field: "spec.volumes[0].projected.sources[0].podCertificate",
  },
  {
    name: "a runtime class",
    pod: { runtimeClassName: "weaker" },
    needs: ["runtimeClasses=weaker"],
    field: "spec.runtimeClassName",
  },
  {
    name: "a priority class of the system",
    pod: { priorityClassName: "system-node-critical" },
    needs: ["priorityClasses=system-node-critical"],
    field: "spec.priorityClassName",
  },
  {
    name: "another scheduler",
    pod: { schedulerName: "mine" },
    needs: ["schedulers=mine"],
    field: "spec.schedulerName",
  },
  {
    name: "a node by its name",
    pod: { nodeName: "control-plane-0" },
    needs: ["nodeName"],
    field: "spec.nodeName",
  },
  {
    name: "a toleration of everything",
    pod: { tolerations: [{ operator: "Exists" }] },
    needs: ["tolerations=*"],
    field: "spec.tolerations[0]",
  },
  {
    name: "a toleration of everything with an empty key",
    pod: { tolerations: [{ key: "", operator: "Exists", effect: "NoSchedule" }] },
    needs: ["tolerations=*"],
    field: "spec.tolerations[0]",
  },
  {
    name: "a toleration of the control plane",
    pod: { tolerations: [{ key: "sandboxes" }, { key: "node-role.kubernetes.io/control-plane", operator: "Exists" }] },
    needs: ["tolerations=node-role.kubernetes.io/control-plane"],
    field: "spec.tolerations[1]",
  },
];

/** Templates that are always allowed. */
const ALLOWED: readonly TemplateCase[] = [
  { name: "an image alone", needs: [] },
  {
    name: "all that Pod Security restricted requires",
    pod: { securityContext: { runAsNonRoot: true, runAsUser: 10001, seccompProfile: { type: "RuntimeDefault" } } },
    container: {
      securityContext: { allowPrivilegeEscalation: false, privileged: false, capabilities: { drop: ["ALL"] } },
    },
    needs: [],
  },
  {
    name: "root inside its container",
    ...inContainer({ runAsUser: 0, capabilities: { drop: [] } }),
    needs: [],
  },
  {
    name: "false, where true would be refused",
    pod: { hostNetwork: false, hostPID: false, hostIPC: false, hostUsers: false, automountServiceAccountToken: false },
    needs: [],
  },
  {
    name: "default profiles, and SELinux types for containers",
    ...inPod({
      seccompProfile: { type: "Localhost", localhostProfile: "p.json" },
      seLinuxOptions: { type: "container_t", level: "s0" },
    }),
    needs: [],
  },
  {
    name: "volumes of its own namespace",
    pod: {
      volumes: [
        { name: "a", emptyDir: {} },
        { name: "b", secret: { secretName: "s" } },
        { name: "c", configMap: { name: "c" } },
        { name: "d", persistentVolumeClaim: { claimName: "p" } },
        { name: "e", projected: { sources: [{ secret: { name: "s" } }, { downwardAPI: { items: [] } }] } },
        { name: "f", image: { reference: "data:1" } },
        { name: "g" },
        {
          name: "h",
          ephemeral: {
            volumeClaimTemplate: {
              spec: { accessModes: ["ReadWriteOnce"], resources: { requests: { storage: "1Gi" } } },
            },
          },
        },
      ],
    },
    needs: [],
  },
  {
    name: "its own ports, probes and hooks",
    container: {
      ports: [{ containerPort: 80 }, { containerPort: 81, hostPort: 0 }],
      livenessProbe: { tcpSocket: { port: 80 } },
      lifecycle: { preStop: { exec: { command: ["true"] } } },
    },
    needs: [],
  },
  {
    name: "the default service account, scheduler and sysctls",
    pod: {
      serviceAccountName: "default",
      schedulerName: "default-scheduler",
      securityContext: { sysctls: [{ name: "net.ipv4.ip_unprivileged_port_start", value: "0" }] },
    },
    needs: [],
  },
  {
    name: "a toleration of other taints",
    pod: {
      tolerations: [
        { key: "sandboxes", operator: "Exists" },
        { key: "node.kubernetes.io/not-ready", operator: "Exists" },
      ],
    },
    needs: [],
  },
  {
    name: "nulls, which count as missing",
    metadata: { annotations: { note: "privileged" } },
    pod: {
      serviceAccountName: null,
      nodeName: null,
      tolerations: null,
      volumes: [{ name: "a", hostPath: null, csi: null, nfs: null, emptyDir: {} }],
      securityContext: null,
    },
    container: { securityContext: { privileged: null, capabilities: null }, ports: null, livenessProbe: null },
    needs: [],
  },
];

/** The operator and the admission policy are both tested with each. */
export const TEMPLATE_CASES: readonly TemplateCase[] = [...FORBIDDEN, ...ALLOWED];
