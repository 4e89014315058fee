/** The next step of a claim. Names follow the model: open, touch, fence, stop, drop, settle. */
export type Step =
  /** Nothing until `untilMs` (monotonic), or until something changes when null. */
  | { readonly do: "wait"; readonly untilMs: number | null }
  /** Read the item with the list call. */
  | { readonly do: "look" }
  /** Our acknowledgement took effect: keep that in mind. `late`: after its window, so it may be another client's. */
  | { readonly do: "own"; readonly acknowledgedAt: string; readonly late?: true }
  /** lease: Operator: take the lease with this beat, and keep it: for an opening, or for a container that runs already. */
  | { readonly do: "take"; readonly expected: string }
  /** lease: Operator: somebody else has the lease. */
  | { readonly do: "lose"; readonly message: string }
  /** lease: Operator: beat no more; the lease lapses, and the item goes back to the queue. */
  | { readonly do: "let-go" }
  /** Give the Secret its key, and touch the Pod. */
  | { readonly do: "open"; readonly acknowledgedAt: string }
  /** Change the Pod, so that kubelet looks at once. */
  | { readonly do: "touch" }
  /** Remember the item's last heartbeat, to see whether it stands still. `beatenSinceMs`: one came after this. */
  | { readonly do: "snapshot"; readonly value: string; readonly beatenSinceMs?: number }
  /** Take the lease with a heartbeat of our own, so that a stop can only end what is ours. */
  | { readonly do: "fence"; readonly expected: string }
  | { readonly do: "stop"; readonly force: boolean }
  | { readonly do: "delete-pod"; readonly why: Ending; readonly message: string }
  /** Never ours, or not any more before it was opened: delete the Secret; the slot is free again. */
  | { readonly do: "drop"; readonly because: string }
  /** The item is out of our hands: delete the Secret, mark the Pod finished. */
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

/** Why a session is being brought to an end although its container runs. */
export type Ending =
  | "NoFirstBeat"
  | "MaxDuration"
  | "EnvironmentDeleted"
  | "LeaseLost"
  | "StoppedByUser"
  | "StartFailed"
  | "CredentialMissing";
