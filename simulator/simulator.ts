import type { z } from "zod";
import { type Clock, realClock } from "../src/core/clock.ts";
import { createAdmin } from "./admin.ts";
import {
  type ArrivalsHandle,
  type ArrivalsInput,
  arrivalsSchema,
  type EnqueueInput,
  startArrivals,
} from "./arrivals.ts";
import type { SimulatorClock } from "./clock.ts";
import { type FaultInput, type FaultRecord, faultSchema } from "./faults.ts";
import { type ItemRecord, recordOf } from "./item.ts";
import { type Report, reportOf } from "./report.ts";
import { Returns } from "./returns.ts";
import type { ScriptInput } from "./script.ts";
import { ApiServer } from "./server.ts";
import { type SessionRecord, sessionRecordOf } from "./session.ts";
import { limitsSchema, type Switches, switchesSchema } from "./switches.ts";
import { type Violation, violationText } from "./violations.ts";
import { type DeliveryRecord, type WebhookInput, Webhooks } from "./webhooks.ts";
import { type RequestRecord, type SimulatorEvents, World } from "./world.ts";

/** How to start a simulator. Everything has a default. */
export interface SimulatorOptions {
  /** Defaults to 0: any free port. */
  readonly port?: number;
  /** Defaults to loopback. */
  readonly host?: string;
  /** The URL that workers use if it differs from the listening address: behind a proxy, or from a container. */
  readonly publicUrl?: string;
  /**
   * Requests under /admin/ must carry this token. Without a token, the simulator only accepts them from loopback
   * addresses.
   */
  readonly adminToken?: string;
  /** The base clock. Defaults to the real one. */
  readonly clock?: Clock;
  /** How much faster than the base clock the simulator's clock runs. */
  readonly scale?: number;
  readonly switches?: z.input<typeof switchesSchema>;
  readonly limits?: z.input<typeof limitsSchema>;
  /** The organization's API key. Random by default. */
  readonly apiKey?: string;
  /** Seeds the probabilities of faults. */
  readonly seed?: number;
  /** Where the simulator sends webhooks. It sends none by default. */
  readonly webhook?: WebhookInput;
}

/** A complete dump, as GET /admin/state answers it. It contains no credentials. */
export interface SimulatorState {
  readonly now: number;
  readonly scale: number;
  readonly switches: Switches;
  readonly environments: readonly { readonly id: string; readonly stats: Record<string, unknown> }[];
  readonly items: readonly ItemRecord[];
  readonly sessions: readonly SessionRecord[];
  readonly violations: readonly Violation[];
  readonly excused: readonly Violation[];
}

const DEFAULT_WAIT_MS = 10_000;
/** The worker id that `claim` uses. */
const CLAIMER = "simulator-claim";

/** Starts a simulator. @throws if the port is in use or an option is invalid */
export async function startSimulator(options: SimulatorOptions = {}): Promise<Simulator> {
  const world = new World({
    clock: options.clock ?? realClock,
    scale: options.scale ?? 1,
    switches: switchesSchema.parse(options.switches ?? {}),
    limits: limitsSchema.parse(options.limits ?? {}),
    apiKey: options.apiKey,
    seed: options.seed ?? 1,
    remembersCredentials: options.adminToken !== undefined,
  });
  const simulator: Simulator = new Simulator(
    world,
    new ApiServer(
      world,
      createAdmin(() => simulator, options.adminToken),
    ),
    // Receivers compare the time of a delivery with their own clock, which doesn't scale.
    new Webhooks(options.clock ?? realClock, (record) => world.events.emit("delivery", record)),
  );
  simulator.sendWebhooks(options.webhook);
  await simulator.listen(options.port ?? 0, options.host ?? "127.0.0.1", options.publicUrl);
  return simulator;
}

/**
 * A running simulator. All times in records are milliseconds of its own clock. Records are copies that don't change
 * later. Methods throw an ApiError with status 404 for unknown ids.
 */
export class Simulator implements AsyncDisposable {
  readonly #world: World;
  readonly #server: ApiServer;
  readonly #webhooks: Webhooks;
  readonly #arrivals = new Map<string, ArrivalsHandle>();
  #port = 0;

