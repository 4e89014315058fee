import { EventEmitter } from "node:events";
import type { Clock } from "../src/core/clock.ts";
import { type EnqueueInput, enqueueSchema } from "./arrivals.ts";
import { type Actor, ADMIN, actorOf, type Caller, type Credential, SERVER } from "./caller.ts";
import { SimulatorClock } from "./clock.ts";
import { Deadlines } from "./deadlines.ts";
import { Environment, type Surroundings } from "./environment.ts";
import { notFound } from "./errors.ts";
import { type FaultRecord, Faults } from "./faults.ts";
import { newCredential, newId, seededRandom } from "./ids.ts";
import { type ItemRecord, recordOf, type WorkItem } from "./item.ts";
import type { Found } from "./queue.ts";
import { DEFAULT_SCRIPT, type Script, type ScriptInput, scriptSchema } from "./script.ts";
import { Session, type SessionEvent, type SessionSurroundings } from "./session.ts";
import { DEFAULT_RECLAIM_MS, type Limits, type Switches } from "./switches.ts";
import type { Finding, Violation } from "./violations.ts";
import type { DeliveryRecord } from "./webhooks.ts";

/** A request that was or wasn't answered. */
export interface RequestRecord {
  readonly at: number;
  readonly method: string;
  readonly path: string;
  /** The objects that it concerned, as far as its path and the sessions show. */
  readonly environmentId?: string;
  readonly workId?: string;
  readonly sessionId?: string;
  /** `Anthropic-Worker-ID` and `User-Agent`, if the request had them. */
  readonly workerId?: string;
  readonly userAgent?: string;
  /** The call, or undefined if the API has no such path. */
  readonly call: string | undefined;
  /** 0: no answer went out. */
  readonly status: number;
  readonly ms: number;
}

/** The events that the simulator emits. */
export interface SimulatorEvents {
  item: [record: ItemRecord, event: string];
  session: [sessionId: string, event: SessionEvent];
  /** The number of long polls that wait for work. */
  waiting: [environmentId: string, polls: number];
  violation: [violation: Violation];
  /** An injected fault strikes. */
  fault: [record: FaultRecord];
  request: [request: RequestRecord];
  /** A webhook was delivered or given up. */
  delivery: [delivery: DeliveryRecord];
}

export interface WorldOptions {
  readonly clock: Clock;
  readonly scale: number;
  readonly switches: Switches;
  readonly limits: Limits;
  readonly apiKey: string | undefined;
  readonly seed: number;
  /** Whether to remember every issued credential in `issued`, so that a test can look for leaks. */
  readonly remembersCredentials?: boolean;
}

/** The number of requests to remember. The report counts all of them. */
const REQUESTS_KEPT = 10_000;

/** Everything the simulator knows: environments, sessions, credentials, faults, and the mistakes of clients. */
export class World implements Surroundings, SessionSurroundings {
  readonly clock: SimulatorClock;
  readonly deadlines: Deadlines;
  readonly limits: Limits;
  readonly faults: Faults;
  readonly events = new EventEmitter<SimulatorEvents>();
  readonly environments = new Map<string, Environment>();
  readonly sessions = new Map<string, Session>();
  /** All items, including those that the list call no longer shows. */
  readonly items = new Map<string, WorkItem>();
  readonly violations: Violation[] = [];
  readonly excused: Violation[] = [];
  readonly requests = new Map<string, number>();
  /** The newest requests, oldest first. */
  readonly recent: RequestRecord[] = [];
  /** Every credential that was ever issued, if they're remembered. */
  readonly issued = new Set<string>();
  readonly #remembersCredentials: boolean;
  readonly apiKey: string;
  switches: Switches;
  /** Where clients reach the simulator. Known once it listens. */
  baseUrl = "";
  readonly #credentials = new Map<string, Credential>();
  /** In the order in which they stopped. */
  readonly #stopped = new Set<WorkItem>();
  readonly #keys = new Map<string, string>();
  /** Sessions with a message that no worker will answer. */
  readonly #unheard = new Set<Session>();

  constructor(options: WorldOptions) {
    this.clock = new SimulatorClock(options.clock, options.scale);
    this.deadlines = new Deadlines(this.clock);
    this.limits = options.limits;
    this.switches = options.switches;
    this.faults = new Faults(seededRandom(options.seed), (record) => this.events.emit("fault", record));
    this.apiKey = options.apiKey ?? newCredential("sk-ant-api03");
    this.events.setMaxListeners(0);
    this.#remembersCredentials = options.remembersCredentials ?? false;
    this.#issue(this.apiKey);
  }

