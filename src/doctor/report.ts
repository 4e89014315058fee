import { CHECKS, type CheckId, type CheckResult, type CheckStatus } from "./checks.ts";

/** A problem, and everything that has it. */
export interface Problem extends Omit<CheckResult, "about"> {
  readonly about: readonly string[];
}

/** The results of all checks. */
export interface DoctorReport {
  /** Version of this build. */
  readonly berth: string;
  /** Address of the API server. */
  readonly server: string;
  /** No check failed. */
  readonly ok: boolean;
  readonly counts: Readonly<Record<CheckStatus, number>>;
  /** Every problem once. */
  readonly problems: readonly Problem[];
  readonly checks: readonly CheckResult[];
}

/** Counts the results by status, and groups the problems. */
export function reportOf(berth: string, server: string, checks: readonly CheckResult[]): DoctorReport {
  const count = (status: CheckStatus) => checks.filter((each) => each.status === status).length;
  const counts = { pass: count("pass"), warn: count("warn"), fail: count("fail"), skip: count("skip") };
  return { berth, server, ok: counts.fail === 0, counts, problems: problemsOf(checks), checks };
}

/** Every problem once: failures first, and causes before their effects. */
export function problemsOf(results: readonly CheckResult[]): Problem[] {
  const groups = Map.groupBy(results.filter(isProblem), ({ check, status, message }) =>
    JSON.stringify([check, status, message]),
  );
  const problems = [...groups.values()].flatMap(([first, ...more]) =>
    first ? [{ ...first, about: [first, ...more].map(({ about }) => about) }] : [],
  );
  const order = Object.keys(CHECKS) as CheckId[];
  const rank = ({ status, check }: Problem) => (status === "fail" ? 0 : order.length) + order.indexOf(check);
  return problems.sort((a, b) => rank(a) - rank(b));
}

function isProblem({ status }: CheckResult): boolean {
  return status === "fail" || status === "warn";
}
