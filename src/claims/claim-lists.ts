import { LABEL_ENVIRONMENT, toLabelValue } from "../api/names.ts";
import type { Points } from "../core/points.ts";
import type { KubeClient } from "../kube/client.ts";
import { isConflict, isNotFound } from "../kube/errors.ts";
import { SECRETS, type Secret } from "../kube/resource.ts";
import { anyClaimSelector, CLAIM_SECRET_TYPE, type Journal, listedRecord, readJournal } from "../protocol/journal.ts";
import type { SessionPoint } from "../protocol/points.ts";

/** The label selector that lists an Environment's claim Secrets when its loops start. */
export function claimSelector(environmentName: string): string {
  return `${anyClaimSelector()},${LABEL_ENVIRONMENT}=${toLabelValue(environmentName)}`;
}

interface Asked {
  readonly environment: string;
  readonly resolve: (secrets: readonly Secret[]) => void;
  readonly reject: (error: unknown) => void;
}

interface Namespace {
  /** The callers that arrived since the last list began. */
  waiting: Asked[];
}

/**
 * Lists the Secrets of claims. For each list the API server goes through all Secrets of the namespace. If each of a
 * thousand Environments listed its own when the operator starts, the server would go through a million. So at most one
 * list of a namespace is under way, and the next one serves all Environments that called in the meantime. A caller
 * always gets a list that began after its call.
 */
export class ClaimLists {
  readonly #kube: Pick<KubeClient, "listAll">;
  readonly #namespaces = new Map<string, Namespace>();

  constructor(kube: Pick<KubeClient, "listAll">) {
    this.#kube = kube;
  }

  /**
   * The Secrets with the labels of this Environment's claims, without their credentials. A caller that aborts is
   * released; a list under way continues, since it may serve other callers too.
   * @throws KubeApiError, or the signal's reason
   */
  list(
    { namespace, name }: { readonly namespace: string; readonly name: string },
    signal?: AbortSignal,
  ): Promise<readonly Secret[]> {
    if (signal?.aborted) return Promise.reject(signal.reason);
    const { promise, resolve, reject } = Promise.withResolvers<readonly Secret[]>();
    const asked: Asked = { environment: name, resolve, reject };
    const known = this.#namespaces.get(namespace);
    if (known) known.waiting.push(asked);
    else {
      const begun: Namespace = { waiting: [asked] };
      this.#namespaces.set(namespace, begun);
      void this.#run(namespace, begun);
    }
    if (!signal) return promise;
    const giveUp = () => this.#giveUp(namespace, asked, signal.reason);
    signal.addEventListener("abort", giveUp, { once: true });
    return promise.finally(() => signal.removeEventListener("abort", giveUp));
  }

  #giveUp(namespace: string, asked: Asked, reason: unknown): void {
    const of = this.#namespaces.get(namespace);
    if (of) of.waiting = of.waiting.filter((each) => each !== asked);
    asked.reject(reason);
  }

  async #run(namespace: string, of: Namespace): Promise<void> {
    while (of.waiting.length > 0) {
      const asked = of.waiting;
      of.waiting = [];
      await this.#answer(namespace, asked);
    }
    this.#namespaces.delete(namespace);
  }

  async #answer(namespace: string, asked: readonly Asked[]): Promise<void> {
    const names = new Set(asked.map(({ environment }) => environment));
    const [only = ""] = names;
    const labelSelector = names.size === 1 ? claimSelector(only) : anyClaimSelector();
    try {
      const { items } = await this.#kube.listAll(SECRETS, { namespace, labelSelector }, { keep: listedRecord });
      const byLabel = Map.groupBy(items, ({ metadata }) => metadata.labels?.[LABEL_ENVIRONMENT]);
      for (const { environment, resolve } of asked) resolve(byLabel.get(toLabelValue(environment)) ?? []);
    } catch (error) {
      for (const { reject } of asked) reject(error);
    }
  }
}

/**
 * Deletes the claim Secrets of an Environment whose items no loop will settle. They have no owner reference, so
 * Kubernetes doesn't delete them. The items' leases lapse.
 */
export async function deleteClaimSecrets(
  kube: KubeClient,
  environment: { readonly namespace: string; readonly name: string },
  points: Points<SessionPoint>,
  which: (journal: Journal | null) => boolean = () => true,
): Promise<void> {
  const { namespace } = environment;
  const query = { namespace, labelSelector: claimSelector(environment.name) };
  const secrets = await points.run("cleanup.list", {}, () => kube.listAll(SECRETS, query, { keep: listedRecord }));
  for (const secret of secrets.items) {
    if (secret.type !== CLAIM_SECRET_TYPE || !which(readJournal(secret))) continue;
    const { name = "", uid } = secret.metadata;
    try {
      await points.run("cleanup.drop", { pod: name }, () =>
        kube.delete(SECRETS, { namespace, name }, uid === undefined ? {} : { uid }),
      );
    } catch (error) {
      if (!isNotFound(error) && !isConflict(error)) throw error;
    }
  }
}