  // --- environments and credentials -----------------------------------------------------------------------------

  /** @throws {RangeError} the id is taken */
  createEnvironment(options: { id?: string; key?: string; workspaceId?: string; ttlSeconds?: number }): {
    id: string;
    key: string;
  } {
    if (options.id !== undefined && this.environments.has(options.id)) throw new RangeError(`${options.id} exists`);
    const { id, workspaceId, ttlSeconds } = options;
    const environment = new Environment(this, { id, workspaceId, ttlSeconds });
    this.environments.set(environment.id, environment);
    return { id: environment.id, key: this.setKey(environment.id, options.key) };
  }

  /** @throws {ApiError} 404 */
  environment(id: string): Environment {
    const environment = this.environments.get(id);
    if (!environment) throw notFound(`environment ${id}`);
    return environment;
  }

  /** Returns the current key. */
  keyOf(environmentId: string): string {
    return this.#keys.get(environmentId) ?? "";
  }

  /** Sets a new key. The API rejects the old key from now on. */
  setKey(environmentId: string, key = newCredential("sk-ant-oat01")): string {
    this.environment(environmentId);
    const old = this.#keys.get(environmentId);
    if (old !== undefined) this.#credentials.delete(old);
    this.#keys.set(environmentId, key);
    this.#issue(key);
    this.#credentials.set(key, { kind: "environment-key", environmentId });
    return key;
  }

  /** Returns what a bearer token identifies. API keys aren't bearer tokens: they have their own header. */
  bearer(token: string): Credential | undefined {
    return this.#credentials.get(token);
  }

  /** Issues a sessions token for each offer, so that a token shows which poll its bearer got it from. */
  secretFor({ item, offer }: Found): string | null {
    if (!item.issuesSecret) return null;
    const token = newCredential("sk-ant-req");
    item.tokens.push(token);
    const sessionId = item.data.id;
    this.#credentials.set(token, { kind: "sessions-token", workId: item.id, sessionId, offer: offer.number });
    const payload = { sessions_token: token, ...(this.switches.secretBaseUrl && { api_base_url: this.baseUrl }) };
    const secret = Buffer.from(JSON.stringify(payload)).toString("base64url");
    this.#issue(token, secret);
    return secret;
  }

  #issue(...credentials: string[]): void {
    if (!this.#remembersCredentials) return;
    for (const credential of credentials) this.issued.add(credential);
  }

  /** Rejects every sessions token of an item from now on. */
  revokeTokens(workId: string): void {
    for (const token of this.item(workId).tokens) this.#credentials.delete(token);
  }

  // --- items and sessions ---------------------------------------------------------------------------------------

  /** @throws {ApiError} 404 */
  item(workId: string): WorkItem {
    const item = this.items.get(workId);
    if (!item) throw notFound(`work item ${workId}`);
    return item;
  }

  /** @throws {ApiError} 404 */
  session(sessionId: string): Session {
    const session = this.sessions.get(sessionId);
    if (!session) throw notFound(`session ${sessionId}`);
    return session;
  }

  /** Queues an item. Creates a session for it unless the input names one. @throws {ZodError | ApiError} */
  enqueue(environmentId: string, input: EnqueueInput = {}, script: ScriptInput = DEFAULT_SCRIPT): WorkItem {
    const { type, sessionId, secret, metadata, ...rest } = enqueueSchema.parse(input);
    const environment = this.environment(environmentId);
    const options = { secret: secret ?? this.switches.secrets === "issued", ...(metadata && { metadata }) };
    if (type !== "session") return environment.enqueue({ type, id: newId("session") }, options);
    const known = sessionId === undefined ? undefined : this.session(sessionId);
    const session = known ?? this.#newSession(environmentId, rest.script ?? scriptSchema.parse(script));
    return environment.enqueue({ type, id: session.id }, options);
  }