  constructor(world: World, server: ApiServer, webhooks: Webhooks) {
    this.#world = world;
    this.#server = server;
    this.#webhooks = webhooks;
    world.events.on("session", (sessionId, event) => {
      const { environmentId } = world.sessions.get(sessionId) ?? {};
      webhooks.sessionChanged(sessionId, event, world.environments.get(environmentId ?? "")?.workspaceId);
    });
  }

  /** Called by startSimulator. */
  async listen(port: number, host: string, publicUrl?: string): Promise<void> {
    const address = await this.#server.listen(port, host);
    this.#port = address.port;
    const name = address.family === "IPv6" ? `[${address.address}]` : address.address;
    this.#world.baseUrl = publicUrl ?? `http://${name}:${address.port}`;
  }

  async close(): Promise<void> {
    for (const arrivals of this.#arrivals.values()) arrivals.stop();
    this.#world.deadlines.close();
    this.#webhooks.close();
    await this.#server.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  // --- address and clock ----------------------------------------------------------------------------------------

  /** The value for ANTHROPIC_BASE_URL. */
  get url(): string {
    return this.#world.baseUrl;
  }

  get port(): number {
    return this.#port;
  }

  /** The organization's API key, for retrieve, update, stop, and stats. */
  get apiKey(): string {
    return this.#world.apiKey;
  }

  get clock(): SimulatorClock {
    return this.#world.clock;
  }

  setScale(scale: number): void {
    this.#world.clock.rescale(scale);
  }

  get switches(): Switches {
    return this.#world.switches;
  }

  /** Changes switches from now on. Items keep what was already decided about them. @throws {ZodError} */
  setSwitches(switches: Partial<z.input<typeof switchesSchema>>): Switches {
    this.#world.switches = switchesSchema.parse({ ...this.#world.switches, ...switches });
    return this.#world.switches;
  }

  // --- environments ---------------------------------------------------------------------------------------------

  /**
   * Creates an environment. `ttlSeconds` sets the TTL of its leases and overrides what clients request.
   * @returns its id and its key
   * @throws {RangeError} the id is taken
   */
  createEnvironment(options: { id?: string; key?: string; workspaceId?: string; ttlSeconds?: number } = {}): {
    id: string;
    key: string;
  } {
    return this.#world.createEnvironment(options);
  }

  /** Returns the current key. */
  environmentKey(environmentId: string): string {
    return this.#world.keyOf(environmentId);
  }

  /** Sets a new key. The API answers the old key with 401 from now on. */
  rotateKey(environmentId: string, key?: string): string {
    return this.#world.setKey(environmentId, key);
  }

  /** Returns the answer of the stats call. */
  stats(environmentId: string): Record<string, unknown> {
    return this.#world.environment(environmentId).stats();
  }

  /** Returns the number of long polls that wait for work now. */
  pollsWaiting(environmentId: string): number {
    return this.#world.environment(environmentId).waiting;
  }

  // --- work -----------------------------------------------------------------------------------------------------

  /** Queues a work item. @throws {ZodError} the input is invalid */
  enqueue(environmentId: string, input: EnqueueInput = {}): ItemRecord {
    return recordOf(this.#world.enqueue(environmentId, input));
  }

  /**
   * Polls and acknowledges as an operator would, so that you can try a worker by hand.
   * @returns the environment variables of its container, or undefined if the queue is empty
   */
  async claim(environmentId: string): Promise<Record<string, string> | undefined> {
    const work = await this.#world.claim(environmentId, CLAIMER);
    return (
      work && {
        ANTHROPIC_BASE_URL: this.url,
        ANTHROPIC_ENVIRONMENT_ID: environmentId,
        ANTHROPIC_WORK_ID: work.item.id,
        ANTHROPIC_SESSION_ID: work.item.data.id,
        ...(work.secret === null
          ? { ANTHROPIC_ENVIRONMENT_KEY: this.environmentKey(environmentId) }
          : { ANTHROPIC_WORK_SECRET: work.secret }),
      }
    );
  }

  /**
   * Starts arrivals. `item` may also be a function of the item's index, starting at 0. Sessions may come back after the
   * last arrival, until the arrivals are stopped.
   */
  arrivals(environmentId: string, plan: ArrivalsInput, item?: (index: number) => EnqueueInput): ArrivalsHandle {
    const parsed = arrivalsSchema.parse(plan);
    this.#world.environment(environmentId);
    const returns = parsed.returns && new Returns(parsed.returns, this.#world);
    let index = 0;
    const arrive = () => {
      const input = item?.(index++) ?? parsed.item ?? {};
      const { data } = this.#world.enqueue(environmentId, input);
      if (data.type === "session") returns?.follow(data.id, input.script);
    };
    const arrivals = startArrivals(parsed, this.#world.clock, this.#world.deadlines, arrive);
    const { id, done } = arrivals;
    const stop = () => {
      this.#arrivals.delete(id);
      arrivals.stop();
      returns?.stop();
    };
    const handle: ArrivalsHandle = {
      ...{ id, done, stop },
      get arrived() {
        return arrivals.arrived;
      },
      get returned() {
        return returns?.messages ?? 0;
      },
    };
    this.#arrivals.set(id, handle);
    if (!returns) void done.then(() => this.#arrivals.delete(id));
    return handle;
  }

  /** Stops arrivals. @returns false if they have already ended */
  stopArrivals(id: string): boolean {
    const handle = this.#arrivals.get(id);
    handle?.stop();
    return handle !== undefined;
  }

  /** Stops an item as a user would. */
  stopItem(workId: string, options: { force?: boolean } = {}): void {
    this.#world.stopItem(workId, options.force ?? false);
  }

  /** The API answers the item's sessions tokens with 401 from now on. */
  revokeTokens(workId: string): void {
    this.#world.revokeTokens(workId);
  }

  // --- sessions -------------------------------------------------------------------------------------------------

  /** Sends a message to a session, and queues a new work item if the session has no worker. */
  sendMessage(sessionId: string, script: ScriptInput): void {
    this.#world.converse(sessionId, script);
  }

  interrupt(sessionId: string): void {
    const session = this.#world.session(sessionId);
    session.interrupt();
    this.#world.woken(session);
  }

  /** Records a person's decision about a call with `ask`. @returns false if no such call waits */
  confirm(sessionId: string, toolUseId: string, allow: boolean): boolean {
    return this.#world.session(sessionId).confirm(toolUseId, allow) !== undefined;
  }

  terminateSession(sessionId: string): void {
    this.#world.session(sessionId).terminate();
  }

  /** The API answers calls about the session with 404 from now on. Its items stay, without a session. */
  deleteSession(sessionId: string): void {
    this.#world.deleteSession(sessionId);
  }

  // --- webhooks -------------------------------------------------------------------------------------------------

  /** Sends webhooks to this endpoint from now on, or none if undefined. @throws {ZodError} */
  sendWebhooks(to: WebhookInput | undefined): void {
    this.#webhooks.sendTo(to);
  }

  /** Sends one webhook. The session that it's about doesn't need to exist. */
  sendWebhook(type: string, id: string, workspaceId?: string): void {
    this.#webhooks.send(type, id, workspaceId);
  }

  /** The newest 1,000 webhooks that were delivered or given up, oldest first. */
  get deliveries(): readonly DeliveryRecord[] {
    return this.#webhooks.records;
  }

  // --- faults ---------------------------------------------------------------------------------------------------

  /** Injects a fault. The returned record keeps counting in `struck`. @throws {ZodError} */
  inject(fault: FaultInput): FaultRecord {
    return this.#world.faults.add(faultSchema.parse(fault));
  }

  faults(): FaultRecord[] {
    return this.#world.faults.list();
  }

  /** Removes one fault, or all of them if no id is given. */
  clearFaults(id?: string): void {
    if (id === undefined) this.#world.faults.clear();
    else this.#world.faults.remove(id);
  }

  // --- records and violations -----------------------------------------------------------------------------------

  /** Breaches of the protocol. Empty at the end of a correct test. */
  get violations(): readonly Violation[] {
    return this.#world.violations;
  }

  /** Breaches that a correct client may cause: see Excuse. */
  get excused(): readonly Violation[] {
    return this.#world.excused;
  }

  clearViolations(): void {
    this.#world.violations.length = 0;
    this.#world.excused.length = 0;
  }

  /** @throws {Error} with one line per violation if there are any */
  assertNoViolations(): void {
    const lines = this.violations.map(violationText);
    if (lines.length > 0) throw new Error(`${lines.length} protocol violations:\n${lines.join("\n")}`);
  }

  item(workId: string): ItemRecord {
    return recordOf(this.#world.item(workId));
  }

  items(environmentId?: string): ItemRecord[] {
    const items = [...this.#world.items.values()].filter(
      (item) => (environmentId ?? item.environmentId) === item.environmentId,
    );
    return items.map(recordOf);
  }

  session(sessionId: string): SessionRecord {
    return sessionRecordOf(this.#world.session(sessionId));
  }

  sessions(environmentId?: string): SessionRecord[] {
    const sessions = [...this.#world.sessions.values()].filter(
      (session) => (environmentId ?? session.environmentId) === session.environmentId,
    );
    return sessions.map(sessionRecordOf);
  }

  /** Returns the newest requests, oldest first: at least the last 10,000. */
  requests(environmentId?: string): RequestRecord[] {
    return this.#world.recent.filter((request) => (environmentId ?? request.environmentId) === request.environmentId);
  }

  /** Returns every credential that was ever issued. @throws {RangeError} without an admin token, none are recorded */
  credentials(): string[] {
    if (this.#world.issued.size === 0) throw new RangeError("credentials are recorded only with an admin token");
    return [...this.#world.issued];
  }

  report(): Report {
    const { items, sessions, violations, excused, requests } = this.#world;
    let toolCalls = 0;
    for (const session of sessions.values()) {
      toolCalls += session.toolCalls.filter((call) => call.answeredAt !== undefined).length;
    }
    const counts = { toolCalls, violations: violations.length, excused: excused.length };
    return reportOf(items.values(), { ...counts, requests: Object.fromEntries(requests) });
  }

  state(): SimulatorState {
    const { clock, switches, environments, violations, excused } = this.#world;
    return {
      now: clock.now(),
      scale: clock.scale,
      switches,
      environments: [...environments.values()].map(({ id }) => ({ id, stats: this.stats(id) })),
      items: this.items(),
      sessions: this.sessions(),
      violations: [...violations],
      excused: [...excused],
    };
  }

  on<K extends keyof SimulatorEvents>(event: K, listener: (...args: SimulatorEvents[K]) => void): () => void {
    const { events } = this.#world;
    events.on(event, listener as never);
    return () => events.off(event, listener as never);
  }

  /**
   * Waits until `predicate` returns something other than undefined, null, and false. It runs again after every event.
   * @throws {Error} naming `what` if that takes longer than `timeoutMs` of real time (10 s by default)
   */
  async waitFor<T>(
    predicate: () => T | undefined | null | false,
    options: { what?: string; timeoutMs?: number } = {},
  ): Promise<T> {
    const { events } = this.#world;
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    let asked: NodeJS.Immediate | undefined;
    const ask = () => {
      asked = undefined;
      try {
        const result = predicate();
        if (result !== undefined && result !== null && result !== false) resolve(result);
      } catch (error) {
        reject(error);
      }
    };
    // The predicate runs once per turn of the event loop and not once per event, because it often scans every item.
    const onEvent = () => {
      asked ??= setImmediate(ask);
    };
    const names = ["item", "session", "waiting", "violation", "fault", "request", "delivery"] as const;
    for (const name of names) events.on(name, onEvent);
    const timeoutMs = options.timeoutMs ?? DEFAULT_WAIT_MS;
    const timer = realClock.setTimer(
      () => reject(new Error(`not within ${timeoutMs} ms: ${options.what ?? predicate.toString()}`)),
      timeoutMs,
    );
    ask();
    try {
      return await promise;
    } finally {
      timer.cancel();
      if (asked) clearImmediate(asked);
      for (const name of names) events.off(name, onEvent);
    }
  }
}
