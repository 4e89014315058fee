import { moveHeartbeat, settledMemory } from "./effects.ts";
import { ITEM, MEMORY, POD, STATE } from "./state.ts";
import type { Turn } from "./turn.ts";

/** Sends a heartbeat with NO_HEARTBEAT, for an item without any heartbeat so far. */
export function firstBeat(
  turn: Turn,
  name: "session.take" | "session.fence",
  memory: number,
  unanswered = memory === MEMORY.leased ? MEMORY.firstLost : settledMemory(turn.moment.state, turn.at),
): void {
  const next = turn.held();
  next[turn.itemAt + ITEM.state] = STATE.active;
  next[turn.at + POD.memory] = memory;
  moveHeartbeat(turn.moment, next, turn.item);
  turn.tell(next, name);
  next[turn.at + POD.memory] = unanswered;
  turn.tell(next, name, { outcome: "unanswered", fault: true });
}
