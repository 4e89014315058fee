import type { Outcome, Round } from "./soak.ts";
import { BOUNDS, type Growth } from "./verdict.ts";
import type { Measure, Vitals } from "./vitals.ts";

const MIB = 1_024 ** 2;

const isBytes = (measure: Measure) => measure.endsWith("Bytes");

/** A value of a measure for people: MiB for bytes. */
function shown(measure: Measure, value: number): string {
  return isBytes(measure) ? `${(value / MIB).toFixed(1)} MiB` : String(Math.round(value));
}

const WIDTH = 8;
const cells = (values: readonly (string | number)[]) => values.map((value) => String(value).padStart(WIDTH)).join("");

export const HEADER = `${"".padEnd(8)}${cells(["seconds", "served", "heap", "rss", "peak rss", "sockets", "peak", "files", "timers", "entries", "signals", "series"])}`;

/** One line of the table: a rest, and the peaks of the load before it; memory in MiB. */
export function roundLine({ isWarmUp, seconds, sessions, vitals, peak }: Round): string {
  const mib = (bytes: number) => (bytes / MIB).toFixed(1);
  const series = vitals.environmentSeries + vitals.otherSeries;
  return `${(isWarmUp ? "warm-up" : "round").padEnd(8)}${cells([
    ...[seconds.toFixed(0), sessions, mib(vitals.heapBytes), mib(vitals.rssBytes), mib(peak.rssBytes)],
    ...[vitals.sockets, peak.sockets, vitals.files, vitals.timers, vitals.entries, vitals.signals, series],
  ])}`;
}

/** What is wrong, a line each; empty for a soak that showed nothing. */
export function problemsOf(outcome: Outcome): string[] {
  return [...grownOf(outcome), ...wrongsOf(outcome)];
}

/** What grew, a line each. */
function grownOf({ growth, empty }: Outcome): string[] {
  return [
    ...growth.filter(({ isFlat }) => !isFlat).map((each) => `${each.measure} grew: ${growthText(each)}`),
    ...heldWhenEmpty(empty.before, empty.after),
  ];
}

/** What went wrong with sessions, with the protocol, or at the end, a line each. */
export function wrongsOf({ account, violations, leftovers, exit }: Outcome): string[] {
  return [
    ...account.wrongs.map((wrong) => `item ${wrong}`),
    ...violations.map((violation) => `protocol violation: ${violation}`),
    ...leftovers.map((leftover) => `left over: ${leftover}`),
    ...(exit === 0 ? [] : [`the operator ended with ${exit}`]),
  ];
}

/** What is held without any Environment, against what was held so after the warm-up. */
export function heldWhenEmpty(before: Vitals, after: Vitals): string[] {
  return (Object.keys(BOUNDS) as Measure[]).flatMap((measure) => {
    const { absolute, share } = BOUNDS[measure];
    const [from, to] = [before[measure], after[measure]];
    // No Environment, no series of one: nothing has to be allowed.
    const allowed = measure === "environmentSeries" ? 0 : Math.max(absolute, share * from);
    if (to - from <= allowed) return [];
    const [was, is, most] = [from, to, allowed].map((value) => shown(measure, value));
    return [`${measure} without any Environment: ${was} after the warm-up, ${is} at the end, ${most} more are allowed`];
  });
}

function growthText({ measure, first, last, grown, allowed }: Growth): string {
  const [from, to, by, most] = [first, last, grown, allowed].map((value) => shown(measure, value));
  return `${from} at first, ${to} at last, ${by} by the slope, ${most} allowed`;
}

/** What is printed at the end: a line for each measure, what befell the soak, and one line that sums it up. */
export function summaryLines(outcome: Outcome): string[] {
  const { growth, account, trouble, watchesEnded, violations, leftovers, seconds, empty } = outcome;
  const counted = (counts: Readonly<Record<string, number>>) =>
    Object.entries(counts)
      .map(([name, count]) => `${name} ${count}`)
      .join(", ");
  const problems = problemsOf(outcome);
  const heap = growth.find(({ measure }) => measure === "heapBytes");
  return [
    "",
    "From the first rest to the last, by the slope over all:",
    ...growth.map((each) => `  ${each.measure.padEnd(18)} ${each.isFlat ? "flat " : "GREW "} ${growthText(each)}`),
    `Without any Environment, after the warm-up and at the end: heap ${shown("heapBytes", empty.before.heapBytes)} and ${shown("heapBytes", empty.after.heapBytes)}, sockets ${empty.before.sockets} and ${empty.after.sockets}, timers ${empty.before.timers} and ${empty.after.timers}, series of Environments ${empty.before.environmentSeries} and ${empty.after.environmentSeries}`,
    `Trouble: ${counted(trouble)}`,
    `Watches ended: ${counted(watchesEnded) || "none"}`,
    "",
    ...problems,
    `${problems.length === 0 ? "flat" : "NOT FLAT"}: ${account.sessions} sessions in ${seconds.toFixed(0)} s, ${account.beaten} beaten, ${account.requeued} queued again, ${account.wrongs.length} not served once, heap ${shown("heapBytes", heap?.first ?? 0)} to ${shown("heapBytes", heap?.last ?? 0)}, ${leftovers.length} left over, ${violations.length} violations`,
  ];
}
