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

/** One request that was answered, or was not. */
export interface RequestRecord {
  readonly at: number;
  readonly method: string;
  readonly path: string;
  /** Whom it concerned, as far as its path and the sessions tell. */
  readonly environmentId?: string;
  readonly workId?: string;
  readonly sessionId?: string;
  /** `Anthropic-Worker-ID` and `User-Agent`, where it had them. */
  readonly workerId?: string;
  readonly userAgent?: string;
  /** The call, or undefined for a path that the API does not have. */
  readonly call: string | undefined;
  /** 0: no answer went out. */
  readonly status: number;
  readonly ms: number;
}

/** What the simulator tells as it happens. */
export interface SimulatorEvents {
  item: [record: ItemRecord, event: string];
  session: [sessionId: string, event: SessionEvent];
  /** How many long polls wait for work. */
  waiting: [environmentId: string, polls: number];
  violation: [violation: Violation];
  /** A fault on demand strikes. */
  fault: [record: FaultRecord];
  request: [request: RequestRecord];
  /** A webhook was sent, and taken or given up. */
  delivery: [delivery: DeliveryRecord];
}

export interface WorldOptions {
  readonly clock: Clock;
  readonly scale: number;
  readonly switches: Switches;
  readonly limits: Limits;
  readonly apiKey: string | undefined;
  readonly seed: number;
  /** Whether credentials are remembered for `issued`: all that ever were, so that somebody can look for leaked ones. */
  readonly remembersCredentials?: boolean;
}

/** How many requests are remembered; the report counts them all. */
const REQUESTS_KEPT = 10_000;

/** Everything the simulator knows: environments, sessions, credentials, faults, and what clients did wrong. */
export class World implements Surroundings, SessionSurroundings {
  readonly clock: SimulatorClock;
  readonly deadlines: Deadlines;
  readonly limits: Limits;
  readonly faults: Faults;
  readonly events = new EventEmitter<SimulatorEvents>();
  readonly environments = new Map<string, Environment>();
  readonly sessions = new Map<string, Session>();
  /** All items ever, also those that the list call shows no more. */
  readonly items = new Map<string, WorkItem>();
  readonly violations: Violation[] = [];
  readonly excused: Violation[] = [];
  readonly requests = new Map<string, number>();
  /** The newest requests, oldest first. */
  readonly recent: RequestRecord[] = [];
  /** Every credential that was ever given out, where these are remembered. */
  readonly issued = new Set<string>();
  readonly #remembersCredentials: boolean;
  readonly apiKey: string;
  switches: Switches;
  /** Where clients reach the simulator; known once it listens. */
  baseUrl = "";
  readonly #credentials = new Map<string, Credential>();
  /** In the order of their end. */
  readonly #stopped = new Set<WorkItem>();
  readonly #keys = new Map<string, string>();

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

  /** @throws {RangeError} the id is taken. */
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

  /** The key in use. */
  keyOf(environmentId: string): string {
    return this.#keys.get(environmentId) ?? "";
  }

  /** A new key; the old one is rejected from now on. */
  setKey(environmentId: string, key = newCredential("sk-ant-oat01")): string {
    this.environment(environmentId);
    const old = this.#keys.get(environmentId);
    if (old !== undefined) this.#credentials.delete(old);
    this.#keys.set(environmentId, key);
    this.#issue(key);
    this.#credentials.set(key, { kind: "environment-key", environmentId });
    return key;
  }

  /** What a bearer token stands for. An API key is none: it comes in a header of its own. */
  bearer(token: string): Credential | undefined {
    return this.#credentials.get(token);
  }

  /** Sessions tokens are issued per offer: a token then tells which poll its bearer descends from. */
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

  /** Queues an item; a session is made for it unless the input names one. @throws {ZodError | ApiError} */
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

  /** A message, and work for it when no worker is there any more. */
  converse(sessionId: string, script: ScriptInput): void {
    const session = this.session(sessionId);
    session.converse(scriptSchema.parse(script));
    this.woken(session);
  }

  /** One session yields work again when something is said to it after its worker left. */
  woken(session: Session): void {
    const live = session.workIds.some((id) => this.items.get(id)?.state !== "stopped");
    if (!live) this.enqueue(session.environmentId, { sessionId: session.id });
  }

  /** Its items stay as they are, to be offered again and again, but there is nothing behind them. */
  deleteSession(sessionId: string): void {
    const session = this.session(sessionId);
    session.delete();
    for (const id of session.workIds) {
      const item = this.items.get(id);
      if (item) item.abandoned = true;
    }
  }

  /** A stop by the user. */
  stopItem(workId: string, force: boolean): void {
    const item = this.item(workId);
    this.environment(item.environmentId).end(item, ADMIN, force);
  }

  /** Polls and acknowledges in one. */
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

  // --- what happens ---------------------------------------------------------------------------------------------

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
    if (subject.state === "stopped") this.#remember(subject);
    if (this.events.listenerCount("item") > 0) this.events.emit("item", recordOf(subject), event as string);
  }

  /** Keeps a bounded number of stopped items; what is forgotten is answered 404, its tokens 401. */
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
    // Cut by halves: an array's beginning is dear to cut.
    if (this.recent.length > 2 * REQUESTS_KEPT) this.recent.splice(0, REQUESTS_KEPT);
    this.events.emit("request", request);
  }
}
