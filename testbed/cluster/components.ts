import { join } from "node:path";
import { kubeconfigFile } from "./kubeconfig.ts";
import { CONTROLLER_MANAGER, SCHEDULER } from "./users.ts";

/** Where the parts of one control plane keep their files. */
export interface Layout {
  readonly dir: string;
  readonly logs: string;
  /** The data of etcd. */
  readonly data: string;
  /** The API server's certificate and the keys of service accounts. */
  readonly pki: string;
  /** Also contains the certificate authority for clients. */
  readonly caFile: string;
  readonly schedulerCaFile: string;
  readonly tokenFile: string;
  readonly serviceAccountKey: string;
  readonly serviceAccountPublicKey: string;
  /** The authority for client certificates, and the kubeconfigs with its certificates. */
  readonly clientCa: string;
  /** The API server's own certificate and key for its requests to kubelets. */
  readonly kubeletClientCertificate: string;
  readonly kubeletClientKey: string;
  readonly auditPolicy: string;
  readonly auditLog: string;
  readonly kubeconfigs: string;
}

export function layout(dir: string): Layout {
  const pki = join(dir, "pki");
  return {
    dir,
    pki,
    logs: join(dir, "logs"),
    data: join(dir, "etcd"),
    caFile: join(pki, "apiserver.crt"),
    schedulerCaFile: join(pki, "kube-scheduler.crt"),
    tokenFile: join(pki, "tokens.csv"),
    serviceAccountKey: join(pki, "service-accounts.key"),
    serviceAccountPublicKey: join(pki, "service-accounts.pub"),
    clientCa: join(dir, "client-ca"),
    kubeletClientCertificate: join(pki, "kubelet-client.crt"),
    kubeletClientKey: join(pki, "kubelet-client.key"),
    auditPolicy: join(dir, "audit-policy.yaml"),
    auditLog: join(dir, "audit.log"),
    kubeconfigs: join(dir, "kubeconfigs"),
  };
}

/** Disables fsync: the data is as temporary as the cluster, and a slow disk would slow down every write of a test. */
export function etcdArgs(files: Layout, clientUrl: string): string[] {
  return [
    "--name=default",
    `--data-dir=${files.data}`,
    `--listen-client-urls=${clientUrl}`,
    `--advertise-client-urls=${clientUrl}`,
    "--listen-peer-urls=http://127.0.0.1:0",
    "--unsafe-no-fsync",
    "--log-level=warn",
  ];
}

export function apiServerArgs(files: Layout, etcdUrl: string, port: number): string[] {
  return [
    `--etcd-servers=${etcdUrl}`,
    "--bind-address=127.0.0.1",
    "--advertise-address=127.0.0.1",
    `--secure-port=${port}`,
    `--cert-dir=${files.pki}`,
    `--token-auth-file=${files.tokenFile}`,
    `--client-ca-file=${join(files.clientCa, "ca.crt")}`,
    "--authorization-mode=Node,RBAC",
    "--service-account-issuer=https://kubernetes.default.svc",
    `--service-account-key-file=${files.serviceAccountPublicKey}`,
    `--service-account-signing-key-file=${files.serviceAccountKey}`,
    "--service-cluster-ip-range=10.0.0.0/24",
    "--allow-privileged=true",
    // Without an authority for the kubelets' own certificates, any certificate of theirs is accepted.
    "--kubelet-preferred-address-types=InternalIP",
    `--kubelet-client-certificate=${files.kubeletClientCertificate}`,
    `--kubelet-client-key=${files.kubeletClientKey}`,
    // This is the only API server of its cluster, so nothing looks up its address.
    "--endpoint-reconciler-type=none",
    "--profiling=false",
    `--audit-policy-file=${files.auditPolicy}`,
    `--audit-log-path=${files.auditLog}`,
    // In MB. The log is never rotated, because counts are read from one file.
    "--audit-log-maxsize=1000000",
    "--v=1",
  ];
}

/** The number of requests per second that controllers may send. A load test would otherwise measure the default, 20. */
const CLIENT_RATE = ["--kube-api-qps=500", "--kube-api-burst=1000"];

/** Controllers for things that no test-bed has: disks, cloud routes, and kubelet certificates. */
const IDLE_CONTROLLERS = [
  "persistentvolume-attach-detach-controller",
  "persistentvolume-expander-controller",
  "ephemeral-volume-controller",
  "certificatesigningrequest-signing-controller",
  "certificatesigningrequest-approving-controller",
  "certificatesigningrequest-cleaner-controller",
  "node-ipam-controller",
];

export function controllerManagerArgs(files: Layout): string[] {
  return [
    `--kubeconfig=${kubeconfigFile(files.kubeconfigs, CONTROLLER_MANAGER)}`,
    `--service-account-private-key-file=${files.serviceAccountKey}`,
    `--root-ca-file=${files.caFile}`,
    // Each controller has the permissions of its own role, as in a real cluster.
    "--use-service-account-credentials=true",
    `--controllers=*,${IDLE_CONTROLLERS.map((name) => `-${name}`).join(",")}`,
    "--leader-elect=false",
    "--secure-port=0",
    // Detects a lost node in 10 s instead of 50.
    "--node-monitor-grace-period=10s",
    "--node-monitor-period=2s",
    ...CLIENT_RATE,
    "--v=1",
  ];
}

/** The port only serves the readiness check. */
export function schedulerArgs(files: Layout, port: number): string[] {
  return [
    `--kubeconfig=${kubeconfigFile(files.kubeconfigs, SCHEDULER)}`,
    "--leader-elect=false",
    "--bind-address=127.0.0.1",
    `--secure-port=${port}`,
    `--cert-dir=${files.pki}`,
    ...CLIENT_RATE,
    "--v=1",
  ];
}
