import type { ItemRecord } from "../../simulator/item.ts";
import type { Simulator } from "../../simulator/simulator.ts";
import { errorText } from "../../src/core/errors.ts";
import { type Pod, SECRETS } from "../../src/kube/resource.ts";
import { until } from "../support/until.ts";
import type { BareStarter } from "./bare.ts";
import type { Inside } from "./inside.ts";
import { BareLane, settle } from "./lane.ts";
import { SANDBOX_PORT } from "./plain-pods.ts";
import { isWaiting } from "./pod-view.ts";
import type { Start } from "./starts.ts";

/** A session whose Pod runs between its items. */
export interface Kept {
  readonly sessionId: string;
  /** As last seen before its first item. */
  readonly pod: Pod;
}

/**
 * The reference for sessions that sleep: the Pod of a session is kept running between its items, with a server that
 * starts the stock worker on a POST. The bare loop serves it.
 */
export class KeptLane extends BareLane {
  static async create(
    name: string,
    simulator: Simulator,
    inside: Inside<unknown>,
    starter: BareStarter,
  ): Promise<KeptLane> {
    const namespace = await inside.stand.namespace(name);
    const { id: environmentId } = simulator.createEnvironment();
    const served = { namespace, name, simulator, environmentId };
    const by = { server: "bare loop", way: "sandbox", isAhead: false } as const;
    return new KeptLane({ name: "kept" }, by, served, inside, starter);
  }

  override async ready(): Promise<void> {
    await this.replacing;
  }

  /** Creates a Pod and serves the first item of a new session in it. */
  async begin(random: () => number): Promise<Kept> {
    const { metadata } = await this.createPod();
    const runs = (pod: Pod) => pod.metadata.name === metadata.name && isWaiting(pod);
    const pod = await this.pods.until(`${metadata.name} to run`, (pods) => pods.find(runs));
    const url = `http://${pod.status?.podIP}:${SANDBOX_PORT}/`;
    await until(`${metadata.name} to answer`, () => fetch(url).then(() => null, errorText));
    await settle([this], random);
    let sessionId = "";
    await this.#serveIn(pod, () => {
      const item = this.enqueue();
      sessionId = item.sessionId ?? "";
      return item;
    });
    return { sessionId, pod };
  }

  /** Serves the session's next item in its Pod. */
  next({ sessionId, pod }: Kept): Promise<Start> {
    return this.#serveIn(pod, () => this.say(sessionId));
  }

  async #serveIn(pod: Pod, enqueue: () => ItemRecord): Promise<Start> {
    const start = await this.serve(pod, enqueue);
    // The next item's journal has the same name.
    await this.stand.kube.delete(SECRETS, { namespace: this.served.namespace, name: start.pod });
    return start;
  }
}