  #newSession(environmentId: string, script: Script): Session {
    const session = new Session(this, environmentId, script);
    this.sessions.set(session.id, session);
    return session;
  }

  /** Adds a message to a session, and queues work if the session has no worker. */
  converse(sessionId: string, script: ScriptInput): void {
    const session = this.session(sessionId);
    session.converse(scriptSchema.parse(script));
    this.woken(session);
  }

  /** Queues work for the session if all its items are stopped, or as soon as the last one is. */
  woken(session: Session): void {
    const states = session.workIds.map((id) => this.items.get(id)?.state ?? "stopped");
    const live = states.filter((state) => state !== "stopped");
    if (live.length === 0) this.enqueue(session.environmentId, { sessionId: session.id });
    // A worker that was told to stop doesn't answer the message any more.
    else if (live.every((state) => state === "stopping")) this.#unheard.add(session);
  }

  /** Queues work for a message that came while the session's last worker was leaving. */
  #heard(session: Session | undefined): void {
    if (!session || !this.#unheard.delete(session) || session.deleted || session.status === "terminated") return;
    this.deadlines.after(0, () => this.woken(session));
  }

  /** Deletes a session. Its items stay and are offered again and again, without a session. */
  deleteSession(sessionId: string): void {
    const session = this.session(sessionId);
    session.delete();
    for (const id of session.workIds) {
      const item = this.items.get(id);
      if (item) item.abandoned = true;
    }
  }

  /** Stops an item as the user. */
  stopItem(workId: string, force: boolean): void {
    const item = this.item(workId);
    this.environment(item.environmentId).end(item, ADMIN, force);
  }

  /** Polls and acknowledges in one step. */
  async claim(environmentId: string, workerId: string): Promise<{ item: WorkItem; secret: string | null } | undefined> {
    const environment = this.environment(environmentId);
    const request = { workerId, reclaimMs: DEFAULT_RECLAIM_MS, blockMs: undefined, duplicate: false };
    const found = await environment.poll({ ...request, signal: AbortSignal.abort() });
    if (!found) return undefined;
    const secret = this.secretFor(found);
    const credential = { kind: "environment-key", environmentId } as const;
    environment.ack(found.item.id, { credential, workerId, userAgent: "", remote: "", excuse: undefined });
    return { item: found.item, secret };
  }

  // --- events ---------------------------------------------------------------------------------------------------

  created(item: WorkItem): void {
    this.items.set(item.id, item);
    if (item.data.type === "session") this.sessions.get(item.data.id)?.workIds.push(item.id);
  }

  changed(...change: [item: WorkItem, event: string] | [session: Session, event: SessionEvent]): void {
    const [subject, event] = change;
    if (subject instanceof Session) {
      this.events.emit("session", subject.id, event as SessionEvent);
      return;
    }
    if (subject.state === "stopped") {
      this.#heard(this.sessions.get(subject.data.id));
      this.#remember(subject);
    }
    if (this.events.listenerCount("item") > 0) this.events.emit("item", recordOf(subject), event as string);
  }

  /**
   * Keeps a limited number of stopped items. The API answers requests for a forgotten item with 404 and its tokens with
   * 401.
   */
  #remember(item: WorkItem): void {
    this.#stopped.add(item);
    const [oldest] = this.#stopped;
    if (this.#stopped.size <= this.limits.recordsKept || !oldest) return;
    this.#stopped.delete(oldest);
    this.items.delete(oldest.id);
    this.environments.get(oldest.environmentId)?.forget(oldest);
    for (const token of oldest.tokens) this.#credentials.delete(token);
    const session = this.sessions.get(oldest.data.id);
    if (session?.workIds.every((id) => !this.items.has(id))) this.sessions.delete(session.id);
  }

  waiting(environment: Environment): void {
    this.events.emit("waiting", environment.id, environment.waiting);
  }

  found(finding: Finding, caller: Caller, item: WorkItem): void {
    const { id: workId, environmentId, data } = item;
    this.record(finding, actorOf(caller), {
      workId,
      environmentId,
      ...(data.type === "session" && { sessionId: data.id }),
    });
  }

  record(
    finding: Finding,
    by: Actor = SERVER,
    about: Pick<Violation, "environmentId" | "workId" | "sessionId"> = {},
  ): void {
    const violation = { ...finding, at: this.clock.now(), by, ...about };
    (violation.excuse ? this.excused : this.violations).push(violation);
    this.events.emit("violation", violation);
  }

  countRequest(request: RequestRecord): void {
    const key = `${request.call ?? "unknown"} ${request.status || "none"}`;
    this.requests.set(key, (this.requests.get(key) ?? 0) + 1);
    this.recent.push(request);
    // Removing elements from the start of an array is expensive, so half of it is cut at once.
    if (this.recent.length > 2 * REQUESTS_KEPT) this.recent.splice(0, REQUESTS_KEPT);
    this.events.emit("request", request);
  }
}
