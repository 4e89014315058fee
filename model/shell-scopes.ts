import { CODE, type Rules } from "./rules.ts";
import { type Broken, brokenOf, LEASES, type Scope, SERVERS, scopesOf } from "./scopes.ts";

// What to explore of `parking: Shell`. Its rules are those of scopes.ts and more, so they need fewer scopes.

/** What the code does. */
const SHELL: Rules = { ...CODE, parking: "Shell" };

/** Two Pods of a session, so that S5 is checked. */
const TWO_PODS = { pods: 2, oneSession: true } as const;
const TWO_OPERATORS = { operators: 2, acknowledgements: 1 } as const;

const scope = scopesOf("Shell", SHELL);

export const SHELL_SCOPES: readonly Scope[] = [
  ...LEASES.flatMap((lease) => [
    scope(
      lease,
      "1 operator, 1 item, 1 Pod, every server",
      SERVERS.map((server) => ({ ...server, deletion: true })),
    ),
    scope(lease, "1 operator, 1 item, 2 Pods", [{ ...TWO_PODS, deletion: true }]),
    scope(lease, "1 operator, 2 items, 1 Pod", [{ items: 2, deletion: true }]),
    scope(lease, "1 operator, a user deletes Secrets", [
      { ...TWO_PODS, secretDeletion: "any-time" },
      { items: 2, secretDeletion: "any-time" },
    ]),
    scope(lease, "2 operators, acknowledged once", [TWO_OPERATORS, { ...TWO_OPERATORS, onPodFailure: "Release" }]),
    scope(
      lease,
      "2 operators, acknowledged once, every server",
      SERVERS.map((server) => ({ ...server, ...TWO_OPERATORS })),
      true,
    ),
    scope(lease, "2 operators, acknowledged once, Environment deleted", [{ ...TWO_OPERATORS, deletion: true }], true),
    scope(lease, "2 operators, 1 item", [{ operators: 2 }], true),
    scope(
      lease,
      "1 operator, 2 items of one session, 2 Pods, acknowledged once",
      [{ ...TWO_PODS, items: 2, acknowledgements: 1 }],
      true,
    ),
    scope(lease, "2 operators, 1 item, 2 Pods each, acknowledged once", [{ ...TWO_OPERATORS, ...TWO_PODS }], true),
  ]),
  scope("Worker", "1 operator, told to stop when its heartbeat moved", [
    { ...TWO_PODS, deletion: true, graceful: "moved" },
  ]),
  scope("Operator", "2 operators, acknowledged once, a line arrives in its lease", [
    { ...TWO_OPERATORS, lateLine: "in-its-lease" },
  ]),
];

const broken = brokenOf(SHELL);

/** Each rule of `parking: Shell` removed in turn, with the properties that then fail. */
export const WITHOUT_A_SHELL_RULE: readonly Broken[] = [
  broken("a line is sent after the opening is recorded in the Secret", ["S7"], { line: "before-opened" }),
  broken("a line is sent after the Pod is marked as assigned (here: a user deletes the Secret)", ["S4", "S7", "S8"], {
    line: "before-assigned",
    secretDeletion: "any-time",
  }),
  broken(
    "a Pod that is assigned and has no Secret is deleted (here: a user deletes it)",
    ["S4", "S6", "S7"],
    { assignedAlone: "free", secretDeletion: "any-time", items: 2 },
    ["Worker"],
  ),
  broken(
    "a Pod is never free again once its claim was opened",
    ["S4", "S6", "S7", "S8"],
    { reuse: "while-waiting", items: 2 },
    ["Worker"],
  ),
  broken("an opened claim is given up only after its container was seen ended", ["S7"], { giveUp: "send-failed" }),
  broken("a process that knows of no start looks at the item before it delivers again", ["S7"], {
    redelivery: "blind",
  }),
  broken("a program has started only when something shows it", ["L", "S7"], { start: "assumed" }),
  broken("an operator that lost its leadership sends no line", ["S7"], { leadership: "unchecked" }),
  broken(
    "lease: Operator: the operator holds the lease before each delivery",
    ["S2o"],
    { lineLease: false, lateLine: "in-its-lease" },
    ["Operator"],
  ),
];

/** What no rule of the operator can guarantee. */
export const SHELL_LIMITS: readonly Broken[] = [
  {
    ...broken("a stock worker that gets SIGTERM because its start was not known", ["S3"], { sigterm: true }, [
      "Worker",
    ]),
    isLimit: true,
  },
  {
    ...broken("a line that reaches the waiting shell of a lost node", ["S7"], { strict: true }, ["Worker"]),
    isLimit: true,
  },
  {
    ...broken("a line that arrives after the lease of its sender lapsed", ["S2o", "S7"], { strict: true }, [
      "Operator",
    ]),
    isLimit: true,
  },
];
