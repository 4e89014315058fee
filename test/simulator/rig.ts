import { type Simulator, type SimulatorOptions, startSimulator } from "../../simulator/simulator.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { type Client, newClient } from "./client.ts";

/** A simulator on a clock that a test moves by hand, with one environment and a client for it. */
export interface Rig extends AsyncDisposable {
  readonly clock: VirtualClock;
  readonly simulator: Simulator;
  readonly client: Client;
  readonly environmentId: string;
}

export async function startRig(options: SimulatorOptions = {}): Promise<Rig> {
  const clock = new VirtualClock();
  const simulator = await startSimulator({ clock, ...options });
  const client = newClient(simulator);
  const { environmentId } = client.options;
  return { clock, simulator, client, environmentId, [Symbol.asyncDispose]: () => simulator.close() };
}
