import { readFile } from "node:fs/promises";
import { referenceOf } from "../../testbed/images/recipes.ts";

/** The stock worker's image. */
export const WORKER_IMAGE = referenceOf("berth-worker-typescript");
export const CONTAINER = "worker";

/** The line that the session's program prints first, so that the container's log has the time. */
export const PROGRAM_STARTED = "program started";

/** The stock worker, after that line. */
export const WORKER_COMMAND: readonly string[] = [
  ...["/bin/sh", "-c", `echo '${PROGRAM_STARTED}'; exec node /app/worker.mjs`],
];

/** The stock worker that waits for its session itself, and prints a line when it has read it. */
export const WAITING_COMMAND: readonly string[] = ["node", "/app/waiting.mjs"];

/** How long a worker waits with an idle session, in milliseconds. Short, because the session's end isn't measured. */
const MAX_IDLE_MS = 100;

export const WORKER_VARIABLES = [{ name: "BERTH_WORKER_MAX_IDLE_MS", value: String(MAX_IDLE_MS) }] as const;

/** What each Pod requests of its node. */
export type Requests = Readonly<Record<string, string>>;

const REQUESTS: Requests = { cpu: "5m", memory: "64Mi" };

/** The container of a session, as a user's template has it. */
export function workerContainer(command: readonly string[], requests = REQUESTS) {
  return {
    name: CONTAINER,
    image: WORKER_IMAGE,
    imagePullPolicy: "IfNotPresent" as const,
    command: [...command],
    resources: { requests },
    env: [...WORKER_VARIABLES],
  };
}

/** The command of a sandbox that runs what it is told over HTTP. */
export async function sandboxCommand(): Promise<string[]> {
  const text = await readFile(new URL("./sandbox-server.mjs", import.meta.url), "utf8");
  return ["node", "--input-type=module", "--eval", text];
}
