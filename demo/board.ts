import type { ItemRecord } from "../simulator/item.ts";
import type { ScriptInput } from "../simulator/script.ts";
import type { SessionEvent } from "../simulator/session.ts";
import { ANNOTATION_WORK_ID, LABEL_PHASE, LABEL_WORK_ID } from "../src/api/names.ts";
import type { Change } from "../src/kube/informer.ts";
import type { Pod, PodStatus } from "../src/kube/objects.ts";
import { newTrack, oneLine, type Step, type ToolTrack, type Track } from "./track.ts";

/** Session Pods by what they are for. */
export interface PodCounts {
  readonly preparing: number;
  /** Parked and free. */
  readonly warm: number;
  /** Claimed; the container does not run yet. */
  readonly opening: number;
  readonly active: number;
  /** Ended, kept for a while. */
  readonly finished: number;
}

/** What happened, for whoever writes lines. */
export type BoardEvent =
  | { readonly type: "step"; readonly track: Track; readonly step: Step; readonly at: number }
  | { readonly type: "tool"; readonly track: Track; readonly tool: ToolTrack; readonly at: number }
  | { readonly type: "pod-gone"; readonly track: Track; readonly at: number }
  | { readonly type: "trouble"; readonly track: Track; readonly text: string; readonly at: number }
  | { readonly type: "notice"; readonly text: string; readonly at: number };

/** Notices that are remembered. */
const NOTICES = 20;

/**
 * What is known of all sessions, put together from what the simulator, the node and the API server tell. These three
 * are not ordered: a Pod may be seen opened before the acknowledgement is.
 */
export class Board {
  readonly tracks: Track[] = [];
  /** Newest last. */
  readonly notices: string[] = [];
  readonly #now: () => number;
  readonly #byWork = new Map<string, Track>();
  readonly #bySession = new Map<string, Track>();
  readonly #pods = new Map<string, Pod>();
  readonly #listeners = new Set<(event: BoardEvent) => void>();
  /** Events of sessions whose item was not seen yet. */
  readonly #early = new Map<string, SessionEvent[]>();
  #expected: ScriptInput | undefined;

  /** @param now the simulator's clock. */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** Calls `fn` for everything that happens. */
  subscribe(fn: (event: BoardEvent) => void): void {
    this.#listeners.add(fn);
  }

  /** The script of the session that is queued next. */
  expect(script: ScriptInput): void {
    this.#expected = script;
  }

  get pods(): PodCounts {
    const counts = { preparing: 0, warm: 0, opening: 0, active: 0, finished: 0 };
    for (const pod of this.#pods.values()) counts[stateOf(pod)] += 1;
    return counts;
  }

  /** Sessions whose item has not ended. */
  get live(): Track[] {
    return this.tracks.filter(({ at }) => at.stopped === undefined);
  }

  /** Something that belongs to no session. */
  notice(text: string): void {
    const line = oneLine(text);
    this.notices.push(line);
    if (this.notices.length > NOTICES) this.notices.shift();
    this.#tell({ type: "notice", text: line, at: this.#now() });
  }

  /** As a notice, for whoever writes lines; what a picture shows as long as it lasts need not be remembered. */
  announce(text: string): void {
    this.#tell({ type: "notice", text: oneLine(text), at: this.#now() });
  }

  /** A change of a work item. */
  item(record: ItemRecord, event: string): void {
    const track = this.#byWork.get(record.id) ?? this.#add(record);
    if (event === "queued again") this.#trouble(track, "went back to the queue");
    if (event === "beat refused") this.#trouble(track, "a beat was refused");
    this.#step(track, "claimed", record.acknowledgedAt);
    this.#step(track, "beat", record.firstBeatAt);
    if (record.stoppedAt === undefined) return;
    track.endedByWorker = record.stoppedBy?.as === "sessions-token";
    this.#step(track, "stopped", record.stoppedAt);
  }

  /** An event of a session: its tool calls. */
  session(sessionId: string, event: SessionEvent): void {
    const track = this.#bySession.get(sessionId);
    if (!track) {
      // A session's first events come before its item.
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

  /** The node runs a Pod's container; it knows before the API server does. */
  started(pod: Pod): void {
    const track = this.#byWork.get(workIdOf(pod) ?? "");
    if (track) this.#step(track, "started", this.#now());
  }

  /** A change of a Pod, as the API server shows it. */
  pod({ type, object }: Change<Pod>): void {
    const name = object.metadata.name ?? "";
    if (type === "deleted") this.#pods.delete(name);
    else this.#pods.set(name, object);
    const track = this.#byWork.get(workIdOf(object) ?? "");
    if (!track) return;
    track.pod = name;
    if (type === "deleted") {
      if (track.podGone) return;
      track.podGone = true;
      this.#tell({ type: "pod-gone", track, at: this.#now() });
      return;
    }
    this.#step(track, "opened", this.#now());
    if (hasStarted(object.status)) this.#step(track, "started", this.#now());
  }

  #add(record: ItemRecord): Track {
    const script = this.#expected;
    this.#expected = undefined;
    const track = newTrack({
      number: this.tracks.length + 1,
      workId: record.id,
      sessionId: record.sessionId ?? "",
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

function workIdOf({ metadata: { annotations, labels } }: Pod): string | undefined {
  return annotations?.[ANNOTATION_WORK_ID] ?? labels?.[LABEL_WORK_ID];
}

/** Whether a container runs, or ran. */
export function hasStarted(status: PodStatus | undefined): boolean {
  return status?.containerStatuses?.some(({ state }) => state?.running || state?.terminated) === true;
}

function stateOf(pod: Pod): keyof PodCounts {
  const { labels, deletionTimestamp } = pod.metadata;
  const { phase, containerStatuses } = pod.status ?? {};
  if (labels?.[LABEL_PHASE] === "finished" || phase === "Succeeded" || phase === "Failed") return "finished";
  if (labels?.[LABEL_PHASE] === "assigned") return hasStarted(pod.status) ? "active" : "opening";
  const parked = containerStatuses?.some(({ state }) => state?.waiting?.reason === "CreateContainerConfigError");
  return parked && deletionTimestamp === undefined ? "warm" : "preparing";
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
