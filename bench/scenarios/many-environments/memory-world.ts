import { setImmediate as macrotask } from "node:timers/promises";
import { ApiError } from "../../../simulator/errors.ts";
import { json } from "../../../simulator/http.ts";
import { seededRandom } from "../../../simulator/ids.ts";
import { RateLimit } from "../../../simulator/rate-limit.ts";
import { DEFAULT_RUNTIME_CLASSES } from "../../../src/api/isolation.ts";
import { API_VERSION, KIND } from "../../../src/api/names.ts";
import { Controller } from "../../../src/controller/controller.ts";
import type { Clock } from "../../../src/core/clock.ts";
import { NO_POINTS } from "../../../src/core/points.ts";
import { DEFAULT_TIMING } from "../../../src/core/timing.ts";
import type { EventSink } from "../../../src/kube/events.ts";
import { SECRETS } from "../../../src/kube/resource.ts";
import { silentLogger } from "../../../src/observe/logger.ts";
import { createMetrics } from "../../../src/observe/metrics.ts";
import { ENVIRONMENTS } from "../../../src/reconcile/finalizer.ts";
import { Budgets } from "../../../src/work/budget.ts";
import { WorkApiClient } from "../../../src/work/client.ts";
import { ApiServer } from "../../../test/sessions/loops/api-server.ts";
import { FakeKube } from "../../../test/sessions/loops/kube.ts";
import { FAIR, Link } from "../../../test/sessions/loops/network.ts";
import { BASE_URL, WorkApi } from "../../../test/sessions/loops/work-api.ts";
import { VirtualClock } from "../../../test/support/virtual-clock.ts";

const NAMESPACE = "agents";
const STEP_MS = 50;
/** The documented limit of the platform: reads per minute and organization. */
export const READS_PER_MINUTE = 1_200;
/** The number of Environments in one organization, which share one budget group. */
export const ORGANIZATION = 1_000;

/**
 * A clock that settles in one round of the event loop, because everything here waits only for promises and virtual
 * timers.
 */
class QuickClock extends VirtualClock {
  override async settle(): Promise<void> {
    await macrotask();
  }
}

/** The whole controller with many idle Environments, on an in-memory cluster and a virtual clock. */
export class MemoryWorld {
  readonly clock = new QuickClock();
  readonly metrics = createMetrics();
  readonly kube: FakeKube;
  readonly work: WorkApi;
  /** The number of Work API calls that were rejected with 429. */
  refused = 0;
  readonly #server = new ApiServer(this.clock);
  readonly #random: () => number;
  readonly #ending = new AbortController();
  /**
   * The rate limit of each organization, and the rate limit that applies to each Environment. Requests here don't name
   * their organization.
   */
  readonly #organizations = new Map<string, RateLimit>();
  readonly #limits = new Map<string, RateLimit>();
  #ready = 0;
  #running: Promise<void> = Promise.resolve();

