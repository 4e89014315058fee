/** The named points of reconciling itself (src/core/points.ts), in both modes, each with what it is. */
export const RECONCILE_POINTS = {
  "reconcile.read-key": "reads the Secret with the environment key. Details: usable",
  "reconcile.check-template": "creates a Pod of the template as a dry run. Details: accepted",
  "reconcile.write-status": "writes the Environment's status",
  "policy.read": "reads the NetworkPolicy",
  "policy.create": "creates it",
  "policy.patch": "changes it to what the spec wants",
  "policy.delete": "deletes it",
} as const satisfies Record<string, string>;

export type ReconcilePoint = keyof typeof RECONCILE_POINTS;
