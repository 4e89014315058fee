import { type SimulatorClock, timestamp } from "./clock.ts";
import type { Deadlines } from "./deadlines.ts";
import { newId } from "./ids.ts";
import type { Script, ToolCallScript, Turn } from "./script.ts";

export type SessionStatus = "running" | "idle" | "terminated";

/** A session event in its wire format. */
export interface SessionEvent {
  readonly id: string;
  readonly type: string;
  readonly processed_at: string;
  readonly [field: string]: unknown;
}

/** A tool call and its result. Times are milliseconds of the simulator's clock. */
export interface ToolCallRecord {
  readonly id: string;
  readonly name: string;
  readonly input: Record<string, unknown>;
  readonly custom: boolean;
  readonly askedAt: number;
  answeredAt: number | undefined;
  isError: boolean | undefined;
  /** The text of the result. */
  output: string | undefined;
  /** The work item whose worker answered, if the worker used a sessions token. */
  answeredBy: string | undefined;
  /** A person denied the call, so no worker answers it. */
  denied: boolean;
}

/** What a session needs from the simulator. */
export interface SessionSurroundings {
  readonly clock: SimulatorClock;
  readonly deadlines: Deadlines;
  changed(session: Session, event: SessionEvent): void;
}

/**
 * A session and its scripted agent. The agent plays its turns one after the other: it says something, calls tools, goes
 * idle with `requires_action`, and continues when all calls of the turn are answered. Events are only appended.
 */
export class Session {
  readonly id = newId("session");
  readonly environmentId: string;
  readonly createdAt: number;
  readonly events: SessionEvent[] = [];
  readonly toolCalls: ToolCallRecord[] = [];
  readonly workIds: string[] = [];
  status: SessionStatus = "running";
  deleted = false;
  readonly #around: SessionSurroundings;
  readonly #agentId = newId("agent");
  readonly #turns: Turn[] = [];
  readonly #calls = new Map<string, ToolCallRecord>();
  /** Calls of the current turn that wait for a result. */
  readonly #open = new Map<string, ToolCallRecord>();
  readonly #listeners = new Set<(event: SessionEvent | undefined) => void>();
  #end: Script["end"];
  /** A turn is in progress: the agent is thinking or waiting for results. */
  #busy = false;
  #updatedAt: number;

  constructor(around: SessionSurroundings, environmentId: string, script: Script) {
    this.#around = around;
    this.environmentId = environmentId;
    this.createdAt = around.clock.now();
    this.#updatedAt = this.createdAt;
    this.#end = script.end;
    this.converse(script);
  }

