/** The next step of a claim. The names follow the model: open, touch, fence, stop, drop, settle. */
export type Step =
  /** Do nothing until `untilMs` (monotonic) or until something changes; null: until something changes. */
  | { readonly do: "wait"; readonly untilMs: number | null }
  /** Read the item with the list call. */
  | { readonly do: "look" }
  /** Record that our acknowledgement took effect. `late`: after its window, so it may be another client's. */
  | { readonly do: "own"; readonly acknowledgedAt: string; readonly late?: true }
  /**
   * lease: Operator: take the lease with a heartbeat and keep it, for an opening or for a container that already runs.
   */
  | { readonly do: "take"; readonly expected: string }
  /** lease: Operator: another client holds the lease. */
  | { readonly do: "lose"; readonly message: string }
  /** lease: Operator: send no more heartbeats; the lease lapses, and the item returns to the queue. */
  | { readonly do: "let-go" }
  /** Add the key to the Secret, and touch the Pod. */
  | { readonly do: "open"; readonly acknowledgedAt: string }
  /** Assign the Pod to its session. That change makes the kubelet read the Secret immediately. */
  | { readonly do: "touch" }
  /** parking: Shell and Program: write the session's line to its container, and wait for the marker. */
  | { readonly do: "deliver" }
  /** Read the container's log, which shows whether its program started. */
  | { readonly do: "read-log" }
  /** The container has read its line. */
  | { readonly do: "delivered"; readonly by: "item" }
  /** Remember the item's last heartbeat, to detect whether it changes. `beatenSinceMs`: a heartbeat came after this. */
  | { readonly do: "snapshot"; readonly value: string; readonly beatenSinceMs?: number }
  /** Take the lease with our own heartbeat, so that a stop can only end our own item. */
  | { readonly do: "fence"; readonly expected: string }
  | { readonly do: "stop"; readonly force: boolean }
  | { readonly do: "delete-pod"; readonly why: Ending; readonly message: string }
  /** The item was never ours, or was lost before the opening: delete the Secret, which frees the slot. */
  | { readonly do: "drop"; readonly because: string }
  /** The item is no longer ours: delete the Secret, and mark the Pod as finished. */
  | { readonly do: "settled"; readonly because: string };

export const FOREVER = { do: "wait", untilMs: null } as const;
export const LOOK = { do: "look" } as const;
export const STOP = { do: "stop", force: true } as const;

export function waitUntil(...times: number[]): Step {
  return { do: "wait", untilMs: Math.min(...times) };
}

export function deletePod(why: Ending, message: string): Step {
  return { do: "delete-pod", why, message };
}

/** Why Berth ends a session. */
export type Ending =
  | "NoFirstBeat"
  | "MaxDuration"
  | "EnvironmentDeleted"
  | "LeaseLost"
  | "StoppedByUser"
  | "StartFailed"
  | "CredentialMissing"
  | "StopIgnored";
