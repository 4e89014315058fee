/** The named points of an Environment in `workers` mode (src/core/points.ts), each with what it is. */
export const WORKERS_POINTS = {
  "workers.count": "counts running sessions with the list call",
  "workers.list-pods": "reads the Pods of a Deployment live, before it shrinks",
  "workers.mark": "gives a worker its deletion cost, or takes it away. Asks: cost",
  "workers.create": "creates the Deployment of a template. Asks: replicas",
  "workers.scale": "changes how many workers a Deployment has. Asks: from, to",
  "workers.put-right": "puts a Deployment's template back to what it was made as",
  "workers.remove": "deletes a Deployment with all its Pods",
} as const satisfies Record<string, string>;

export type WorkersPoint = keyof typeof WORKERS_POINTS;
