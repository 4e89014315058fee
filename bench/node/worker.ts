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

/** How long a worker waits with an idle session, in milliseconds. Short, because the session's end isn't measured. */
const MAX_IDLE_MS = 100;

export const WORKER_VARIABLES = [
  { name: "BERTH_WORKER_MAX_IDLE_MS", value: String(MAX_IDLE_MS) },
  { name: "WORKSPACE", value: "/workspace" },
] as const;

/** The container of a session, as a user's template has it. Scripts find the SDK from the working directory. */
export function workerContainer(command: readonly string[]) {
  return {
    name: CONTAINER,
    image: WORKER_IMAGE,
    imagePullPolicy: "IfNotPresent" as const,
    command: [...command],
    workingDir: "/app",
    resources: { requests: { cpu: "10m", memory: "64Mi" } },
    env: [...WORKER_VARIABLES],
  };
}

/** A program of this folder as a command of the worker's image. */
export async function inlineProgram(file: string): Promise<string[]> {
  const text = await readFile(new URL(file, import.meta.url), "utf8");
  return ["node", "--input-type=module", "--eval", text];
}
