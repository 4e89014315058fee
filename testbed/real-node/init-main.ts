/**
 * The first program in a node's namespaces. It sets up their mounts and network, starts the control plane and the
 * node's programs in them, and serves their control. Everything here ends with the namespaces.
 */
import { execFile } from "node:child_process";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { type Cluster, startCluster } from "../cluster/cluster.ts";
import { Supervisor } from "../cluster/supervisor.ts";
import type { NodeSettings } from "./control-protocol.ts";
import { serveControl } from "./control-server.ts";
import { Forwarder } from "./forward.ts";
import { type NodeLayout, nodeLayout } from "./layout.ts";
import { NETWORK_COMMANDS, NETWORK_SETTINGS, NODE_ADDRESS, writeCniConfig } from "./network.ts";
import { NodePrograms } from "./node-programs.ts";

const run = promisify(execFile);

const [settingsFile = ""] = process.argv.slice(2);
const settings = JSON.parse(await readFile(settingsFile, "utf8")) as NodeSettings;
const files = nodeLayout(settings.dir);

await makeMounts(files);
await makeNetwork();
const cluster = await startControlPlane();
const apiPort = Number(new URL(cluster.server).port);
const apiServer = () => ({ host: "127.0.0.1", port: apiPort });
await Forwarder.start({ host: NODE_ADDRESS, port: apiPort }, apiServer);
await Forwarder.start({ path: files.apiSocket }, apiServer);

const programs = new NodePrograms({
  settings,
  files,
  cluster,
  supervisor: await Supervisor.start(join(files.dir, "programs")),
  kubeconfigs: await makeKubeconfigs(cluster),
});
await programs.start();
await serveControl(programs, files.controlSocket);

/** Sets up mounts so that files the node writes outside its own folder are invisible and temporary. */
async function makeMounts({ varUpper, varWork, containerd, kubelet, logs, podLogs }: NodeLayout): Promise<void> {
  for (const dir of [varUpper, varWork, containerd, kubelet, logs, podLogs]) await mkdir(dir, { recursive: true });
  await run("mount", ["-t", "tmpfs", "tmpfs", "/run"]);
  const layers = `lowerdir=/var,upperdir=${varUpper},workdir=${varWork}`;
  await run("mount", ["-t", "overlay", "overlay", "-o", layers, "/var"]);
  // The kubelet mounts volumes here, and containers must see what is mounted later.
  await run("mount", ["--bind", kubelet, kubelet]);
  await run("mount", ["--make-rshared", kubelet]);
  // Unpacked images have about 17,000 files. Removing them from a disk takes 10 s, but unmounting a tmpfs is immediate.
  await run("mount", ["-t", "tmpfs", "-o", "mode=0711", "tmpfs", containerd]);
  // Images that never ran systemd don't have this folder.
  await mkdir("/var/log/containers", { recursive: true });
}

async function makeNetwork(): Promise<void> {
  for (const [command, ...args] of NETWORK_COMMANDS) await run(command, args);
  for (const [path, value] of Object.entries(NETWORK_SETTINGS)) await writeFile(path, value);
  await writeCniConfig(files.cniConfig);
}

function startControlPlane(): Promise<Cluster> {
  const { apiServer = [], controllerManager = [], scheduler = [] } = settings.extraArgs ?? {};
  return startCluster({
    binaries: settings.controlPlane,
    parentDir: settings.dir,
    extraArgs: {
      apiServer: [
        // The certificate contains this address, and kube-proxy routes the Service `kubernetes` to it.
        `--advertise-address=${NODE_ADDRESS}`,
        "--endpoint-reconciler-type=lease",
        ...apiServer,
      ],
      controllerManager,
      scheduler,
    },
  });
}

async function makeKubeconfigs(cluster: Cluster): Promise<{ kubelet: string; kubeProxy: string }> {
  const [kubelet, kubeProxy] = await Promise.all([
    cluster.kubeconfigFor(`system:node:${settings.nodeName}`, ["system:nodes"]),
    cluster.kubeconfigFor("system:kube-proxy"),
  ]);
  return { kubelet, kubeProxy };
}
