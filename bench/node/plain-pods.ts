import type { Pod } from "../../src/kube/resource.ts";
import { waitingCommand } from "../../src/pods/frame.ts";
import { type Requests, sandboxCommand, WAITING_COMMAND, WORKER_COMMAND, workerContainer } from "./worker.ts";

/** How a Pod without Berth gets its session. */
export type Way =
  /** It is created with its Secret when the item has arrived. */
  | "cold"
  /** A shell waits for a frame on its standard input. */
  | "shell"
  /** The program waits for it. */
  | "program"
  /** A server waits for an HTTP call that starts the program. */
  | "sandbox";

export interface PodSpecInput {
  readonly namespace: string;
  readonly name: string;
  /** The Work API. */
  readonly baseUrl: string;
  readonly environmentId: string;
  /** A PersistentVolumeClaim for the session's files. */
  readonly claim?: string | undefined;
  readonly requests?: Requests | undefined;
}

/** Port of the sandbox's server, as in agent-sandbox. */
export const SANDBOX_PORT = 8888;
/** The variables of an item that come from a cold Pod's Secret of the same name. */
export const ITEM_VARIABLES = ["ANTHROPIC_SESSION_ID", "ANTHROPIC_WORK_ID", "ANTHROPIC_WORK_SECRET"] as const;

/** A Pod like one of Berth's, without the parts that don't affect its start. */
export async function plainPod(way: Way, input: PodSpecInput): Promise<Pod> {
  const { namespace, name, baseUrl, environmentId, claim, requests } = input;
  const container = workerContainer(await COMMANDS[way](), requests);
  const fromSecret = ITEM_VARIABLES.map((key) => ({ name: key, valueFrom: { secretKeyRef: { name, key } } }));
  return {
    metadata: { name, namespace, labels: { bench: way, "berth.dev/phase": "warm" } },
    spec: {
      restartPolicy: "Never",
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      terminationGracePeriodSeconds: 5,
      securityContext: {
        ...{ runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } },
        ...(claim === undefined ? {} : { fsGroup: 1_000 }),
      },
      ...(claim === undefined ? {} : { volumes: [{ name: "files", persistentVolumeClaim: { claimName: claim } }] }),
      containers: [
        {
          ...container,
          ...(claim === undefined ? {} : { volumeMounts: [{ name: "files", mountPath: "/workspace" }] }),
          stdin: way === "shell" || way === "program",
          securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } },
          env: [
            ...container.env,
            { name: "ANTHROPIC_BASE_URL", value: baseUrl },
            { name: "ANTHROPIC_ENVIRONMENT_ID", value: environmentId },
            ...(way === "cold" ? fromSecret : []),
          ],
        },
      ],
    },
  };
}

const COMMANDS: Record<Way, () => Promise<string[]>> = {
  cold: async () => [...WORKER_COMMAND],
  shell: async () => waitingCommand(WORKER_COMMAND),
  program: async () => [...WAITING_COMMAND],
  sandbox: sandboxCommand,
};
