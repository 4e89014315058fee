import { moveHeartbeat, settledMemory } from "./effects.ts";
import type { Slot } from "./slot.ts";
import { ITEM, MEMORY, POD, STATE } from "./state.ts";

/** Sends a heartbeat with NO_HEARTBEAT, for an item without any heartbeat so far. */
export function firstBeat(
  slot: Slot,
  name: "session.take" | "session.fence",
  memory: number,
  unanswered = memory === MEMORY.leased ? MEMORY.firstLost : settledMemory(slot.moment.state, slot.at),
): void {
  const next = slot.held();
  next[slot.itemAt + ITEM.state] = STATE.active;
  next[slot.at + POD.memory] = memory;
  moveHeartbeat(slot.moment, next, slot.item);
  slot.tell(next, name);
  next[slot.at + POD.memory] = unanswered;
  slot.tell(next, name, { outcome: "unanswered", fault: true });
}
