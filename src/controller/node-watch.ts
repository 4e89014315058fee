import { sleep } from "../core/clock.ts";
import { isForbidden } from "../kube/errors.ts";
import { NODES, type Node } from "../kube/resource.ts";
import type { NodeSpec } from "../pods/node-health.ts";
import { Informer, type InformerOptions } from "../watch/informer.ts";

/** How soon a missing permission is noticed. */
const CHECK_MS = 5_000;

/** How often the watch is tried again without the permission. */
const FORBIDDEN_PAUSE_MS = 300_000;

export type NodeWatchOptions = Pick<InformerOptions<Node>, "client" | "clock" | "random" | "logger" | "metrics"> & {
  /** A node's taints or cordon changed. */
  readonly onChange: (node: string) => void;
};

/**
 * Watches the taints and cordons of Nodes, if the operator may read them (features.nodes in the chart). Without the
 * permission, all nodes are unknown and nothing fails: the operator logs it once and tries again from time to time. It
 * keeps only names and taints, because clusters can have thousands of large Node objects.
 */
export class NodeWatch {
  readonly #options: NodeWatchOptions;
  #informer: Informer<Node> | null = null;

  constructor(options: NodeWatchOptions) {
    this.#options = options;
  }

  /** The node's taints and whether it is cordoned; undefined if unknown. */
  get(name: string | undefined): NodeSpec | undefined {
    return name === undefined ? undefined : this.#informer?.get(undefined, name)?.spec;
  }

  /** Runs until the signal aborts. Never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, logger } = this.#options;
    let logged = false;
    while (!signal.aborted) {
      await this.#watch(signal);
      if (!logged && !signal.aborted) {
        logged = true;
        logger.info(
          "no permission to list and watch Nodes, so Berth also claims Pods on nodes that are about to be removed; set the chart's features.nodes=true",
        );
      }
      await sleep(clock, FORBIDDEN_PAUSE_MS, signal);
    }
  }

  /** Watches until the API server forbids it or the signal aborts. */
  async #watch(signal: AbortSignal): Promise<void> {
    const { clock, logger, onChange, ...common } = this.#options;
    const ending = new AbortController();
    const informer = new Informer<Node>({
      ...common,
      clock,
      resource: NODES,
      transform: taintsOnly,
      // Other watches log connection problems, and `run` logs a missing permission.
      logger: logger.child({}, { level: "error" }),
    });
    this.#informer = informer;
    informer.subscribe(({ object, previous }) => {
      if (JSON.stringify(object.spec) !== JSON.stringify(previous?.spec)) onChange(object.metadata.name ?? "");
    });
    const running = informer.run(AbortSignal.any([signal, ending.signal]));
    while (await sleep(clock, CHECK_MS, signal)) if (isForbidden(informer.lastError)) break;
    ending.abort();
    await running;
    const known = informer.list();
    this.#informer = null;
    for (const { metadata } of signal.aborted ? [] : known) onChange(metadata.name ?? "");
  }
}

function taintsOnly({ metadata, spec }: Node): Node {
  const { name, uid, resourceVersion } = metadata;
  const kept = { ...(name && { name }), ...(uid && { uid }), ...(resourceVersion && { resourceVersion }) };
  const { unschedulable, taints } = spec ?? {};
  return { metadata: kept, spec: { ...(unschedulable ? { unschedulable } : {}), ...(taints ? { taints } : {}) } };
}