  constructor(environments: number, seed: number) {
    this.#random = seededRandom(seed);
    this.work = new WorkApi(this.clock, { seed });
    this.work.answer = (_call, { path, method }) => this.#limited(path, method);
    const link = new Link(this.clock, this.#random, () => FAIR);
    const weather = () => ({ lagMs: 30, breaks: 0 });
    const { clock } = this;
    this.kube = new FakeKube({ server: this.#server, link, clock, random: this.#random, weather });
    for (let at = 0; at < environments; at += 1) this.#create(at);
    const ready = new Set<string>();
    this.#server.subscribe(({ plural, object }) => {
      if (plural !== ENVIRONMENTS.plural || !isReady(object.status)) return;
      ready.add(object.metadata.name ?? "");
      this.#ready = ready.size;
    });
  }

  get ready(): number {
    return this.#ready;
  }

  start(): void {
    const controller = this.#controller(this.clock);
    const watching = new AbortController();
    const serving = controller.serve(0, { signal: this.#ending.signal, guard: () => {} });
    const watches = controller.run(watching.signal);
    this.#running = serving.then(() => {
      watching.abort();
      return watches;
    });
  }

  /** Advances in small steps, because a virtual clock treats too many timers in one step as an endless loop. */
  async pass(ms: number): Promise<void> {
    for (let leftMs = ms; leftMs > 0; leftMs -= STEP_MS) await this.clock.advance(Math.min(STEP_MS, leftMs));
  }

  /** Resolves when all loops have ended. */
  async stop(): Promise<void> {
    this.#ending.abort();
    let hasEnded = false;
    const ended = this.#running.then(() => {
      hasEnded = true;
    });
    while (!hasEnded) await this.clock.advance(STEP_MS);
    await ended;
  }

  #create(at: number): void {
    const { id, key } = this.work.world.createEnvironment({});
    this.#limits.set(id, this.#limitOf(organizationOf(at)));
    const metadata = { namespace: NAMESPACE, name: `idle-${at}` };
    const data = { "environment-key": Buffer.from(key).toString("base64") };
    this.#server.create(SECRETS, { metadata: { ...metadata, name: `${metadata.name}-key` }, data });
    const api = {
      baseUrl: BASE_URL,
      keySecretRef: { name: `${metadata.name}-key` },
      budgetGroup: organizationOf(at),
    };
    const template = { spec: { containers: [{ name: "worker", image: "worker:1" }] } };
    const network = { egress: { cidrs: ["203.0.113.0/24"] } };
    const spec = { environmentId: id, api, network, sessions: { maxConcurrent: 2, warm: 0, template } };
    this.#server.create(ENVIRONMENTS, { apiVersion: API_VERSION, kind: KIND, metadata, spec } as never);
  }

  #limitOf(organization: string): RateLimit {
    const known = this.#organizations.get(organization) ?? new RateLimit(READS_PER_MINUTE, this.clock.now());
    this.#organizations.set(organization, known);
    return known;
  }

  #limited(path: string, method: string) {
    const id = /\/environments\/([^/?]+)/.exec(path)?.[1] ?? "";
    const waitSeconds = method === "GET" ? (this.#limits.get(id)?.take(this.clock.now()) ?? 0) : 0;
    if (waitSeconds === 0) return undefined;
    this.refused += 1;
    const { status, body } = new ApiError(429, "rate_limit_error", "too many requests");
    return { ...json(status, body), headers: { "retry-after": String(waitSeconds) } };
  }

  #controller(clock: Clock): Controller {
    const http = this.work.sender(new Link(clock, this.#random, () => FAIR), clock);
    const budgets = new Budgets({ clock });
    const events: EventSink = { event: () => {} };
    return new Controller({
      ...{ namespaces: [], kube: this.kube.client, clock, points: () => NO_POINTS, random: this.#random },
      ...{
        timing: DEFAULT_TIMING,
        logger: silentLogger,
        metrics: this.metrics,
        podPolicy: {},
        runtimeClasses: DEFAULT_RUNTIME_CLASSES,
      },
      originAllowed: () => true,
      network: { apiCidrs: ["203.0.113.0/24"], operatorNamespace: "berth-system", dns: { pods: [], cidrs: [] } },
      actors: () => ({
        kube: this.kube.client,
        events,
        workClient: ({ metadata, spec: { api, environmentId } }, key) =>
          new WorkApiClient({
            ...{ baseUrl: api.baseUrl, environmentId, key, tenant: metadata.namespace, http, clock },
            workerId: `bench-${metadata.uid}`,
            budget: budgets.get(api.baseUrl, api.budgetGroup),
          }),
      }),
    });
  }
}

function organizationOf(at: number): string {
  return `organization-${Math.floor(at / ORGANIZATION)}`;
}

function isReady(status: unknown): boolean {
  const { conditions = [] } = (status ?? {}) as { conditions?: readonly { type: string; status: string }[] };
  return conditions.some((condition) => condition.type === "Ready" && condition.status === "True");
}
