import type { ItemRecord } from "../../simulator/item.ts";

/** What became of the sessions. */
export interface Account {
  readonly sessions: number;
  /** Had a first beat: a container served them. */
  readonly beaten: number;
  /** Came back to the queue, since their worker died or an answer was lost, and were served anew. */
  readonly requeued: number;
  /** What is wrong, a line each: an item that is not stopped, that nobody claimed, or that was claimed twice at one time. */
  readonly wrongs: readonly string[];
}

/** Holds every item against the promise: served exactly once each time that it was in the queue. */
export function accountOf(items: readonly ItemRecord[]): Account {
  return {
    sessions: items.length,
    beaten: items.filter(({ firstBeatAt }) => firstBeatAt !== undefined).length,
    requeued: items.filter(({ generation }) => generation > 1).length,
    wrongs: items.flatMap(wrongsOf),
  };
}

function wrongsOf({ id, state, generation, acks }: ItemRecord): string[] {
  const wrongs: string[] = [];
  if (state !== "stopped") wrongs.push(`${id} is ${state}`);
  const claimed = new Set(acks.map((ack) => ack.generation));
  if (claimed.size !== acks.length)
    wrongs.push(`${id} was acknowledged ${acks.length} times, in ${claimed.size} turns`);
  if (state === "stopped" && claimed.size !== generation) {
    wrongs.push(`${id} was queued ${generation} times and acknowledged ${claimed.size} times`);
  }
  return wrongs;
}
