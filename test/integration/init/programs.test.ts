import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { FirstProcess } from "./first-process.ts";

const run = promisify(execFile);
describe("a program", () => {
  test("gets the container's variables and those of its item, of any name and value", async () => {
    const variables = [
      "log.level=de bug",
      "EMPTY=",
      "PATH2=a=b",
      "LINES=one\ntwo",
      "BYTES=\u00e4\u00ff",
      "KEPT=replaced",
    ];
    const encoded = variables.map((text) => {
      const [name, value] = [text.slice(0, text.indexOf("=")), text.slice(text.indexOf("=") + 1)];
      const bytes = [...value].map((byte) => `%${byte.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`);
      return `${name}=${bytes.join("")}`;
    });
    await using init = await FirstProcess.waiting({
      command: ["/usr/bin/env", "-0"],
      env: { KEPT: "kept", OTHER: "other" },
    });
    await init.runToEnd("claim-1", 1, encoded);
    const all = () => init.output.split("\0");
    await expect.poll(all).toEqual(expect.arrayContaining([...variables, "OTHER=other"]));
    expect(all()).not.toContain("KEPT=kept");
    init.output = "";
    await init.runToEnd("claim-2", 2);
    await expect.poll(all).toEqual(expect.arrayContaining(["KEPT=kept", "OTHER=other"]));
    expect(init.output).not.toContain("log.level");
  });

  test("starts as the first did, whatever the last one changed", async () => {
    const facts =
      'echo "$(pwd) $(ulimit -n) $(ulimit -c) $(nice) $(grep SigBlk /proc/self/status) $(grep SigIgn /proc/self/status)"';
    await using init = await FirstProcess.waiting({
      script: `${facts}; cd /; ulimit -n 17; prlimit --pid 1 --nofile=99:1234; mv "$TEST_FOLDER/inside" "$TEST_FOLDER/away"; mkdir "$TEST_FOLDER/inside"`,
      prepare: 'mkdir "$TEST_FOLDER/inside"; cd "$TEST_FOLDER/inside"; ulimit -n 1234; ulimit -c 1000; trap "" USR1',
    });
    await init.runToEnd("claim-1", 1);
    await init.runToEnd("claim-2", 2);
    await init.until("both have printed", () => init.output.split("\n").length > 2);
    const [first, second, ...rest] = init.output.trimEnd().split("\n");
    expect(first).toMatch(/^\/.*\/inside 1234 1000 0 /);
    expect(second).toBe(first);
    expect(rest).toEqual([]);
  });

  test("has nothing on its standard input, and no other file that berth-init holds", async () => {
    await using init = await FirstProcess.waiting({ script: "cat; ls /proc/self/fd; readlink /proc/self/fd/0" });
    await init.runToEnd("claim-1", 1);
    // The last one is what `ls` opened.
    await expect.poll(() => init.output).toBe("0\n1\n2\n3\n/dev/null\n");
  });

  test("prints to standard output with both of its streams, and reports come on standard error", async () => {
    await using init = await FirstProcess.waiting({ script: "echo out; echo error >&2; exit 3" });
    const ended = await init.runToEnd("claim-1", 1);
    expect(ended).toMatchObject({ how: "exit", number: 3, asked: "-", left: "clean", words: "error\n" });
    await init.until("all is printed", () => init.output.length >= "out\nerror\n".length);
    expect(init.output.split("\n").sort()).toEqual(["", "error", "out"]);
    expect(init.errors).not.toContain("out");
  });

  test("can forge no report, because it has no way to standard error", async () => {
    await using init = await FirstProcess.waiting({
      script: `for fd in 1 2; do printf '\\nberth2 %d %s #end\\n' 40 "state $BOOT - claim-9 waiting-----" >&$fd; done`,
    });
    await init.runToEnd("claim-1", 1, [`BOOT=${init.boot}`]);
    expect(init.errors).not.toContain("claim-9");
    expect(await init.ask("hello")).toMatchObject({ claim: "claim-1", phase: "ended" });
  });

  test("that can't be started says why", async () => {
    await using init = await FirstProcess.waiting({ command: ["no-such-program"] });
    const words = "berth-init: command no-such-program: No such file or directory\n";
    expect(await init.runToEnd("claim-1", 1)).toMatchObject({ how: "exit", number: 127, words });
    await using other = await FirstProcess.waiting({ command: ["/etc/passwd"] });
    expect(await other.runToEnd("claim-1", 1)).toMatchObject({ how: "exit", number: 126 });
  });

  test("leaves its last words: the message at the path for it, else the end of its standard error", async () => {
    const folder = await mkdtemp(join(tmpdir(), "berth-init-message-"));
    const path = join(folder, "message");
    await writeFile(path, "of an earlier program");
    await using init = await FirstProcess.waiting({
      flags: ["--message", path],
      script:
        'test -n "$MESSAGE" && printf %s "$MESSAGE" > "$FILE"; head -c 3000 /dev/zero | tr "\\0" x >&2; echo end >&2; exit 1',
    });
    const silent = await init.runToEnd("claim-1", 1, [`FILE=${path}`]);
    expect(silent.words).toBe(`${"x".repeat(1020)}end\n`);
    const told = await init.runToEnd("claim-2", 2, [`FILE=${path}`, "MESSAGE=why%25"]);
    expect(told.words).toBe("why%");
    expect((await init.runToEnd("claim-3", 3, [`FILE=${path}`])).words).toBe(silent.words);
    await rm(folder, { recursive: true });
  });

  test("is ended after its time: first asked, then, after its grace, ended with all of its processes", async () => {
    const script = "trap 'echo asked' TERM; echo up; while :; do sleep 1000 & wait; done";
    await using init = await FirstProcess.waiting({ script });
    await init.run("claim-1", 1, { seconds: 1, grace: 1 });
    expect(await init.next()).toMatchObject({ phase: "ended", how: "signal", number: 9, asked: "time", left: "clean" });
    await expect.poll(() => init.output).toBe("up\nasked\n");
    await init.run("claim-2", 2, { seconds: 1000, grace: 0 });
    await init.until("it has started again", () => init.output === "up\nasked\nup\n");
    await init.ask("stop", init.boot, "claim-2");
    expect(await init.next()).toMatchObject({ phase: "ended", how: "signal", number: 9, asked: "stop" });
  });

  test("leaves no process behind: neither its children nor those in other sessions", async () => {
    await using init = await FirstProcess.waiting({
      script:
        "for i in $(seq 300); do setsid sleep 1000 & done; (setsid sh -c 'trap \"\" TERM; sleep 1000' &); echo up; exit 7",
    });
    const first = await init.pid();
    expect(await init.runToEnd("claim-1", 1)).toMatchObject({ how: "exit", number: 7, left: "clean" });
    const { stdout } = await run("ps", ["--no-headers", "-o", "pid", "--ppid", String(first)]).catch(() => ({
      stdout: "",
    }));
    expect(stdout).toBe("");
    expect(await init.runToEnd("claim-2", 2)).toMatchObject({ how: "exit", number: 7, left: "clean" });
  });

  test("whose background processes hold its output ends all the same", async () => {
    await using init = await FirstProcess.waiting({ script: "sleep 1000 & echo done >&2" });
    expect(await init.runToEnd("claim-1", 1)).toMatchObject({ how: "exit", number: 0, words: "done\n" });
  });

  test("that writes more than anyone reads is held up, and berth-init still answers and stops it", async () => {
    await using init = await FirstProcess.waiting({
      isOutputStuck: true,
      script: "trap 'echo last >&2; exit 5' TERM; cat /dev/zero >&2 & wait",
    });
    await init.run("claim-1", 1);
    const written = async () => /wchar: (\d+)/.exec(await readFile(`/proc/${await init.pid()}/io`, "utf8"))?.[1];
    let before: string | undefined;
    const isHeldUp = async () => {
      const last = before;
      before = await written();
      return last === before && Number(before) > 65_536;
    };
    await expect.poll(isHeldUp, { interval: 200 }).toBe(true);
    expect(await init.ask("hello")).toMatchObject({ phase: "running" });
    await init.ask("kill", init.boot, "claim-1");
    expect(await init.next()).toMatchObject({ phase: "ended", how: "signal", number: 9, asked: "kill" });
    init.readOutput();
    await init.until("what was written is read", () => init.output.length >= 65_536);
  });

  test("loses nothing of what it wrote before its end", async () => {
    await using init = await FirstProcess.waiting({ script: "head -c 1000000 /dev/zero | tr '\\0' y >&2" });
    await init.runToEnd("claim-1", 1);
    await init.until("all is read", () => init.output.length >= 1_000_000);
    await expect.poll(() => init.output).toBe("y".repeat(1_000_000));
  });
});

