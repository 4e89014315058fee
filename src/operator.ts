import { randomBytes } from "node:crypto";
import { getServers } from "node:dns";
import { hostname } from "node:os";
import type { Environment } from "./api/environment.ts";
import { LEASE_NAME } from "./api/names.ts";
import type { Console } from "./console/console.ts";
import { Controller } from "./controller/controller.ts";
import { aborted, type Clock, realClock } from "./core/clock.ts";
import { type PointObserver, pointsOf } from "./core/points.ts";
import { DEFAULT_TIMING, type Timing } from "./core/timing.ts";
import { ShardRing } from "./election/shard-ring.ts";
import { KubeClient } from "./kube/client.ts";
import { type ClusterAccess, loadKubeConfig } from "./kube/config.ts";
import { EventRecorder } from "./kube/events.ts";
import { type Checks, startObserveServers } from "./observe/health.ts";
import { createLogger, type Logger } from "./observe/logger.ts";
import { createMetrics, type Metrics } from "./observe/metrics.ts";
import { observeProcess } from "./observe/process.ts";
import { Hints } from "./queue/hints.ts";
import { defaultDnsCidrs } from "./reconcile/network-policy.ts";
import type { Settings } from "./settings/config.ts";
import { berthVersion, docsUrl } from "./settings/version.ts";
import type { WebhookEvent } from "./webhook/event.ts";
import { type Delivery, Peers } from "./webhook/peers.ts";
import { type Receiver, startReceiver } from "./webhook/receiver.ts";
import { SigningSecrets } from "./webhook/secrets.ts";
import { type BudgetLimits, Budgets } from "./work/budget.ts";
import { WorkApiClient } from "./work/client.ts";
import { WorkHttp } from "./work/http.ts";

/** A member of a budget leaves it after this many times the longest pause without a request. */
const MEMBER_PAUSES = 2;

/** What tests can replace. */
export interface Seams {
  readonly clock?: Clock;
  readonly timing?: Timing;
  /** The budget of requests to the Work API, per group. */
  readonly budget?: Partial<BudgetLimits>;
  readonly logger?: Logger;
  readonly metrics?: Metrics;
  /** Observes every request and decision of the loops, each at its named point (src/core/points.ts). */
  readonly points?: PointObserver;
  /** Called before every outgoing write, in addition to the Lease's fence. If it throws, the write does not happen. */
  readonly guard?: () => void;
  /** Receives the addresses of the servers once they listen. */
  readonly onListening?: (addresses: {
    metrics: string | undefined;
    health: string | undefined;
    webhook: string | undefined;
    console: string | undefined;
  }) => void;
}

/**
 * Runs the operator until the signal aborts, then shuts down in order: no new reconciles, all loops end, the Lease is
 * released, Events are flushed, servers and connections close. Claims stay for the next process.
 * @throws ConfigError for a setting that proves invalid only at startup
 */
export async function runOperator(settings: Settings, signal: AbortSignal, seams: Seams = {}): Promise<void> {
  const clock = seams.clock ?? realClock;
  const logger = seams.logger ?? createLogger(settings.logLevel);
  const metrics = seams.metrics ?? createMetrics();
  const access = loadKubeConfig(settings.kubeconfig, settings.kubeEnvironment, settings);
  const identity = `${hostname()}_${randomBytes(4).toString("hex")}`;
  // The identity tells replicas apart in the API server's audit log, as the worker id does at the Work API.
  const userAgent = `berth/${berthVersion()} (${identity})`;
  const kube = new KubeClient({ access, clock, metrics, proxy: settings.proxy, userAgent });
  const http = new WorkHttp({ clock, proxy: settings.proxy });
  const events = new EventRecorder({ client: kube, clock, logger, metrics, instance: identity });
  const timing = seams.timing ?? DEFAULT_TIMING;
  const hints = settings.webhook.bindAddress === "0" ? undefined : new Hints({ clock, metrics });
  const memberMs = hints ? { memberMs: MEMBER_PAUSES * timing.hintedIdleMs } : {};
  const budgets = new Budgets({ clock, metrics, limits: { ...memberMs, ...seams.budget } });
  const guard = seams.guard ?? (() => {});
  const watched = await consoleOf(settings, { clock, logger, identity });
  const controller = new Controller({
    namespaces: settings.namespaces,
    kube,
    clock,
    random: Math.random,
    timing,
    points: pointsOf(seams.points, { operator: identity, clock }),
    ...(watched && { observer: watched.observer }),
    logger,
    metrics,
    shards: settings.leaderElection.shards,
    originAllowed: (baseUrl) => settings.allowedApiOrigins.includes(baseUrl),
    podPolicy: settings.podPolicy,
    runtimeClasses: settings.runtimeClasses,
    hints,
    network: {
      apiCidrs: settings.apiCidrs,
      operatorNamespace: access.currentNamespace,
      dns: { ...settings.clusterDns, cidrs: settings.clusterDns.cidrs ?? defaultDnsCidrs(ownNameServers(settings)) },
    },
    actors: (guard) => ({
      kube: kube.fenced(guard),
      events: events.fenced(guard),
      workClient: (environment, key) =>
        workClient(environment, key, { http, budgets, clock, metrics, identity, timing, guard }),
    }),
  });
  observeProcess(metrics, { version: berthVersion() });
  const servers = await startObserveServers({
    metricsBindAddress: settings.metricsBindAddress,
    healthProbeBindAddress: settings.healthProbeBindAddress,
    registry: metrics.registry,
    live: {},
    ready: readiness(controller),
    logger,
  });
  const receiver = hints && (await receive(hints, settings, { clock, metrics, logger, timing, servers, identity }));
  const shown = await watched
    ?.start(() => controller.served)
    .catch(async (error: unknown) => {
      await Promise.all([servers.close(), receiver?.close()]);
      throw error;
    });
  if (shown !== undefined) logger.info({ address: shown }, "the console is listening");
  seams.onListening?.({
    metrics: servers.metrics.address,
    health: servers.health.address,
    webhook: receiver?.address,
    console: shown,
  });
  logger.info(
    { version: berthVersion(), server: access.server, namespaces: settings.namespaces, identity },
    "berth starts",
  );
  // Start serving before the caches run: their first list is then recent enough.
  const watching = new AbortController();
  const serving = settings.leaderElection.enabled
    ? lead(
        controller,
        access,
        { settings, clock, logger, metrics, kube: kube.fenced(guard), identity, events, guard },
        signal,
      )
    : controller.serve(0, { signal, guard });
  const watches = controller.run(watching.signal);
  try {
    await serving;
  } finally {
    watching.abort();
    await watches;
    await events.flush();
    await receiver?.close();
    await watched?.close();
    await servers.close();
    await http.close();
    await kube.close();
    logger.info("berth stops");
  }
}

