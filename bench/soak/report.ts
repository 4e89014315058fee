import type { Outcome, Round } from "./soak.ts";
import { BOUNDS, type Growth } from "./verdict.ts";
import type { Measure, Vitals } from "./vitals.ts";

const MIB = 1_024 ** 2;

const isBytes = (measure: Measure) => measure.endsWith("Bytes");

/** Formats the value of a measure for people. Bytes are shown in MiB. */
function shown(measure: Measure, value: number): string {
  return isBytes(measure) ? `${(value / MIB).toFixed(1)} MiB` : String(Math.round(value));
}

const WIDTH = 8;
const cells = (values: readonly (string | number)[]) => values.map((value) => String(value).padStart(WIDTH)).join("");

export const HEADER = `${"".padEnd(8)}${cells(["seconds", "served", "heap", "rss", "peak rss", "sockets", "peak", "files", "timers", "entries", "signals", "series"])}`;

/** Returns one line of the table: a rest, and the peaks of the load before it. Memory is in MiB. */
export function roundLine({ isWarmUp, seconds, sessions, vitals, peak }: Round): string {
  const mib = (bytes: number) => (bytes / MIB).toFixed(1);
  const series = vitals.environmentSeries + vitals.otherSeries;
  return `${(isWarmUp ? "warm-up" : "round").padEnd(8)}${cells([
    ...[seconds.toFixed(0), sessions, mib(vitals.heapBytes), mib(vitals.rssBytes), mib(peak.rssBytes)],
    ...[vitals.sockets, peak.sockets, vitals.files, vitals.timers, vitals.entries, vitals.signals, series],
  ])}`;
}

/** Returns one line per problem, or an empty list if the soak found none. */
export function problemsOf(outcome: Outcome): string[] {
  return [...(outcome.options.kills ? [] : grownOf(outcome)), ...wrongsOf(outcome)];
}

/** Returns one line per measure that grew. */
function grownOf({ growth, empty }: Outcome): string[] {
  return [
    ...growth.filter(({ isFlat }) => !isFlat).map((each) => `${each.measure} grew: ${growthText(each)}`),
    ...heldWhenEmpty(empty.before, empty.after),
  ];
}

/** Returns one line per problem with sessions, with the protocol, or at the end. */
export function wrongsOf({ account, returns, violations, leftovers, exit }: Outcome): string[] {
  return [
    ...returns.strangers,
    ...account.wrongs.map((wrong) => `item ${wrong}`),
    ...violations.map((violation) => `protocol violation: ${violation}`),
    ...leftovers.map((leftover) => `left over: ${leftover}`),
    ...(exit === 0 ? [] : [`the operator ended with ${exit}`]),
  ];
}

/** Compares what the operator holds without any Environment at the end with what it held after the warm-up. */
export function heldWhenEmpty(before: Vitals, after: Vitals): string[] {
  return (Object.keys(BOUNDS) as Measure[]).flatMap((measure) => {
    const { absolute, share } = BOUNDS[measure];
    const [from, to] = [before[measure], after[measure]];
    // Without Environments, there must be no series of an Environment.
    const allowed = measure === "environmentSeries" ? 0 : Math.max(absolute, share * from);
    if (to - from <= allowed) return [];
    const [was, is, most] = [from, to, allowed].map((value) => shown(measure, value));
    return [
      `${measure} without any Environment: ${was} after the warm-up, ${is} at the end, at most ${most} more are allowed`,
    ];
  });
}

function growthText({ measure, first, last, grown, allowed }: Growth): string {
  const [from, to, by, most] = [first, last, grown, allowed].map((value) => shown(measure, value));
  return `${from} at the first rest, ${to} at the last, growth by the slope ${by}, allowed ${most}`;
}

/** Returns the final output: a line per measure, the trouble that the soak caused, and a summary line. */
export function summaryLines(outcome: Outcome): string[] {
  const { growth, account, returns, trouble, watchesEnded, violations, leftovers, seconds, empty } = outcome;
  const counted = (counts: Readonly<Record<string, number>>) =>
    Object.entries(counts)
      .map(([name, count]) => `${name} ${count}`)
      .join(", ");
  const problems = problemsOf(outcome);
  const heap = growth.find(({ measure }) => measure === "heapBytes");
  return [
    "",
    "Growth from the first rest to the last:",
    ...growth.map((each) => `  ${each.measure.padEnd(18)} ${each.isFlat ? "flat " : "GREW "} ${growthText(each)}`),
    `Without any Environment, after the warm-up and at the end: heap ${shown("heapBytes", empty.before.heapBytes)} and ${shown("heapBytes", empty.after.heapBytes)}, sockets ${empty.before.sockets} and ${empty.after.sockets}, timers ${empty.before.timers} and ${empty.after.timers}, series of Environments ${empty.before.environmentSeries} and ${empty.after.environmentSeries}`,
    `Sessions came back ${returns.times} times, ${returns.wakes} of them to the Pod in which they slept; one had ${returns.mostItems} items`,
    `Trouble: ${counted(trouble)}`,
    `Watches ended: ${counted(watchesEnded) || "none"}`,
    "",
    ...problems,
    `${problems.length === 0 ? "flat" : "NOT FLAT"}: ${account.sessions} sessions in ${seconds.toFixed(0)} s, ${account.beaten} with a heartbeat, ${account.requeued} queued again, ${account.wrongs.length} not served exactly once, heap ${shown("heapBytes", heap?.first ?? 0)} to ${shown("heapBytes", heap?.last ?? 0)}, ${leftovers.length} left over, ${violations.length} violations`,
  ];
}
