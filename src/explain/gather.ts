import { type Environment, parseEnvironment } from "../api/environment.ts";
import { KIND, LABEL_ENVIRONMENT, LABEL_SESSION_ID, LABEL_WORK_ID, toLabelValue } from "../api/names.ts";
import { errorText } from "../core/errors.ts";
import type { KubeClient } from "../kube/client.ts";
import { isForbidden } from "../kube/errors.ts";
import { EVENTS, type KubeEvent, type KubeObject, PODS, type Pod, SECRETS } from "../kube/resource.ts";
import { podOfSlot } from "../pods/turns.ts";
import { anyClaimSelector, readJournal, withoutCredential } from "../protocol/journal.ts";
import { readPages } from "../queue/live-items.ts";
import { askWorkApi, type WorkAccess } from "../queue/reading-client.ts";
import { ENVIRONMENTS } from "../reconcile/finalizer.ts";
import { readEnvironmentKey } from "../reconcile/key-keeper.ts";
import type { WorkApiClient } from "../work/client.ts";
import type { WorkItem } from "../work/types.ts";
import { eventNames, type Ids, idsOf } from "./ids.ts";
import { BERTH } from "./timeline.ts";
import type { ClaimTrace, ItemTrace, Looked, Traces } from "./traces.ts";

const OBJECT_NAME = /^[a-z0-9][a-z0-9.-]*$/;

/** The id to search for, and where. */
export interface GatherOptions {
  readonly kube: KubeClient;
  /** The id of a session or work item, or the name of a Pod. */
  readonly asked: string;
  /** Undefined: all namespaces, or `currentNamespace` if listing all is forbidden. */
  readonly namespace: string | undefined;
  readonly currentNamespace: string;
  /** The access to the Work API; null: don't send requests to it. */
  readonly work: WorkAccess | null;
  /** Reports what is read next. */
  readonly say: (what: string) => void;
}

/** Selects the operator's own Events. */
const BERTH_EVENTS = `reportingComponent=${BERTH}`;

/** Collects all traces of a session. Never throws if a read is forbidden, and changes nothing. */
export async function gather(options: GatherOptions): Promise<Traces> {
  const search = new Search(options);
  options.say("searching for its Pod");
  const own = await search.pods();
  options.say("searching for claims and Events");
  const claims = await search.claims(own);
  const told = await search.events();
  const known = idsOf({ pods: own, claims, events: told, items: [] });
  // The Pod may be known only from a claim or from Events.
  const pods = own.length > 0 ? own : await search.podsNamed([...known.pods]);
  const ofPods = await search.eventsOfPods(known, [...pods, ...claims.map(asObject), ...told.map(asObject)]);
  const events = unique([...told, ...ofPods]);
  const all = await search.environments();
  const environments = all.filter((environment) => isConcerned(environment, { pods, claims, events }));
  // If no trace names an Environment, any may have the item.
  const asked = environments.length > 0 ? environments : all;
  // The Events of a Pod name the work items of its earlier turns.
  const items = await search.items(asked, idsOf({ pods, claims, events, items: [] }));
  const concerned = environments.length > 0 ? environments : [...new Set(items.map(({ environment }) => environment))];
  return { asked: options.asked, pods, claims, events, items, environments: concerned, looked: search.looked };
}

class Search {
  readonly #options: GatherOptions;
  readonly looked: Looked[] = [];
  /** The namespace for lists. Narrowed when listing all namespaces turns out to be forbidden. */
  #namespace: string | undefined;

  constructor(options: GatherOptions) {
    this.#options = options;
    this.#namespace = options.namespace;
  }

