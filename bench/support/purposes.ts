import type { AuditEntry } from "../../testbed/cluster/audit.ts";

/** Requests with one verb for one resource, and their purpose. */
export interface Purpose {
  readonly request: string;
  readonly what: string;
}

/**
 * Purposes by verb and resource. Requests for Pods are told apart by the state of the claim's Secret, which has the
 * same name.
 */
const PURPOSES: Readonly<Record<string, string>> = {
  "create secrets": "the claim's record, which takes the Pod's slot",
  "patch secrets": "the key that the container waits for",
  "delete secrets": "the record, once the item is settled",
  "create pods": "a new Pod, to replace the assigned one",
  "patch environments/status": "counts, at most every 5 s",
  "patch environments": "the finalizer",
  "get environments": "the Environment, before its finalizer changes",
  "get secrets": "the environment key, every minute",
  "get networkpolicies": "the policy for Pods, every ten minutes",
  "create events": "a new Event",
  "patch events": "a repeated Event",
};
const BEFORE_SETTLED: Readonly<Record<string, string>> = {
  "get pods": "a live read before the acknowledgement",
  "patch pods": "its assignment, which makes the kubelet sync it",
};
const AFTER_SETTLED: Readonly<Record<string, string>> = {
  "get pods": "a live read before the deletion",
  "patch pods": "its mark as finished, because it is kept",
};

/**
 * Counts the operator's requests by purpose, the most frequent first. @param entries in the order of the log, starting
 * at a quiet moment
 */
export function purposesOf(entries: Iterable<AuditEntry>): (Purpose & { readonly count: number })[] {
  // Claims in progress. Claims from before the start of the log have ended.
  const open = new Set<string>();
  const purposes = new Map<string, Purpose & { count: number }>();
  for (const entry of entries) {
    if (entry.verb === "create" && entry.resource === "secrets") open.add(entry.name);
    const purpose = purposeOf(entry, !open.has(entry.name));
    const key = `${purpose.request} ${purpose.what}`;
    const known = purposes.get(key) ?? { ...purpose, count: 0 };
    known.count += 1;
    purposes.set(key, known);
    if (entry.verb === "delete" && entry.resource === "secrets") open.delete(entry.name);
  }
  return [...purposes.values()].sort((a, b) => b.count - a.count);
}

function purposeOf({ verb, resource, subresource, code }: AuditEntry, isSettled: boolean): Purpose {
  const request = `${verb} ${resource}${subresource === "" ? "" : `/${subresource}`}`;
  const refused = code >= 400 ? `, refused with ${code}` : "";
  const byTime = (isSettled ? AFTER_SETTLED : BEFORE_SETTLED)[request];
  const deletion =
    request === "delete pods"
      ? isSettled
        ? "the Pod, after its item is settled"
        : "the Pod, before its item is settled"
      : undefined;
  return { request, what: `${byTime ?? deletion ?? PURPOSES[request] ?? "other"}${refused}` };
}
