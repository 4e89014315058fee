import { oneLine, type Paint } from "../observe/terminal.ts";
import type { CheckResult, CheckStatus } from "./checks.ts";
import type { DoctorReport, Problem } from "./report.ts";

const WORDS: Readonly<Record<CheckStatus, string>> = { pass: "ok", warn: "WARN", fail: "FAIL", skip: "--" };
const WORD_WIDTH = 4;
const CHECK_WIDTH = 16;
const INDENT = " ".repeat(WORD_WIDTH + 1 + CHECK_WIDTH + 1);
/** The number of objects that a problem names. JSON has all of them. */
const SHOWN = 3;

/** The report for a person: each problem once, with its fix; then what is well. */
export function reportText(
  { berth, server, counts, problems, checks }: DoctorReport,
  paint: Paint,
  { onlyProblems }: { readonly onlyProblems: boolean },
): string {
  const { pass, warn, fail, skip } = counts;
  const summary = `Berth ${berth} at ${server}: ${fail} failed, ${warn} warned, ${pass} ok, ${skip} not checked`;
  const parts = [
    problems.map((problem) => problemText(problem, paint)).join(""),
    ...(onlyProblems ? [] : groupsOf(checks, paint)),
    `${fail > 0 ? paint.bad(summary) : summary}\n`,
  ];
  return parts.filter((part) => part !== "").join("\n");
}

function groupsOf(checks: readonly CheckResult[], paint: Paint): string[] {
  const others = checks.filter(({ status }) => status === "pass" || status === "skip");
  return [...Map.groupBy(others, ({ about }) => about)].map(
    ([about, results]) => `${paint.strong(about)}\n${results.map((result) => `  ${lineOf(result, paint)}`).join("")}`,
  );
}

function problemText(problem: Problem, paint: Paint): string {
  const fix = `${INDENT}${paint.faint(`-> ${oneLine(problem.fix ?? "")}`)}\n`;
  return `${lineOf(problem, paint)}${INDENT}${aboutText(problem.about)}\n${fix}`;
}

function aboutText(about: readonly string[]): string {
  if (about.length === 1) return about.join("");
  const more = about.length > SHOWN ? ` and ${about.length - SHOWN} more` : "";
  return `${about.length} objects: ${about.slice(0, SHOWN).join(", ")}${more}`;
}

function lineOf({ check, status, message }: Omit<CheckResult, "about">, paint: Paint): string {
  const word = colourOf(status, paint)(WORDS[status].padEnd(WORD_WIDTH));
  const text = oneLine(message);
  return `${word} ${check.padEnd(CHECK_WIDTH)} ${status === "skip" ? paint.faint(text) : text}\n`;
}

function colourOf(status: CheckStatus, paint: Paint): (text: string) => string {
  switch (status) {
    case "pass":
      return paint.good;
    case "warn":
      return paint.doubtful;
    case "fail":
      return paint.bad;
    case "skip":
      return paint.faint;
  }
}
