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
import type { ScriptInput } from "./script.ts";
import { ApiServer } from "./server.ts";
import { type SessionRecord, sessionRecordOf } from "./session.ts";
import { limitsSchema, type Switches, switchesSchema } from "./switches.ts";
import { type Violation, violationText } from "./violations.ts";
import { type DeliveryRecord, type WebhookInput, Webhooks } from "./webhooks.ts";
import { type RequestRecord, type SimulatorEvents, World } from "./world.ts";

/** How a simulator is started; everything has a default. */
export interface SimulatorOptions {
  /** 0, the default: any free port. */
  readonly port?: number;
  /** Loopback unless given. */
  readonly host?: string;
  /** Where workers reach it, where that is not the address it listens on: behind a proxy, from a container. */
  readonly publicUrl?: string;
  /** Asked of requests under /admin/. Without it these are taken from loopback addresses only. */
  readonly adminToken?: string;
  /** The clock beneath; the real one unless given. */
  readonly clock?: Clock;
  /** How much faster than that clock the simulator's own runs. */
  readonly scale?: number;
  readonly switches?: z.input<typeof switchesSchema>;
  readonly limits?: z.input<typeof limitsSchema>;
  /** The organization's API key; a random one unless given. */
  readonly apiKey?: string;
  /** Of the faults' probabilities. */
  readonly seed?: number;
  /** Where webhooks are sent; nowhere unless given. */
  readonly webhook?: WebhookInput;
}

/** A whole dump, as GET /admin/state answers it. Holds no credential. */
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
/** Worker id of `claim`. */
const CLAIMER = "simulator-claim";

/** Starts a work simulator. @throws when the port is taken, or an option is wrong. */
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
    // Receivers hold the time of a delivery against their own clock, which no scale makes faster.
    new Webhooks(options.clock ?? realClock, (record) => world.events.emit("delivery", record)),
  );
  simulator.sendWebhooks(options.webhook);
  await simulator.listen(options.port ?? 0, options.host ?? "127.0.0.1", options.publicUrl);
  return simulator;
}

