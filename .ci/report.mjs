/**
 * Reads reports that vitest wrote as JSON, for .ci/run:
 *
 *   node .ci/report.mjs files FIRST                          files of which something failed, one per line
 *   node .ci/report.mjs flaky FIRST AGAIN                    those of them that passed at the second try, one per line
 *   node .ci/report.mjs sum FIRST CODE [AGAIN CODE]          `passed failed skipped`, as one line
 *   node .ci/report.mjs names REPORT                         what failed, with the start of what it says
 *
 * CODE is what vitest ended with. AGAIN is the report of a second run of the files that failed: it counts for them.
 */
import { readFileSync } from "node:fs";
import { relative } from "node:path";

const [command, ...rest] = process.argv.slice(2);
const commands = { files, flaky, sum, names };
if (!Object.hasOwn(commands, command)) throw new Error(`no command is called ${command}`);
commands[command](...rest);

function files(first) {
  for (const { name } of failedFiles(read(first))) console.log(relative(".", name));
}

function flaky(first, again) {
  const { testResults } = read(again);
  const passed = new Set(testResults.filter(({ status }) => status === "passed").map(({ name }) => name));
  for (const { name } of failedFiles(read(first))) if (passed.has(name)) console.log(relative(".", name));
}

function sum(first, firstCode, again, againCode) {
  const report = read(first);
  const second = again === undefined ? [] : read(again).testResults;
  const anew = new Set(second.map(({ name }) => name));
  const counted = [...report.testResults.filter(({ name }) => !anew.has(name)), ...second];
  const tests = counted.flatMap(({ assertionResults }) => assertionResults);
  const passed = tests.filter(({ status }) => status === "passed").length;
  let failed = tests.filter(({ status }) => status === "failed").length + counted.filter(isBroken).length;
  // Also without a test that failed: an unhandled error, a set-up that failed, no test at all.
  const code = again === undefined || failedFiles(report).length === 0 ? firstCode : againCode;
  if (failed === 0 && (code !== "0" || passed === 0)) failed = 1;
  console.log(passed, failed, tests.length - passed - tests.filter(({ status }) => status === "failed").length);
}

function names(file) {
  const short = (text = "") => text.split("\n").slice(0, 4).join("\n    ").slice(0, 600);
  for (const { name, message, assertionResults } of failedFiles(read(file))) {
    const failed = assertionResults.filter(({ status }) => status === "failed");
    if (failed.length === 0) console.log(`${relative(".", name)}: ${short(message)}`);
    for (const { fullName, failureMessages } of failed) {
      console.log(`${relative(".", name)}: ${fullName}\n    ${short(failureMessages[0])}`);
    }
  }
}

function read(file) {
  return JSON.parse(readFileSync(file, "utf8"));
}

function failedFiles({ testResults }) {
  return testResults.filter((file) => file.status === "failed");
}

/** A file that could not be loaded, or whose hooks failed, has no test that could fail: it counts as one. */
function isBroken({ status, assertionResults }) {
  return status === "failed" && !assertionResults.some((test) => test.status === "failed");
}
