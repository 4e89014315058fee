import fc from "fast-check";

/** Everything that may befall an Environment, by whom or what it comes from. */
export const KINDS = [
  // Work comes.
  "work:session",
  "work:burst",
  "work:health-check",
  "work:unknown-type",
  "work:no-secret",
  "work:same-session",
  "work:message",
  // A session comes, and the next Pod that is made has this fate.
  "fate:crash",
  "fate:exit-code",
  "fate:oom",
  "fate:killed",
  "fate:silent-exit",
  "fate:endless",
  "fate:ignores-sigterm",
  "fate:never-beats",
  "fate:start-error",
  "fate:create-error",
  "fate:never-starts",
  "fate:image-error",
  "fate:sandbox-error",
  "fate:evicted",
  "fate:refused",
  "fate:slow-start",
  // People, the cluster and the node.
  "pod:deleted",
  "pod:parked-deleted",
  "pod:evicted-by-api",
  "pod:evicted-by-node",
  "pod:killed",
  "pod:out-of-memory",
  "node:lost",
  "node:rebooted",
  "node:drained",
  "node:shut-down",
  "claim:edited",
  // Users of the platform.
  "user:stops",
  "user:forces-stop",
  "user:deletes-session",
  "user:revokes-tokens",
  // The spec changes.
  "spec:warm",
  "spec:max",
  "spec:template",
  "spec:bad-template",
  "spec:lease",
  "spec:parking",
  "spec:credential",
  "spec:paused",
  "spec:resumed",
  "spec:on-pod-failure",
  "spec:disruption",
  "spec:max-duration",
  "spec:mode",
  "environment:made-again",
  // The environment key.
  "key:rotated",
  "key:rejected",
  "key:wrong",
  "key:deleted",
  "key:restored",
  // The Work API and the way to it.
  "api:5xx",
  "api:429",
  "api:reset",
  "api:lost-reply",
  "api:hang",
  "api:slow",
  "api:nonsense",
  "api:duplicate-offer",
  // The API server and the way to it.
  "kube:reset",
  "kube:lost-reply",
  "kube:slow",
  "kube:late",
  "kube:5xx",
  "kube:429",
  "kube:conflict",
  "kube:partition",
  "watch:dropped",
  "watch:gone",
  // The operator and its machine.
  "clock:forward",
  "clock:back",
  "clock:stopped",
  "clock:suspended",
  "operator:restarted",
  "operator:killed",
  "operator:down",
  "leader:ended",
  "leader:killed",
  "leader:lease-deleted",
] as const;

export type Kind = (typeof KINDS)[number];

/** What needs two replicas. */
export function wantsReplicas(kind: Kind): boolean {
  return kind.startsWith("leader:");
}

export interface Step {
  readonly kind: Kind;
  /** Pause before it, in milliseconds. */
  readonly afterMs: number;
  /** Decides whatever a step leaves open: which Pod, which call, which value. */
  readonly choice: number;
}

/** What an Environment is made with, and what its Work API is like. */
export interface Setting {
  readonly replicas: 1 | 2;
  readonly lease: "Worker" | "Operator";
  readonly onPodFailure: "Stop" | "Release";
  /** Without delivery as a file: scripted programs read none. */
  readonly parking: "Key" | "Init";
  readonly disruption: "Allow" | "Protect";
  readonly maxConcurrent: number;
  readonly warm: number;
  readonly switches: {
    readonly secondAck: "refused" | "unchanged" | "renewed";
    readonly lapse: "requeue" | "stop";
    readonly starting: "expires" | "never";
    readonly lapsedStopping: "stays" | "ends";
    readonly stoppingBeat: "extends" | "ignored";
    readonly requeueId: "kept" | "new";
    readonly listOrder: "newest" | "oldest" | "shuffled";
    readonly listKeepsStopped: 3 | null;
    readonly stopReply: "empty" | "work";
  };
}

export interface Sequence {
  readonly setting: Setting;
  readonly steps: readonly Step[];
}

/** Sequences are short, and many: what goes wrong does so for two or three steps that meet. */
const MOST_STEPS = 10;
const LONGEST_PAUSE_MS = 700;

const switches: fc.Arbitrary<Setting["switches"]> = fc.record({
  secondAck: fc.constantFrom("refused", "unchanged", "renewed"),
  lapse: fc.constantFrom("requeue", "requeue", "stop"),
  starting: fc.constantFrom("expires", "never"),
  lapsedStopping: fc.constantFrom("ends", "stays"),
  stoppingBeat: fc.constantFrom("extends", "ignored"),
  requeueId: fc.constantFrom("kept", "kept", "new"),
  listOrder: fc.constantFrom("newest", "oldest", "shuffled"),
  listKeepsStopped: fc.constantFrom(null, null, 3 as const),
  stopReply: fc.constantFrom("empty", "work"),
});

function setting(replicas: fc.Arbitrary<1 | 2>): fc.Arbitrary<Setting> {
  return fc.record({
    replicas,
    lease: fc.constantFrom("Worker", "Worker", "Operator"),
    onPodFailure: fc.constantFrom("Stop", "Release"),
    parking: fc.constantFrom("Key", "Key", "Init"),
    disruption: fc.constantFrom("Allow", "Allow", "Protect"),
    maxConcurrent: fc.integer({ min: 1, max: 4 }),
    warm: fc.integer({ min: 0, max: 2 }),
    switches,
  });
}

function step(kinds: readonly Kind[]): fc.Arbitrary<Step> {
  return fc.record({
    kind: fc.constantFrom(...kinds),
    afterMs: fc.integer({ min: 0, max: LONGEST_PAUSE_MS }),
    choice: fc.nat(999),
  });
}

const WORK: readonly Kind[] = ["work:session", "work:session", "work:burst", "work:same-session"];

/**
 * A sequence with at least one step of `kind`, at any place, and work before it: without a session under way most of what
 * may happen is nothing.
 */
export function sequenceWith(kind: Kind): fc.Arbitrary<Sequence> {
  const replicas = wantsReplicas(kind) ? fc.constant(2 as const) : fc.constantFrom<1 | 2>(1, 1, 1, 1, 2);
  return setting(replicas).chain((chosen) => {
    const kinds = KINDS.filter((each) => chosen.replicas === 2 || !wantsReplicas(each));
    return fc
      .record({
        work: fc.array(step(WORK), { minLength: 1, maxLength: 2 }),
        some: fc.array(step(kinds), { maxLength: (MOST_STEPS - 2) / 2 }),
        must: step([kind]),
        isFirst: fc.boolean(),
        more: fc.array(step(kinds), { maxLength: (MOST_STEPS - 2) / 2 }),
      })
      .map(({ work, some, must, isFirst, more }) => {
        const rest = isFirst ? [must, ...some] : [...some, must];
        return { setting: chosen, steps: [...work, ...rest, ...more] };
      });
  });
}

/** One line for people: the setting as far as it matters, then the steps. */
export function sequenceText({ setting: { switches: api, ...rest }, steps }: Sequence): string {
  const pairs = (values: object) =>
    Object.entries(values)
      .map(([name, value]) => `${name}=${value}`)
      .join(" ");
  const lines = steps.map(({ kind, afterMs, choice }) => `  ${kind} (after ${afterMs} ms, choice ${choice})`);
  return [`  ${pairs(rest)}`, `  ${pairs(api)}`, ...lines].join("\n");
}
