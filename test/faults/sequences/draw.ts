import fc from "fast-check";
import type { Sequence, Step } from "./mode.ts";
import type { CommonSetting } from "./stage.ts";

/** Sequences are short and numerous: failures come from two or three steps that coincide. */
const MOST_STEPS = 10;
const LONGEST_PAUSE_MS = 700;

export const switches: fc.Arbitrary<CommonSetting["switches"]> = fc.record({
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

function step<Kind extends string>(kinds: readonly Kind[]): fc.Arbitrary<Step<Kind>> {
  return fc.record({
    kind: fc.constantFrom(...kinds),
    afterMs: fc.integer({ min: 0, max: LONGEST_PAUSE_MS }),
    choice: fc.nat(999),
  });
}

/** Whether a kind needs two replicas. */
function wantsReplicas(kind: string): boolean {
  return kind.startsWith("leader:");
}

/**
 * A sequence with at least one step of `kind`, at any place, preceded by work: without a running session most steps
 * have no effect.
 */
export function sequenceWith<Kind extends string, Setting extends CommonSetting>(parts: {
  readonly kind: Kind;
  readonly kinds: readonly Kind[];
  /** Kinds that enqueue work. */
  readonly work: readonly Kind[];
  readonly setting: (replicas: fc.Arbitrary<1 | 2>) => fc.Arbitrary<Setting>;
}): fc.Arbitrary<Sequence<Kind, Setting>> {
  const { kind } = parts;
  const replicas = wantsReplicas(kind) ? fc.constant(2 as const) : fc.constantFrom<1 | 2>(1, 1, 1, 1, 2);
  return parts.setting(replicas).chain((chosen) => {
    const kinds = parts.kinds.filter((each) => chosen.replicas === 2 || !wantsReplicas(each));
    return fc
      .record({
        work: fc.array(step(parts.work), { minLength: 1, maxLength: 2 }),
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

/** The relevant settings, then the steps. */
export function sequenceText({ setting: { switches: api, ...rest }, steps }: Sequence<string, CommonSetting>): string {
  const pairs = (values: object) =>
    Object.entries(values)
      .map(([name, value]) => `${name}=${value}`)
      .join(" ");
  const lines = steps.map(({ kind, afterMs, choice }) => `  ${kind} (after ${afterMs} ms, choice ${choice})`);
  return [`  ${pairs(rest)}`, `  ${pairs(api)}`, ...lines].join("\n");
}