describe("the container", () => {
  test("ends with 143 when it is terminated, after its program, which gets the signal alone", async () => {
    await using waiting = await FirstProcess.waiting();
    await waiting.signal("SIGTERM");
    expect(await waiting.ended).toBe(143);
    await using init = await FirstProcess.waiting({
      script: "trap 'echo saved; exit 0' TERM; (trap 'echo child' TERM; sleep 1000) & echo up; wait",
    });
    await init.run("claim-1", 1);
    await init.until("it has started", () => init.output !== "");
    await init.signal("SIGTERM");
    expect(await init.next()).toMatchObject({ phase: "ended", how: "exit", number: 0, asked: "terminate" });
    expect(await init.ended).toBe(143);
    await expect.poll(() => init.output).toBe("up\nsaved\n");
  });

  test("starts no program any more once it is being terminated", async () => {
    await using init = await FirstProcess.waiting({
      script: "trap : TERM; echo up; sleep 1000 & wait; sleep 1000 & wait",
    });
    await init.run("claim-1", 1);
    await init.until("it has started", () => init.output !== "");
    await init.signal("SIGTERM");
    await init.ask("kill", init.boot, "claim-1");
    expect(await init.ended).toBe(143);
  });

  test("ends with its program's code if it serves one item only", async () => {
    await using init = await FirstProcess.waiting({ flags: ["--once"], script: "exit 42" });
    await init.runToEnd("claim-1", 1);
    expect(await init.ended).toBe(42);
    await using killed = await FirstProcess.waiting({ flags: ["--once"], script: "kill -KILL $$" });
    await killed.runToEnd("claim-1", 1);
    expect(await killed.ended).toBe(137);
  });

  test("ends with 75 when no line can come any more, after the program that runs", async () => {
    await using waiting = await FirstProcess.waiting();
    waiting.endInput();
    expect(await waiting.ended).toBe(75);
    await using init = await FirstProcess.waiting({
      script: 'echo up; read -r _ < "$TEST_FOLDER/pipe"; exit 3',
      prepare: 'mkfifo "$TEST_FOLDER/pipe"',
    });
    await init.run("claim-1", 1);
    await init.until("it has started", () => init.output !== "");
    init.endInput();
    await writeFile(join(init.folder, "pipe"), "end\n");
    expect(await init.next()).toMatchObject({ phase: "ended", how: "exit", number: 3, asked: "-" });
    expect(await init.ended).toBe(75);
  });

  test("refuses to be anything but the first process, because its clean-up would end others", async () => {
    await using init = await FirstProcess.start({ isFirst: false });
    expect(await init.ended).toBe(126);
    expect(init.errors).toContain("not process 1");
  });

  test.each([[[]], [["--once"]], [["--message"]], [["--what"]]])(
    "ends with 125 for the arguments %j",
    async (flags) => {
      await using init = await FirstProcess.start({ flags, command: [] });
      expect(await init.ended).toBe(125);
      expect(init.errors).toContain("usage: berth-init");
    },
  );
});
