import { oneLine, type Paint } from "../observe/terminal.ts";
import type { CheckResult, CheckStatus, DoctorReport } from "./checks.ts";

const WORDS: Readonly<Record<CheckStatus, string>> = { pass: "ok", warn: "WARN", fail: "FAIL", skip: "--" };
const WORD_WIDTH = 4;
const CHECK_WIDTH = 16;
const INDENT = " ".repeat(2 + WORD_WIDTH + 1 + CHECK_WIDTH + 1);

/** The report for a person. Problems stand out, with the fix below each. */
export function reportText({ berth, server, counts, checks }: DoctorReport, paint: Paint): string {
  const groups = Map.groupBy(checks, ({ about }) => about);
  const parts = [...groups].map(([about, results]) => {
    const title = about === "cluster" ? `cluster ${server}` : about;
    return `${paint.strong(title)}\n${results.map((result) => resultText(result, paint)).join("")}`;
  });
  const { pass, warn, fail, skip } = counts;
  const summary = `Berth ${berth}: ${pass} ok, ${warn} to look at, ${fail} failed, ${skip} not checked`;
  return `${parts.join("\n")}\n${fail > 0 ? paint.bad(summary) : summary}\n`;
}

function resultText({ check, status, message, fix }: CheckResult, paint: Paint): string {
  const word = colourOf(status, paint)(WORDS[status].padEnd(WORD_WIDTH));
  const text = oneLine(message);
  const line = `  ${word} ${check.padEnd(CHECK_WIDTH)} ${status === "skip" ? paint.faint(text) : text}\n`;
  return fix === null ? line : `${line}${INDENT}${paint.faint(`-> ${oneLine(fix)}`)}\n`;
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