  /** Adds a user message and the agent's turns that follow it. */
  converse(script: Script): SessionEvent {
    const message = this.emit("user.message", { content: [{ type: "text", text: script.prompt }] });
    this.#turns.push(...script.turns);
    this.#end = script.end;
    if (this.#busy) return message;
    this.#setStatus("running");
    this.#next();
    return message;
  }

  /** Interrupts the agent: it drops its open calls and goes idle. */
  interrupt(): SessionEvent {
    const interruption = this.emit("user.interrupt", {});
    this.#turns.length = 0;
    this.#open.clear();
    this.#busy = false;
    this.#idle({ type: "end_turn" });
    return interruption;
  }

  /** Subscribes to new events; undefined means that the stream ends. @returns a function that unsubscribes */
  subscribe(listener: (event: SessionEvent | undefined) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  get streams(): number {
    return this.#listeners.size;
  }

  emit(type: string, fields: Record<string, unknown>): SessionEvent {
    this.#updatedAt = this.#around.clock.now();
    const event = { id: newId("sevt"), type, processed_at: timestamp(this.#updatedAt), ...fields };
    this.events.push(event);
    this.#around.changed(this, event);
    for (const listener of [...this.#listeners]) listener(event);
    return event;
  }

  toolCall(id: string): Readonly<ToolCallRecord> | undefined {
    return this.#calls.get(id);
  }

  /** Returns the event that answered a call. */
  resultOf(id: string): SessionEvent | undefined {
    return this.events.findLast(
      (event) =>
        (event.type === "user.tool_result" && event.tool_use_id === id) ||
        (event.type === "user.custom_tool_result" && event.custom_tool_use_id === id),
    );
  }

  /** Records the result of a call. A second result changes nothing. @returns false if there is no such call */
  answer(id: string, result: { isError: boolean; output: string; workId: string | undefined }): boolean {
    const call = this.#calls.get(id);
    if (!call) return false;
    if (call.answeredAt !== undefined) return true;
    call.answeredAt = this.#around.clock.now();
    call.isError = result.isError;
    call.output = result.output;
    call.answeredBy = result.workId;
    this.#close(id);
    return true;
  }

  /** Records a person's decision about a call that asked for one. @returns undefined if no such call waits */
  confirm(id: string, allow: boolean): SessionEvent | undefined {
    const call = this.#open.get(id);
    if (!call) return undefined;
    const verdict = this.emit("user.tool_confirmation", { tool_use_id: id, result: allow ? "allow" : "deny" });
    if (allow) return verdict;
    call.denied = true;
    this.#close(id);
    return verdict;
  }

  terminate(): void {
    if (this.status === "terminated") return;
    this.#turns.length = 0;
    this.#open.clear();
    this.#busy = false;
    this.status = "terminated";
    this.emit("session.status_terminated", {});
    this.#hangUp();
  }

  /** Deletes the session. The API answers every later call about it with 404. */
  delete(): void {
    this.deleted = true;
    this.#turns.length = 0;
    this.emit("session.deleted", {});
    this.#hangUp();
  }

  #hangUp(): void {
    for (const listener of [...this.#listeners]) listener(undefined);
    this.#listeners.clear();
  }

  // --- the agent ------------------------------------------------------------------------------------------------

  #next(): void {
    const turn = this.#turns.shift();
    if (!turn) {
      this.#finish();
      return;
    }
    this.#busy = true;
    if (turn.delayMs === 0) {
      this.#play(turn);
      return;
    }
    this.#around.deadlines.after(turn.delayMs, () => {
      if (this.#busy && !this.deleted && this.status !== "terminated") this.#play(turn);
    });
  }

  #play(turn: Turn): void {
    if (turn.say !== undefined) this.emit("agent.message", { content: [{ type: "text", text: turn.say }] });
    const calls = turn.tools.map((tool) => this.#call(tool));
    if (calls.length === 0) this.#next();
    else this.#idle({ type: "requires_action", event_ids: calls.map((call) => call.id) });
  }

  #call(tool: ToolCallScript): ToolCallRecord {
    const event = this.emit(tool.custom ? "agent.custom_tool_use" : "agent.tool_use", {
      name: tool.name,
      input: tool.input,
      ...(!tool.custom && { evaluated_permission: tool.ask ? "ask" : "allow" }),
    });
    const call: ToolCallRecord = {
      id: event.id,
      name: tool.name,
      input: tool.input,
      custom: tool.custom,
      askedAt: this.#around.clock.now(),
      answeredAt: undefined,
      isError: undefined,
      output: undefined,
      answeredBy: undefined,
      denied: false,
    };
    this.toolCalls.push(call);
    this.#calls.set(call.id, call);
    this.#open.set(call.id, call);
    return call;
  }

  #close(id: string): void {
    if (!this.#open.delete(id) || this.#open.size > 0) return;
    this.#setStatus("running");
    this.#next();
  }

  #finish(): void {
    this.#busy = false;
    if (this.#end === "terminated") this.terminate();
    else this.#idle({ type: "end_turn" });
  }

  #idle(stopReason: Record<string, unknown>): void {
    this.status = "idle";
    this.emit("session.status_idle", { stop_reason: stopReason, stop_details: null });
  }

  #setStatus(status: "running"): void {
    this.status = status;
    this.emit("session.status_running", {});
  }

  // --- wire format ----------------------------------------------------------------------------------------------

  body(): Record<string, unknown> {
    return {
      id: this.id,
      type: "session",
      environment_id: this.environmentId,
      status: this.status,
      title: null,
      metadata: {},
      archived_at: null,
      budget: null,
      created_at: timestamp(this.createdAt),
      updated_at: timestamp(this.#updatedAt),
      outcome_evaluations: [],
      resources: [],
      stats: {},
      usage: {},
      vault_ids: [],
      agent: {
        id: this.#agentId,
        type: "agent",
        name: "Scripted agent",
        description: null,
        execution_identity: null,
        model: { id: "scripted", speed: "standard" },
        multiagent: null,
        mcp_servers: [],
        skills: [],
        system: null,
        tools: [{ type: "agent_toolset_20260401" }],
        version: 1,
      },
    };
  }
}

/** What the admin API and `Simulator.session` show of a session. */
export interface SessionRecord {
  readonly id: string;
  readonly environmentId: string;
  readonly status: SessionStatus;
  readonly deleted: boolean;
  readonly workIds: readonly string[];
  readonly toolCalls: readonly ToolCallRecord[];
  readonly events: readonly SessionEvent[];
  readonly streams: number;
}

export function sessionRecordOf(session: Session): SessionRecord {
  const { id, environmentId, status, deleted, workIds, toolCalls, events, streams } = session;
  return {
    id,
    environmentId,
    status,
    deleted,
    workIds: [...workIds],
    toolCalls: toolCalls.map((call) => ({ ...call })),
    events: [...events],
    streams,
  };
}