/**
 * The checks of /readyz. A standby replica is ready, because it can take the lead at any moment. One that holds a Lease
 * but can't serve isn't.
 */
export function readiness(controller: Pick<Controller, "hasSynced" | "stalled">): Checks {
  return {
    caches: () => {
      const { hasSynced, stalled } = controller;
      return { ok: hasSynced && stalled === null, message: stalled ?? "the caches are not filled yet" };
    },
  };
}

/** In a Pod, the name servers that sandboxes use too. Elsewhere, the machine's name servers say nothing about Pods. */
export function ownNameServers({ kubeEnvironment }: Pick<Settings, "kubeEnvironment">): string[] {
  return kubeEnvironment.KUBERNETES_SERVICE_HOST === undefined ? [] : getServers();
}

/** Starts the receiver of webhooks. @throws ConfigError from its parts, after closing what it opened. */
async function receive(
  hints: Hints,
  { webhook }: Settings,
  parts: {
    clock: Clock;
    metrics: Metrics;
    logger: Logger;
    timing: Timing;
    servers: { close(): Promise<void> };
    identity: string;
  },
): Promise<Pick<Receiver, "address" | "close">> {
  const { servers, identity, ...rest } = parts;
  const peers = webhook.peers && new Peers({ ...rest, ...webhook.peers, identity });
  const passOn = (delivery: Delivery, event: WebhookEvent) => {
    if (event.type === "run-started" && !hints.owns(event.sessionId)) peers?.pass(delivery);
  };
  try {
    const secrets = await SigningSecrets.open({ ...rest, folder: webhook.secrets ?? "" });
    const onEvent = (event: WebhookEvent) => {
      if (event.type === "run-started") hints.arrived(event);
      else hints.delivered();
    };
    const receiver = await startReceiver({
      ...rest,
      bindAddress: webhook.bindAddress,
      secrets,
      onEvent,
      ...(peers && { peers: { identity, passOn } }),
    });
    const close = async () => {
      await receiver.close();
      await peers?.close();
    };
    return { address: receiver.address, close };
  } catch (error) {
    await servers.close();
    throw error;
  }
}

/** Undefined if the console is off; its code is then not loaded. */
async function consoleOf(
  { consoleBindAddress, leaderElection }: Settings,
  parts: { clock: Clock; logger: Logger; identity: string },
): Promise<Console | undefined> {
  if (consoleBindAddress === "0") return undefined;
  const { Console } = await import("./console/console.ts");
  const { shards } = leaderElection;
  const about = { version: berthVersion(), docsUrl: docsUrl(), shards };
  return new Console({ ...parts, ...about, bindAddress: consoleBindAddress });
}

async function lead(
  controller: Controller,
  access: ClusterAccess,
  parts: {
    settings: Settings;
    clock: Clock;
    logger: Logger;
    metrics: Metrics;
    kube: KubeClient;
    identity: string;
    events: EventRecorder;
    guard: () => void;
  },
  signal: AbortSignal,
): Promise<void> {
  const { settings, kube, events, guard, ...rest } = parts;
  // A replica that can't fill its caches could serve nothing, so it does not take part in elections.
  await Promise.race([controller.synced, aborted(signal)]);
  const ring = new ShardRing({
    ...rest,
    client: kube,
    namespace: settings.leaderElection.namespace ?? access.currentNamespace,
    name: LEASE_NAME,
    shards: settings.leaderElection.shards,
    random: Math.random,
    serve: async ({ shard, signal, fence }) => {
      const both = () => {
        guard();
        fence();
      };
      await controller.serve(shard, { signal, guard: both });
      // Flush while this process still holds the Lease: it must write nothing for a shard that another replica holds.
      await events.flush();
    },
  });
  await ring.run(signal);
}

function workClient(
  environment: Environment,
  key: () => string,
  parts: {
    http: WorkHttp;
    budgets: Budgets;
    clock: Clock;
    metrics: Metrics;
    identity: string;
    timing: Timing;
    guard: () => void;
  },
): WorkApiClient {
  const { api, environmentId } = environment.spec;
  return new WorkApiClient({
    baseUrl: api.baseUrl,
    environmentId,
    key,
    workspaceId: api.workspaceId,
    tenant: environment.metadata.namespace,
    workerId: `berth-${parts.identity}-${environment.metadata.uid}`,
    http: parts.http,
    budget: parts.budgets.get(api.baseUrl, api.budgetGroup),
    clock: parts.clock,
    metrics: parts.metrics,
    guard: parts.guard,
    requestTimeoutMs: parts.timing.requestTimeoutMs,
    protocolTimeoutMs: parts.timing.requestBoundMs,
  });
}