  async pods(): Promise<Pod[]> {
    const { asked } = this.#options;
    const label = toLabelValue(asked);
    const queries = [
      { labelSelector: `${LABEL_SESSION_ID}=${label}` },
      { labelSelector: `${LABEL_WORK_ID}=${label}` },
      // An id may contain any character, but must not inject selector syntax.
      ...(OBJECT_NAME.test(asked) ? [{ fieldSelector: `metadata.name=${asked}` }] : []),
    ];
    const found = await this.#list("Pods", "list pods", async (namespace) => {
      const lists = await Promise.all(
        queries.map((query) => this.#options.kube.listAll(PODS, { namespace, ...query })),
      );
      return unique(lists.flatMap(({ items }) => items));
    });
    return found;
  }

  /** Pods by name, for names that another trace mentions. */
  async podsNamed(names: readonly string[]): Promise<Pod[]> {
    if (names.length === 0) return [];
    const read = async (namespace: string | undefined) => {
      const { kube } = this.#options;
      const lists = names.map((name) => kube.listAll(PODS, { namespace, fieldSelector: `metadata.name=${name}` }));
      return (await Promise.all(lists)).flatMap(({ items }) => items);
    };
    return await read(this.#namespace).catch(() => []);
  }

  /** @param pods the Pods found so far: the name of a claim says which Pod it is of */
  async claims(pods: readonly Pod[]): Promise<ClaimTrace[]> {
    const { asked, kube } = this.#options;
    const names = new Set(pods.map(({ metadata }) => metadata.name));
    return await this.#list("claims (Secrets)", "list secrets", async (namespace) => {
      const query = { namespace, labelSelector: anyClaimSelector() };
      const { items } = await kube.listAll(SECRETS, query, { keep: withoutCredential });
      return items.flatMap((secret) => {
        const journal = readJournal(secret);
        const { name = "", namespace: where = "" } = secret.metadata;
        if (!journal || journal.use === "removal") return [];
        const { pod, turn } = podOfSlot(name);
        const isAsked = [pod, journal.workId, journal.sessionId].includes(asked) || names.has(pod);
        return isAsked ? [{ namespace: where, pod, turn, journal }] : [];
      });
    });
  }

  /** The operator's Events that mention the id. */
  async events(): Promise<KubeEvent[]> {
    const { asked, kube } = this.#options;
    return await this.#list("Events", "list events", async (namespace) => {
      const { items } = await kube.listAll(EVENTS, { namespace, fieldSelector: BERTH_EVENTS });
      return items.filter((event) => eventNames(event, asked));
    });
  }

  /** All Events of the Pods, including those of the scheduler and the kubelet. */
  async eventsOfPods({ pods }: Ids, objects: readonly KubeObject[]): Promise<KubeEvent[]> {
    const { kube } = this.#options;
    const namespaces = new Set(objects.flatMap(({ metadata }) => metadata.namespace ?? []));
    const queries = [...namespaces].flatMap((namespace) =>
      [...pods].map((name) => ({ namespace, fieldSelector: `involvedObject.kind=Pod,involvedObject.name=${name}` })),
    );
    // `events` has already reported whether Events may be listed.
    const lists = await Promise.all(queries.map((query) => kube.listAll(EVENTS, query).catch(() => ({ items: [] }))));
    return lists.flatMap(({ items }) => items);
  }

  async environments(): Promise<Environment[]> {
    const { kube } = this.#options;
    const raws = await this.#list("Environments", "list environments", async (namespace) => {
      return (await kube.listAll(ENVIRONMENTS, { namespace })).items;
    });
    return raws.flatMap((raw) => {
      const parsed = parseEnvironment(raw);
      return parsed.ok ? [parsed.environment] : [];
    });
  }

  async items(environments: readonly Environment[], known: Ids): Promise<ItemTrace[]> {
    const found: ItemTrace[] = [];
    for (const environment of environments) found.push(...(await this.#itemsOf(environment, known)));
    return found;
  }

  async #itemsOf(environment: Environment, known: Ids): Promise<ItemTrace[]> {
    const { kube, work, asked, say } = this.#options;
    const { namespace, name } = environment.metadata;
    const { baseUrl, keySecretRef } = environment.spec.api;
    const where = `the Work API, for Environment ${namespace}/${name}`;
    if (!work) {
      this.#noteFailure(where, "use --check-key to query it with the environment key");
      return [];
    }
    if (!work.originAllowed(baseUrl)) {
      this.#noteFailure(where, `${baseUrl} is not in --allowed-api-origins, so no key is sent to it`);
      return [];
    }
    say(`querying ${where}`);
    const key = await readEnvironmentKey(kube, namespace, keySecretRef);
    if (!key.ok) {
      this.#noteFailure(where, key.verdict.message);
      return [];
    }
    const isIt = ({ id, data }: WorkItem) => id === asked || data.id === asked || known.items.has(id);
    try {
      const items = await askWorkApi(environment, key.key, work, (client) => searchList(client, isIt));
      this.looked.push({ where, found: items.length, note: null });
      return items.map((item) => ({ environment, item }));
    } catch (error) {
      this.#noteFailure(where, errorText(error));
      return [];
    }
  }

  /** Lists in the requested namespaces. A failed list counts as empty and is reported. */
  async #list<T>(what: string, right: string, read: (namespace: string | undefined) => Promise<T[]>): Promise<T[]> {
    const at = (namespace: string | undefined) =>
      namespace === undefined ? what : `${what} of namespace ${namespace}`;
    for (const namespace of new Set([this.#namespace, this.#options.currentNamespace])) {
      try {
        const found = await read(namespace);
        // If only one namespace may be listed, search the rest there too.
        this.#namespace = namespace;
        this.looked.push({ where: at(namespace), found: found.length, note: null });
        return found;
      } catch (error) {
        const mayNarrow = this.#namespace === undefined && namespace === undefined && isForbidden(error);
        if (mayNarrow) continue;
        this.#noteFailure(at(namespace), isForbidden(error) ? `needs ${right}` : errorText(error));
        return [];
      }
    }
    return [];
  }

  #noteFailure(where: string, note: string): void {
    this.looked.push({ where, found: null, note });
  }
}

/** Searches the pages of the queue's list for matching items. */
async function searchList(client: WorkApiClient, isIt: (item: WorkItem) => boolean): Promise<WorkItem[]> {
  const found: WorkItem[] = [];
  await readPages(client, undefined, ({ items }) => found.push(...items.filter(isIt)));
  return found;
}

/** Whether a trace belongs to this Environment. */
function isConcerned(
  { metadata }: Environment,
  { pods, claims, events }: Pick<Traces, "pods" | "claims" | "events">,
): boolean {
  const label = toLabelValue(metadata.name);
  return (
    pods.some(
      (pod) => pod.metadata.namespace === metadata.namespace && pod.metadata.labels?.[LABEL_ENVIRONMENT] === label,
    ) ||
    claims.some(({ journal }) => journal.environmentUid === metadata.uid) ||
    events.some(
      ({ involvedObject: { kind, namespace, name } }) =>
        kind === KIND && namespace === metadata.namespace && name === metadata.name,
    )
  );
}

function unique<T extends KubeObject>(objects: readonly T[]): T[] {
  return [...new Map(objects.map((object) => [object.metadata.uid, object])).values()];
}

const asObject = ({
  namespace,
  metadata,
}: {
  readonly namespace?: unknown;
  readonly metadata?: KubeObject["metadata"];
}): KubeObject => ({
  metadata: metadata ?? { namespace: String(namespace) },
});
