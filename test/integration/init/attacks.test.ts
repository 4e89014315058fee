import { mkdtempDisposable, open, readFile } from "node:fs/promises";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import { runProgram } from "../../../testbed/images/commands.ts";
import { compileStatic, INIT_SOURCE } from "../../../testbed/init/init-binary.ts";
import { CI_SEED } from "../../support/ci-seed.ts";
import { FirstProcess, frame, USER } from "./first-process.ts";

const HOSTILE = join(import.meta.dirname, "..", "..", "fixtures", "init", "hostile.c");
const LINES = 20_000;

test("a program of the same user can't read, open, trace, stop or end the first process", async () => {
  await using init = await FirstProcess.waiting({ user: USER, program: await compileStatic(HOSTILE) });
  await init.run("claim-1", 1);
  await init.until("it has tried all", () => init.output.includes("all tried: 0\n"));
  const results = Object.groupBy(init.output.trimEnd().split("\n").slice(0, -1), (line) =>
    line.startsWith("signal") ? "signals" : "others",
  );
  // A signal may be sent, and does nothing.
  expect(results.signals).toEqual(new Array(10).fill("signal: 0"));
  const { EACCES, EPERM } = constants.errno;
  expect(results.others).toHaveLength(15);
  expect(results.others?.filter((line) => ![EACCES, EPERM].includes(Number(line.split(": ")[1])))).toEqual([]);
  expect(await init.ask("hello")).toMatchObject({ claim: "claim-1", phase: "running" });
  await init.ask("kill", init.boot, "claim-1");
  expect(await init.next()).toMatchObject({ phase: "ended", asked: "kill", left: "clean" });
});

test.each([[[]], [["--preload"]]])("an item's variables are in the program only, with the flags %j", async (flags) => {
  await using init = await FirstProcess.waiting({ script: "exec sleep 1000", flags });
  const secret = "sk-secret-of-the-item";
  const first = await init.pid();
  expect(await memoryHas(first, "waiting")).toBe(true);
  expect(await init.run("claim-1", 1, { variables: [`KEY=${secret}`] })).toMatchObject({ phase: "running" });
  expect(await memoryHas(first, secret)).toBe(false);
});

test.for([
  { flags: [], script: 'echo "$NUMBER"' },
  { flags: ["--preload"], script: `sed -n 's/.*"NUMBER":"\\([0-9]*\\)".*/\\1/p'` },
])(
  "mixed, torn and made-up lines run nothing twice, and are survived under the sanitizers: %j",
  async (run, { skip }) => {
    await using folder = await mkdtempDisposable(join(tmpdir(), "berth-init-sanitized-"));
    const binary = join(folder.path, "berth-init");
    const options = ["-std=gnu11", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
    await runProgram("gcc", [...options, "-o", binary, INIT_SOURCE]).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOENT" || process.env["CI"] === "true") throw error;
      skip("needs gcc and its sanitizers (Debian: gcc)");
    });
    // Its process can't be traced, which the search for leaks would need.
    const env = { ASAN_OPTIONS: "detect_leaks=0" };
    await using init = await FirstProcess.waiting({ binary, env, ...run });
    const { boot } = init;
    const word = fc.oneof(
      fc.constantFrom(
        "hello",
        "run",
        "stop",
        "kill",
        "claim-1",
        "claim-2",
        "-",
        "0",
        "1",
        boot,
        "A=%41",
        "A=%0",
        "=",
        "",
      ),
      fc.string({ maxLength: 12, unit: "binary" }),
      fc.integer({ min: 2, max: 40 }).map((number) => `run n ${boot} claim-1 ${number} 0 0 NUMBER=${number}`),
      fc.constant("x".repeat(700)),
    );
    const line = fc.array(word, { maxLength: 9 }).map((words) => frame(words.join(" ")));
    const torn = fc
      .tuple(line, line, fc.nat(60), fc.nat(60))
      .map(([one, other, cut, from]) => one.slice(0, cut) + other.slice(from));
    const piece = fc.oneof({ weight: 3, arbitrary: line }, torn, fc.string({ unit: "binary" }));
    const [pieces = []] = fc.sample(fc.array(piece, { minLength: LINES, maxLength: LINES, size: "max" }), {
      numRuns: 1,
      ...CI_SEED,
    });
    for (const text of pieces) init.write(text);
    init.write(frame("hello last"));
    for (let state = await init.next(); state.nonce !== "last"; state = await init.next())
      expect(state.boot).toBe(boot);
    const numbers = init.output.trimEnd().split("\n").filter(Boolean).map(Number);
    expect(numbers).toEqual([...new Set(numbers)].sort((one, other) => one - other));
  },
);

/** Whether a text is anywhere in the memory that a process may write. */
async function memoryHas(pid: number, text: string): Promise<boolean> {
  const maps = (await readFile(`/proc/${pid}/maps`, "utf8")).matchAll(/^([0-9a-f]+)-([0-9a-f]+) rw/gm);
  await using memory = await open(`/proc/${pid}/mem`);
  for (const [, from, to] of maps) {
    const start = Number.parseInt(from ?? "", 16);
    const bytes = Buffer.alloc(Number.parseInt(to ?? "", 16) - start);
    await memory.read(bytes, 0, bytes.length, start);
    if (bytes.includes(text)) return true;
  }
  return false;
}
