import type { ItemRecord } from "../../simulator/item.ts";

/** The outcome of the sessions. */
export interface Account {
  readonly sessions: number;
  /** Sessions with a first heartbeat: a container served them. */
  readonly beaten: number;
  /** Sessions that were queued and served again because their worker died or an answer was lost. */
  readonly requeued: number;
  /** One line per problem: an item that isn't stopped, was never claimed, or was claimed twice at the same time. */
  readonly wrongs: readonly string[];
}

/** Checks every item against the promise: it's served exactly once each time it's in the queue. */
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
    wrongs.push(`${id} was acknowledged ${acks.length} times in ${claimed.size} generations`);
  if (state === "stopped" && claimed.size !== generation) {
    wrongs.push(`${id} was queued ${generation} times and acknowledged ${claimed.size} times`);
  }
  return wrongs;
}
