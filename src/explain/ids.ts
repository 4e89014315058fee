import { ANNOTATION_SESSION_ID, ANNOTATION_WORK_ID } from "../api/names.ts";
import type { KubeEvent, Pod } from "../kube/resource.ts";
import type { ClaimTrace, ItemTrace } from "./traces.ts";

/** The names by which one session is known. */
export interface Ids {
  readonly sessions: ReadonlySet<string>;
  readonly items: ReadonlySet<string>;
  readonly pods: ReadonlySet<string>;
}

/** The ids in the messages of Berth's Events: `session X runs (work item Y)`. */
const SESSION_IN_EVENT = /^session (\S+?):? /;
const ITEM_IN_EVENT = /\(work item (\S+)\)$/;

/** The ids in an Event's message, if it concerns a session. */
function idsInEvent(message: string): {
  readonly session: string | undefined;
  readonly item: string | undefined;
} {
  return { session: SESSION_IN_EVENT.exec(message)?.[1], item: ITEM_IN_EVENT.exec(message)?.[1] };
}

/** Whether an Event mentions exactly this id, and not only a part of it. */
export function eventNames(event: KubeEvent, asked: string): boolean {
  const { session, item } = idsInEvent(event.message ?? "");
  return session === asked || item === asked;
}

/** All names of the session in the traces. */
export function idsOf(traces: {
  readonly pods: readonly Pod[];
  readonly claims: readonly ClaimTrace[];
  readonly events: readonly KubeEvent[];
  readonly items: readonly ItemTrace[];
}): Ids {
  const sessions = new Set<string>();
  const items = new Set<string>();
  const pods = new Set<string>();
  const add = (set: Set<string>, id: string | undefined) => {
    if (id) set.add(id);
  };
  for (const { metadata } of traces.pods) {
    add(sessions, metadata.annotations?.[ANNOTATION_SESSION_ID]);
    add(items, metadata.annotations?.[ANNOTATION_WORK_ID]);
    add(pods, metadata.name);
  }
  for (const { pod, journal } of traces.claims) {
    add(sessions, journal.sessionId);
    add(items, journal.workId);
    add(pods, pod);
  }
  for (const { message = "", involvedObject } of traces.events) {
    const ids = idsInEvent(message);
    add(sessions, ids.session);
    add(items, ids.item);
    if (involvedObject.kind === "Pod") add(pods, involvedObject.name);
  }
  for (const { item } of traces.items) {
    add(sessions, item.data.id);
    add(items, item.id);
  }
  return { sessions, items, pods };
}
