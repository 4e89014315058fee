import type { ItemRecord } from "../simulator/item.ts";
import type { SessionEvent } from "../simulator/session.ts";
import type { Mode } from "./sample.ts";
import type { Message } from "./sessions.ts";
import { newTrack, oneLine, type Step, type ToolTrack, type Track } from "./track.ts";

/** What the board knows of an Environment. */
export interface BoardEnvironment {
  readonly name: string;
  readonly mode: Mode;
  readonly environmentId: string;
}

/** An event, for views that print lines. */
export type BoardEvent =
  | { readonly type: "step"; readonly track: Track; readonly step: Step; readonly at: number }
  | { readonly type: "tool"; readonly track: Track; readonly tool: ToolTrack; readonly at: number }
  | { readonly type: "asleep"; readonly track: Track; readonly at: number }
  | { readonly type: "pod-gone"; readonly track: Track; readonly at: number }
  | { readonly type: "trouble"; readonly track: Track; readonly text: string; readonly at: number }
  /** `environment`: the name of the Environment that the notice is about, if any. */
  | { readonly type: "notice"; readonly text: string; readonly at: number; readonly environment?: string };

/** The suffix that the SDK's poller adds to its host name if no worker name is set. */
const UUID_END = /-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
/** The number of notices kept. */
const NOTICES = 20;

/**
 * Combines what the simulator, the node and the API server report about all sessions. Their reports are not ordered: a
 * Pod may show as opened before its acknowledgement does.
 */
export class Board {
  readonly tracks: Track[] = [];
  /** Newest last. */
  readonly notices: string[] = [];
  readonly #now: () => number;
  readonly #environments: ReadonlyMap<string, BoardEnvironment>;
  readonly #byWork = new Map<string, Track>();
  /** The newest work item of each session. */
  readonly #bySession = new Map<string, Track>();
  readonly #listeners = new Set<(event: BoardEvent) => void>();
  /** Events of sessions whose item has not arrived yet. */
  readonly #early = new Map<string, SessionEvent[]>();
  readonly #expected = new Map<string, Message>();

  /** @param now the simulator's clock */
  constructor(now: () => number, environments: readonly BoardEnvironment[]) {
    this.#now = now;
    this.#environments = new Map(environments.map((it) => [it.environmentId, it]));
  }

  /** Calls `fn` for every event. */
  subscribe(fn: (event: BoardEvent) => void): void {
    this.#listeners.add(fn);
  }

  /** Sets the message of the next work item of an environment. */
  expect(environmentId: string, message: Message): void {
    this.#expected.set(environmentId, message);
  }

  /** The work items of one Environment, in order of arrival. */
  tracksOf(environment: string): Track[] {
    return this.tracks.filter((track) => track.environment === environment);
  }

  /** Work items that have not ended. */
  get live(): Track[] {
    return this.tracks.filter(({ at }) => at.stopped === undefined);
  }

  /** Records something that belongs to no session. */
  notice(text: string): void {
    const line = oneLine(text);
    this.notices.push(line);
    if (this.notices.length > NOTICES) this.notices.shift();
    this.#tell({ type: "notice", text: line, at: this.#now() });
  }

  /** Reports a notice to views that print lines, but keeps none: the picture shows such a state while it lasts. */
  announce(text: string, environment?: string): void {
    const of = environment === undefined ? {} : { environment };
    this.#tell({ type: "notice", text: oneLine(text), at: this.#now(), ...of });
  }

  /** Takes in a change of a work item. */
  item(record: ItemRecord, event: string): void {
    const track = this.#byWork.get(record.id) ?? this.#add(record);
    if (!track) return;
    if (event === "queued again") this.#trouble(track, "was queued again");
    if (event === "heartbeat refused") this.#trouble(track, "a heartbeat was refused");
    // An always-on worker polls under its Pod's name.
    if (track.mode === "workers" && record.acknowledgedAt !== undefined) {
      track.pod ??= record.offers.at(-1)?.workerId?.replace(UUID_END, "");
    }
    this.#step(track, "claimed", record.acknowledgedAt);
    this.#step(track, "heartbeat", record.firstBeatAt);
    if (record.stoppedAt === undefined) return;
    track.endedByWorker = record.stoppedBy?.as === "sessions-token";
    this.#step(track, "stopped", record.stoppedAt);
  }

