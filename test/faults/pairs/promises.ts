/**
 * What Berth promises about one feature. Where two are combined, what holds wins over what starts, the longer bound
 * counts, and a session's files may be lost only for a reason that one of the two names.
 */
export interface Promised {
  /** For readers: what waits, for how long at most, what is kept. */
  readonly says: string;
  /** The messages that wait while it lasts, beyond those for which there is no place or no room. */
  readonly holds?: "all" | "its own";
  /** Seconds that a message waits at most once nothing holds it; by default `WAKE_SECONDS` or `NEW_SECONDS`. */
  readonly boundSeconds?: number;
  /** Why the sleep of a session without a message may end: keys of `SLEEP_ENDS`. */
  readonly ends?: readonly string[];
  /** Why the sleep of a session whose message waits may end. */
  readonly endsWaiting?: readonly string[];
  /** Whether sessions lose their volumes. */
  readonly losesVolumes?: boolean;
  /** The number of messages that may end without having been served. */
  readonly fails?: number;
}

/** How long the message of a sleeping session waits while there is a place for it: the queue may offer it twice. */
export const WAKE_SECONDS = 20;
/** How long any other message waits while there is a place and room for it, or a session that could make room. */
export const NEW_SECONDS = 45;

/** The features that are combined, two at a time. */
export const PROMISES = {
  "new sessions waiting": {
    says: "They wait for a place, and nothing else waits for them. A sleeping session's message is served within 20 s.",
  },
  "sleeping sessions": {
    says: "A message is served within 20 s, in the Pod that has the session's files.",
  },
  "a full quota": {
    says: "A new session waits for a sleeping Pod that yields, at most 45 s. Pods with a waiting message don't yield.",
    ends: ["Yielded"],
  },
  "a full node": {
    says: "The same: one sleeping Pod yields for each Pod that finds no room.",
    ends: ["Yielded"],
  },
  "starts that fail": {
    says: "All messages wait, and one at a time is tried. At most 14 fail. No sleep ends, and no file is lost.",
    holds: "all",
    fails: 14,
  },
  paused: {
    says: "All messages wait. What a message needs that has waited for 15 s is kept, for as long again as without one.",
    holds: "all",
  },
  "deletion of the Environment": {
    says: "All messages wait in the queue for another Environment. Pods, volumes and files are deleted.",
    holds: "all",
    ends: ["Draining"],
    endsWaiting: ["Draining"],
    losesVolumes: true,
    fails: 2,
  },
  "a changed template": {
    says: "Nothing waits. Sleeping sessions keep their Pods of the earlier template.",
  },
  "a drained node": {
    says: "Nothing waits. Sessions on it lose their Pods, and keep their volumes.",
    ends: ["Removed", "Ended", "Unfit"],
    endsWaiting: ["Removed", "Ended", "Unfit"],
  },
  "a silent node": {
    says: "Messages of sessions that sleep on it wait for prepareTimeoutSeconds, and then lose their Pods. None fails.",
    holds: "its own",
    boundSeconds: 120,
    ends: ["NotReady"],
    endsWaiting: ["NotReady"],
  },
  volumes: {
    says: "A message is served within 45 s, with the session's volume, which is kept while the message waits.",
  },
  "maxConcurrent reached": {
    says: "All messages wait for a place. What a waiting message needs is kept.",
  },
  "maxSleeping reached": {
    says: "Nothing waits. The session that has slept longest loses its Pod, unless its message waits.",
    ends: ["OverMaximum"],
  },
  "two operators": {
    says: "Nothing waits. Another cluster may serve a message, without the session's files.",
  },
  "shards moving": {
    says: "Messages wait until another replica holds the shard, then at most 24 s. Everything is kept.",
    holds: "its own",
    boundSeconds: 24,
  },
  restarts: {
    says: "Messages wait until the operator runs again, then at most 24 s. Everything is kept.",
    holds: "its own",
    boundSeconds: 24,
  },
  "one fault of the matrix": {
    says: "All messages wait until it is fixed, then at most 360 s. At most 13 fail. Everything is kept.",
    holds: "all",
    boundSeconds: 360,
    fails: 13,
  },
} as const satisfies Readonly<Record<string, Promised>>;

export type Feature = keyof typeof PROMISES;

export const FEATURES = Object.keys(PROMISES) as Feature[];

/** Pairs whose promise is not that of the rule, each with what differs and why. */
export const EXCEPTIONS: readonly (Partial<Promised> & { readonly pair: readonly [Feature, Feature] })[] = [
  {
    pair: ["starts that fail", "a changed template"],
    says: "The new template is tried at once. A session that sleeps in a Pod of the broken one gets a Pod of the new one.",
    ends: ["Replaced"],
    endsWaiting: ["Replaced"],
  },
];