/**
 * A running work simulator. All times in records are milliseconds of its own clock. Records are copies: they do not
 * change any more. Errors about unknown ids are thrown as ApiError with status 404.
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

  // --- where and when -------------------------------------------------------------------------------------------

  /** For ANTHROPIC_BASE_URL. */
  get url(): string {
    return this.#world.baseUrl;
  }

  get port(): number {
    return this.#port;
  }

  /** The organization's API key: retrieve, update, stop, stats. */
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

  /** Changes switches from now on; items keep what was decided about them. @throws {ZodError} */
  setSwitches(switches: Partial<z.input<typeof switchesSchema>>): Switches {
    this.#world.switches = switchesSchema.parse({ ...this.#world.switches, ...switches });
    return this.#world.switches;
  }

  // --- environments ---------------------------------------------------------------------------------------------

  /** `ttlSeconds`: of its leases, whatever clients ask for. @returns its id and its key. @throws {RangeError} the id is taken. */
  createEnvironment(options: { id?: string; key?: string; workspaceId?: string; ttlSeconds?: number } = {}): {
    id: string;
    key: string;
  } {
    return this.#world.createEnvironment(options);
  }

  /** The key in use. */
  environmentKey(environmentId: string): string {
    return this.#world.keyOf(environmentId);
  }

  /** A new key; the old one is answered 401 from now on. */
  rotateKey(environmentId: string, key?: string): string {
    return this.#world.setKey(environmentId, key);
  }

  /** What the stats call answers. */
  stats(environmentId: string): Record<string, unknown> {
    return this.#world.environment(environmentId).stats();
  }

  /** Long polls that wait for work at this moment. */
  pollsWaiting(environmentId: string): number {
    return this.#world.environment(environmentId).waiting;
  }

  // --- work -----------------------------------------------------------------------------------------------------

  /** Queues a work item. @throws {ZodError} the input is wrong. */
  enqueue(environmentId: string, input: EnqueueInput = {}): ItemRecord {
    return recordOf(this.#world.enqueue(environmentId, input));
  }

  /**
   * Polls and acknowledges, as an operator would, for trying a worker by hand.
   * @returns the environment variables of its container, or undefined when the queue is empty.
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

  /** Starts arrivals. `item` may also be a function of the running number, from 0. */
  arrivals(environmentId: string, plan: ArrivalsInput, item?: (index: number) => EnqueueInput): ArrivalsHandle {
    const parsed = arrivalsSchema.parse(plan);
    this.#world.environment(environmentId);
    let index = 0;
    const arrive = () => this.#world.enqueue(environmentId, item?.(index++) ?? parsed.item ?? {});
    const handle = startArrivals(parsed, this.#world.clock, this.#world.deadlines, arrive);
    this.#arrivals.set(handle.id, handle);
    void handle.done.then(() => this.#arrivals.delete(handle.id));
    return handle;
  }

  /** @returns false when they have ended already. */
  stopArrivals(id: string): boolean {
    const handle = this.#arrivals.get(id);
    handle?.stop();
    return handle !== undefined;
  }

  /** Stops an item as a user would. */
  stopItem(workId: string, options: { force?: boolean } = {}): void {
    this.#world.stopItem(workId, options.force ?? false);
  }

  /** Its sessions tokens are answered 401 from now on. */
  revokeTokens(workId: string): void {
    this.#world.revokeTokens(workId);
  }

  // --- sessions -------------------------------------------------------------------------------------------------

  /** Says something to a session; yields a new work item when no worker is there any more. */
  sendMessage(sessionId: string, script: ScriptInput): void {
    this.#world.converse(sessionId, script);
  }

  interrupt(sessionId: string): void {
    const session = this.#world.session(sessionId);
    session.interrupt();
    this.#world.woken(session);
  }

  /** A person's verdict on a call with `ask`. @returns false when no such call waits. */
  confirm(sessionId: string, toolUseId: string, allow: boolean): boolean {
    return this.#world.session(sessionId).confirm(toolUseId, allow) !== undefined;
  }

  terminateSession(sessionId: string): void {
    this.#world.session(sessionId).terminate();
  }

  /** Calls about it are answered 404 from now on; its items stay, with nothing behind them. */
  deleteSession(sessionId: string): void {
    this.#world.deleteSession(sessionId);
  }

  // --- webhooks -------------------------------------------------------------------------------------------------

  /** Sends webhooks there from now on; undefined: nowhere. @throws {ZodError} */
  sendWebhooks(to: WebhookInput | undefined): void {
    this.#webhooks.sendTo(to);
  }

  /** Sends one, about a session that need not exist. */
  sendWebhook(type: string, id: string, workspaceId?: string): void {
    this.#webhooks.send(type, id, workspaceId);
  }

  /** Webhooks that were taken or given up, oldest first: the newest 1,000. */
  get deliveries(): readonly DeliveryRecord[] {
    return this.#webhooks.records;
  }

  // --- faults ---------------------------------------------------------------------------------------------------

  /** Puts a fault on. `struck` of the record that is returned counts on. @throws {ZodError} */
  inject(fault: FaultInput): FaultRecord {
    return this.#world.faults.add(faultSchema.parse(fault));
  }

  faults(): FaultRecord[] {
    return this.#world.faults.list();
  }

  /** Takes one fault off, or all. */
  clearFaults(id?: string): void {
    if (id === undefined) this.#world.faults.clear();
    else this.#world.faults.remove(id);
  }

  // --- what happened --------------------------------------------------------------------------------------------

  /** Breaches of the protocol; empty at the end of a right test. */
  get violations(): readonly Violation[] {
    return this.#world.violations;
  }

  /** Breaches that a right client may cause: see Excuse. */
  get excused(): readonly Violation[] {
    return this.#world.excused;
  }

  clearViolations(): void {
    this.#world.violations.length = 0;
    this.#world.excused.length = 0;
  }

  /** @throws {Error} with a line for each violation, when there is one. */
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

  /** The newest requests, oldest first: 10,000 at least. */
  requests(environmentId?: string): RequestRecord[] {
    return this.#world.recent.filter((request) => (environmentId ?? request.environmentId) === request.environmentId);
  }

  /** Every credential that was ever given out. @throws {RangeError} without an admin token none is remembered. */
  credentials(): string[] {
    if (this.#world.issued.size === 0) throw new RangeError("credentials are remembered with an admin token only");
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
   * Waits until `predicate` returns something other than undefined, null and false; it is asked again after every
   * event. @throws {Error} not within `timeoutMs` of real time (10 s unless given), naming `what`.
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
    // Once per turn of the loop, not once per event: predicates often look at every item.
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
