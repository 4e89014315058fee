import type { Environment } from "../../../src/api/environment.ts";
import { errorText } from "../../../src/core/errors.ts";
import type { Pod, Secret } from "../../../src/kube/resource.ts";
import type { Operators } from "./operators.ts";
import type { RemoteSimulator } from "./remote-simulator.ts";
import type { Views } from "./views.ts";

const ITEMS_SHOWN = 20;
const LOG_LINES_SHOWN = 30;

/** The parts of a world that the description shows. */
interface DescribedWorld {
  readonly namespace: string;
  readonly simulator: RemoteSimulator;
  readonly operators: Operators;
  readonly views: Views;
  readonly pods: readonly Pod[];
  readonly claims: readonly Secret[];
  readonly environment: Environment | undefined;
}

/** The current state, for the message of a failed wait. Never throws: where something can't be read, it says why. */
export async function describeWorld(world: DescribedWorld): Promise<string> {
  const [items, violations, operators, log] = await Promise.all([
    tried(async () => (await world.simulator.items()).slice(0, ITEMS_SHOWN).map(({ id, state }) => [id, state])),
    tried(() => world.simulator.violations()),
    tried(async () =>
      (await world.operators.pods()).map(({ metadata, status }) => [
        metadata.name,
        status?.phase,
        metadata.deletionTimestamp,
      ]),
    ),
    tried(async () => {
      const lines = (await world.operators.log()).filter((line) => JSON.stringify(line).includes(world.namespace));
      return lines.slice(-LOG_LINES_SHOWN).map((line) => JSON.stringify(line));
    }),
  ]);
  const conditions = world.environment?.status?.conditions?.map(
    ({ type, status, reason, message }) => `${type}=${status} ${reason}: ${message}`,
  );
  const pods = world.views.everyPod.map((pod) => [
    pod.metadata.name,
    world.pods.some(({ metadata }) => metadata.uid === pod.metadata.uid) ? "" : "gone",
    pod.metadata.labels?.["berth.dev/phase"],
    pod.status?.phase,
    pod.status?.reason,
    pod.metadata.annotations?.["berth.dev/end-reason"],
    JSON.stringify(pod.status?.containerStatuses?.map(({ state }) => state)),
  ]);
  const events = world.views.events
    .list()
    .map(({ reason, message, involvedObject }) => [involvedObject.kind, involvedObject.name, reason, message]);
  const claims = world.claims.map(({ metadata }) => metadata.name);
  const { sessions } = world.environment?.status ?? {};
  return JSON.stringify(
    { namespace: world.namespace, conditions, sessions, pods, claims, items, events, violations, operators, log },
    null,
    1,
  );
}

async function tried<T>(ask: () => Promise<T>): Promise<T | string> {
  try {
    return await ask();
  } catch (error) {
    return errorText(error);
  }
}
