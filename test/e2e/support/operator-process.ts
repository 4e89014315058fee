import { randomBytes } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { renderKubeconfig } from "../../../testbed/cluster/kubeconfig.ts";
import { connectNodeControl } from "../../../testbed/real-node/control-client.ts";
import type { NodeControl, ProgramEnd } from "../../../testbed/real-node/control-protocol.ts";
import type { LogLine } from "./operators.ts";
import { OPERATOR_DEPLOYMENT, OPERATOR_NAMESPACE, OPERATOR_REPLICAS } from "./provided.ts";
import type { E2eWorld } from "./world.ts";

const MAIN = fileURLToPath(new URL("./operator-main.ts", import.meta.url));
/**
 * The port of the first process; each further one uses the next port. It can't conflict with a Pod, because Pods have
 * their own addresses.
 */
const FIRST_METRICS_PORT = 18_080;
/** Longer than any test. */
const TOKEN_SECONDS = 3_600;
/** An orderly end takes 31 s at worst. */
const END_PATIENCE_MS = 60_000;

let started = 0;

/** Controls the node. @throws {Error} if the cluster is a given one; skip such tests with `hasNodeControl` */
export function nodeControl(world: E2eWorld): NodeControl {
  const { nodeControl: socket } = world.cluster;
  if (socket === undefined) throw new Error("this cluster's node has no switches: skip the test, by hasNodeControl()");
  return connectNodeControl(socket);
}

/** An operator that runs on the node itself, with the chart's service account. */
export interface NodeOperator extends AsyncDisposable {
  /** Its name in the node's control. */
  readonly name: string;
  /** Everything it has logged so far. */
  log(): Promise<LogLine[]>;
  /** Sends SIGKILL; the operator cleans up nothing. */
  kill(): Promise<void>;
  /** Sends SIGTERM, and waits for the process to end. */
  stop(): Promise<ProgramEnd>;
}

export interface NodeOperatorOptions {
  /** How much faster its own timers run than a user's; 1 by default. */
  readonly timeScale?: number;
  /** Additional flags of `berth run`. */
  readonly flags?: readonly string[];
}

/**
 * Replaces the Deployment, which has no replicas meanwhile. It is for tests of drains and of a stopped kubelet, which
 * would also affect an operator in a Pod. It runs from the sources, in the node's namespaces, with the chart's service
 * account. At its end the Deployment is restored. Don't use it concurrently with other tests.
 */
export async function runOperatorProcess(world: E2eWorld, options: NodeOperatorOptions = {}): Promise<NodeOperator> {
  await using stack = new AsyncDisposableStack();
  stack.defer(() => restoreDeployment(world));
  await world.operators.scale(0);
  await world.until("the operators' Pods are gone", async () => (await world.operators.pods()).length === 0);
  const operator = stack.use(await startOperatorProcess(world, options));
  const rest = stack.move();
  return { ...operator, [Symbol.asyncDispose]: () => rest.disposeAsync() };
}

/** Starts another process in addition to any operators that run. */
export async function startOperatorProcess(
  world: E2eWorld,
  { timeScale = 1, flags = [] }: NodeOperatorOptions = {},
): Promise<NodeOperator> {
  const control = nodeControl(world);
  const { logs, nodeName } = await control.state();
  const name = `operator-${randomBytes(4).toString("hex")}`;
  const port = FIRST_METRICS_PORT + started;
  started += 1;
  const settings = [
    ...["--kubeconfig", await writeOperatorKubeconfig(world, control, name)],
    ...["--leader-elect-namespace", OPERATOR_NAMESPACE],
    ...["--allowed-api-origins", world.simulator.url],
    ...["--metrics-bind-address", `:${port}`, "--health-probe-bind-address", "0", "--log-level", "debug"],
  ];
  const args = [MAIN, String(timeScale), ...settings, ...flags];
  await control.spawn({ name, command: process.execPath, args });
  const page = async () => {
    const { status, text } = await world.proxy.toNode(nodeName, port, { method: "GET", path: "/metrics" });
    if (status !== 200) throw new Error(`metrics of ${name}: ${status} ${text.slice(0, 500)}`);
    return text;
  };
  const forget = world.operators.addSource(page);
  const end = async (signal: NodeJS.Signals) => {
    forget();
    await control.signal(name, signal);
    return await world.until(`the end of ${name}`, () => control.ended(name), END_PATIENCE_MS);
  };
  const operator: NodeOperator = {
    name,
    log: async () => linesOf(await readFile(join(logs, `${name}.log`), "utf8")),
    kill: async () => void (await end("SIGKILL")),
    stop: () => end("SIGTERM"),
    [Symbol.asyncDispose]: async () => void (await end("SIGTERM")),
  };
  try {
    await world.until(`${name} listens`, () =>
      page().then(
        () => true,
        () => false,
      ),
    );
  } catch (error) {
    forget();
    await control.signal(name, "SIGKILL");
    throw error;
  }
  return operator;
}

/** Writes a kubeconfig with a token of the chart's service account and the API server's address within the node. */
async function writeOperatorKubeconfig(world: E2eWorld, control: NodeControl, name: string): Promise<string> {
  const { server, caFile } = await control.state();
  const path = `/api/v1/namespaces/${OPERATOR_NAMESPACE}/serviceaccounts/${OPERATOR_DEPLOYMENT}/token`;
  const request = {
    apiVersion: "authentication.k8s.io/v1",
    kind: "TokenRequest",
    spec: { expirationSeconds: TOKEN_SECONDS },
  };
  const { status } = (await world.kube.raw("POST", path, request)) as { status: { token: string } };
  const file = join(world.cluster.dir, `${name}.kubeconfig`);
  const ca = await readFile(caFile, "utf8");
  await writeFile(file, renderKubeconfig(server, ca, OPERATOR_DEPLOYMENT, { token: status.token }), { mode: 0o600 });
  return file;
}

/** Restores the Deployment's replicas, and waits until all are ready. */
export async function restoreDeployment(world: E2eWorld): Promise<void> {
  await world.operators.scale(OPERATOR_REPLICAS);
  await world.until("the operators' Pods are ready", async () => {
    return (await world.operators.readyPods()).length === OPERATOR_REPLICAS;
  });
}

function linesOf(text: string): LogLine[] {
  return text.split("\n").flatMap((line) => {
    try {
      return [JSON.parse(line) as LogLine];
    } catch {
      return line.trim() === "" ? [] : [{ msg: line }];
    }
  });
}