  /** Takes in an event of a session: its tool calls. */
  session(sessionId: string, event: SessionEvent): void {
    const track = this.#bySession.get(sessionId);
    // A session's first events arrive before its item, also when it comes back.
    if (!track || (track.at.stopped !== undefined && event.type === "agent.tool_use")) {
      this.#early.set(sessionId, [...(this.#early.get(sessionId) ?? []), event]);
      return;
    }
    if (event.type === "agent.tool_use") {
      track.tools.push({ id: event.id, what: describeCall(event), result: undefined, failed: false });
      return;
    }
    if (event.type !== "user.tool_result") return;
    const tool = track.tools.find(({ id }) => id === event["tool_use_id"]);
    if (!tool || tool.result !== undefined) return;
    tool.result = oneLine(textOf(event["content"]));
    tool.failed = event["is_error"] === true;
    this.#tell({ type: "tool", track, tool, at: this.#now() });
  }

  /** A Pod got the session of a work item. */
  opened(workId: string, pod: string): void {
    const track = this.#byWork.get(workId);
    if (!track) return;
    const { earlier } = track;
    if (earlier?.pod === pod) earlier.asleep = false;
    else if (earlier?.asleep && track.at.opened === undefined) {
      this.#trouble(track, `opened in Pod ${pod}, but the session slept in Pod ${earlier.pod}`);
    }
    track.pod = pod;
    this.#step(track, "opened", this.#now());
  }

  /** Whether the session of a work item sleeps in its Pod. */
  sleeps(workId: string, asleep: boolean): void {
    const track = this.#byWork.get(workId);
    if (!track || track.asleep === asleep) return;
    track.asleep = asleep;
    if (asleep) this.#tell({ type: "asleep", track, at: this.#now() });
  }

  /** The container of a session's Pod has started. */
  started(workId: string): void {
    const track = this.#byWork.get(workId);
    if (track) this.#step(track, "started", this.#now());
  }

  /** The Pod of a session was deleted. */
  podGone(workId: string, pod: string): void {
    const track = this.#byWork.get(workId);
    if (!track || track.podGone) return;
    track.pod = pod;
    for (let each: Track | undefined = track; each?.pod === pod; each = each.earlier) {
      each.podGone = true;
      each.asleep = false;
    }
    this.#tell({ type: "pod-gone", track, at: this.#now() });
  }

  #add(record: ItemRecord): Track | undefined {
    const environment = this.#environments.get(record.environmentId);
    if (!environment) return undefined;
    const { name, mode } = environment;
    const { script, finds, next } = this.#expected.get(record.environmentId) ?? {};
    this.#expected.delete(record.environmentId);
    const sessionId = record.sessionId ?? "";
    const earlier = this.#bySession.get(sessionId);
    const track = newTrack({
      ...{ environment: name, mode, workId: record.id, sessionId, earlier, finds, next },
      number: earlier?.number ?? new Set(this.tracksOf(name).map(({ number }) => number)).size + 1,
      prompt: oneLine(script?.prompt ?? ""),
      plannedTools: (script?.turns ?? []).reduce((sum, turn) => sum + (turn.tools?.length ?? 0), 0),
    });
    this.tracks.push(track);
    this.#byWork.set(track.workId, track);
    this.#bySession.set(track.sessionId, track);
    this.#step(track, "queued", record.createdAt);
    for (const event of this.#early.get(track.sessionId) ?? []) this.session(track.sessionId, event);
    this.#early.delete(track.sessionId);
    return track;
  }

  #step(track: Track, step: Step, at: number | undefined): void {
    if (at === undefined || track.at[step] !== undefined) return;
    track.at[step] = at;
    this.#tell({ type: "step", track, step, at });
  }

  #trouble(track: Track, text: string): void {
    track.trouble = text;
    this.#tell({ type: "trouble", track, text, at: this.#now() });
  }

  #tell(event: BoardEvent): void {
    for (const listener of this.#listeners) listener(event);
  }
}

function describeCall(event: SessionEvent): string {
  const { name, input } = event as { name?: unknown; input?: Record<string, unknown> };
  if (name === "bash") return oneLine(`$ ${String(input?.["command"] ?? "")}`);
  return oneLine(`${String(name)} ${String(input?.["file_path"] ?? "")}`);
}

function textOf(content: unknown): string {
  if (!Array.isArray(content)) return "";
  return content
    .map((block: unknown) => (typeof block === "object" && block && "text" in block ? String(block.text) : ""))
    .join(" ");
}
