import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, onTestFinished, test } from "vitest";
import {
  isWaitingCommand,
  type Passing,
  programFrame,
  type SessionVariables,
  STARTED_MARKER,
  shellFrame,
  waitingCommand,
  waitingScript,
} from "../../src/pods/frame.ts";
import { AS_FIRST_PROCESS, childOf, hasNamespaces, isInstalled, SHELLS, type Shell, waits } from "./shells.ts";

const PATH = "/usr/bin:/bin";
/** Characters that mean something to a shell, and names that its patterns would match. */
// biome-ignore lint/suspicious/noTemplateCurlyInString: a variable of the shell
const HOSTILE = "'\"`id`$(id)${PATH}$HOME\\n\\\\ *?[a-z]~ #end;&|<>(){}!%s -n=x  ";

const dir = mkdtempSync(join(tmpdir(), "frame-test-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
let folders = 0;
function newFolder(): string {
  folders += 1;
  const path = join(dir, String(folders));
  mkdirSync(path);
  return path;
}

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

interface Start {
  readonly env?: Readonly<Record<string, string>>;
  /** More flags of the shell. */
  readonly flags?: readonly string[];
  /** A program that starts the shell. */
  readonly launcher?: readonly string[];
  readonly passing?: Passing;
}

/**
 * Starts a waiting shell whose program is `argv`. Its standard input is a pipe, as in a container. With a socket, which
 * Node would use, bash reads its user's start-up file.
 */
function start(
  { program, args, argv0 }: Shell,
  argv: readonly string[],
  { env, flags = [], launcher = [], passing }: Start = {},
) {
  const [, ...command] = waitingCommand(argv, waitingScript(passing));
  const [file = "", ...rest] = [...launcher, program, ...args, ...flags, ...command];
  const stdin = pipe();
  const child: ChildProcess = spawn(file, rest, {
    env: { PATH, ...env },
    stdio: [stdin.read, "pipe", "pipe"],
    ...(argv0 && { argv0 }),
  });
  closeSync(stdin.read);
  onTestFinished(() => {
    child.kill("SIGKILL");
    stdin.close();
  });
  const output = { stdout: "", stderr: "" };
  child.stdout?.setEncoding("latin1").on("data", (text: string) => {
    output.stdout += text;
  });
  child.stderr?.setEncoding("latin1").on("data", (text: string) => {
    output.stderr += text;
  });
  const ended = once(child, "close").then(([code]: (number | null)[]): Ended => ({ code: code ?? null, ...output }));
  return { child, write: stdin.write, close: stdin.close, ended };
}

/** A pipe with blocking ends, so that a reader can use it as its standard input. */
function pipe() {
  const path = join(newFolder(), "pipe");
  spawnSync("mkfifo", [path]);
  // Opening one end waits for the other, unless both are open already.
  const both = openSync(path, "r+");
  const read = openSync(path, "r");
  let write: number | undefined = openSync(path, "w");
  closeSync(both);
  return {
    read,
    write: (text: string) => {
      try {
        if (write !== undefined) writeSync(write, text, null, "latin1");
      } catch (error) {
        // The reader has ended.
        if ((error as NodeJS.ErrnoException).code !== "EPIPE") throw error;
      }
    },
    close: () => {
      if (write !== undefined) closeSync(write);
      write = undefined;
    },
  };
}

/** Writes `input` to a waiting shell, closes its standard input, and returns how it ended. */
async function run(shell: Shell, argv: readonly string[], input: string, how?: Start): Promise<Ended> {
  const { write, close, ended } = start(shell, argv, how);
  write(input);
  close();
  return ended;
}

function frameOf(variables: SessionVariables): string {
  const frame = shellFrame(variables);
  if (frame === null) throw new Error("the values do not fit");
  return frame;
}

function programFrameOf(variables: SessionVariables): string {
  const frame = programFrame(variables);
  if (frame === null) throw new Error("the values do not fit");
  return frame;
}

const PRINT_ENVIRONMENT = ["/usr/bin/env", "-0"];

/** The environment that `PRINT_ENVIRONMENT` printed after the marker. */
function environmentIn({ code, stdout, stderr }: Ended): Record<string, string> {
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  const [marker, ...rest] = stdout.split("\n");
  expect(marker).toBe(STARTED_MARKER);
  const entries = rest.join("\n").split("\0").filter(Boolean);
  return Object.fromEntries(entries.map((entry) => entry.split(/=(.*)/s).slice(0, 2)));
}

test("every shell is installed in CI", () => {
  const missing = Object.entries(SHELLS).filter(([, shell]) => !isInstalled(shell));
  expect(process.env["CI"] === undefined ? [] : missing).toEqual([]);
});

for (const [name, shell] of Object.entries(SHELLS)) {
  describe.skipIf(!isInstalled(shell))(`in ${name}, a waiting shell`, () => {
    test("starts the program with the variables, and with its own environment", async () => {
      const frame = frameOf({ A: "1", EMPTY: "", HOSTILE });
      const environment = environmentIn(await run(shell, PRINT_ENVIRONMENT, frame, { env: { OWN: "own" } }));
      expect(environment).toMatchObject({ PATH, OWN: "own", A: "1", EMPTY: "", HOSTILE });
      const names = Object.keys(environment).filter((name) => !["PWD", "OLDPWD", "SHLVL", "_"].includes(name));
      expect(names.sort()).toEqual(["A", "EMPTY", "HOSTILE", "OWN", "PATH"]);
      expect(environment["_"] ?? "").not.toContain("#end");
    });

    test("passes every printable value unchanged", async () => {
      const value = fc.string({
        unit: fc.constantFrom(..."'\"`$(){}\\ *?[]~#;&|<>!%-=\taZ09".replace("\t", "")),
        maxLength: 60,
      });
      const anyValue = fc.oneof(value, fc.string({ unit: "grapheme-ascii", maxLength: 60 }));
      const values = fc.array(anyValue, { minLength: 10, maxLength: 30 });
      await fc.assert(
        fc.asyncProperty(values, async (some) => {
          const variables = Object.fromEntries(some.map((text, at) => [`V${at}`, text]));
          const environment = environmentIn(await run(shell, PRINT_ENVIRONMENT, frameOf(variables)));
          expect(environment).toMatchObject(variables);
        }),
        { numRuns: 20 },
      );
    });

    test.each([
      ["junk", "help\n"],
      ["empty lines", "\n\n\r\n \n"],
      ["a command", "echo hacked; exit 1\n"],
      ["a word of a frame", "berth1\nberth1 \n #end\nberth1 #end\nberth1  #end\n"],
      ["a frame without its end", "berth1 10 export A=0\n"],
      ["half a frame", "berth1 10 expo"],
      ["the other half", "rt A=0 #end\n"],
      ["a frame that lost its middle", "berth1 20 export A=0 #end\n"],
      ["a length that is too small", "berth1 9 export A=0 #end\n"],
      ["a length that is too large", "berth1 11 export A=0 #end\n"],
      [
        "a length that is no number",
        "berth1 x export A=0 #end\nberth1 0x0a export A=0 #end\nberth1 010 export A=0 #end\n",
      ],
      ["a negative length", "berth1 -10 export A=0 #end\n"],
      ["a pattern as its length", "berth1 * export A=0 #end\n"],
      ["a frame of another version", "berth2 10 export A=0 #end\n"],
      ["a frame after a space", " berth1 10 export A=0 #end\n"],
      ["a frame before a carriage return", "berth1 10 export A=0 #end\r\n"],
      ["a long line", `${"x".repeat(100_000)}\n`],
      ["bytes that are no text", "\xff\xfe\x01\x1b[0m\n"],
    ])("skips %s", async (_name, junk) => {
      const ended = await run(shell, ["/bin/sh", "-c", 'echo "A=$A B=$B"'], `${junk}${frameOf({ B: "1" })}`);
      expect(ended).toEqual({ code: 0, stdout: `${STARTED_MARKER}\nA= B=1\n`, stderr: "" });
    });

    test("goes on waiting after junk, and starts with the first whole frame", async () => {
      const { child, write, ended } = start(shell, ["/bin/sh", "-c", 'cat; echo "A=$A"']);
      write("\n");
      await waits(() => child.pid);
      write("berth1 10 expo");
      await waits(() => child.pid);
      write(frameOf({ A: "1" }));
      expect(await ended).toEqual({ code: 0, stdout: `${STARTED_MARKER}\nA=1\n`, stderr: "" });
    });

    test("keeps a repeated frame from the program", async () => {
      const frames = frameOf({ A: "1" }) + frameOf({ A: "2" });
      const ended = await run(shell, ["/bin/sh", "-c", 'cat; echo "A=$A"'], frames);
      expect(ended).toEqual({ code: 0, stdout: `${STARTED_MARKER}\nA=1\n`, stderr: "" });
    });

    test("passes arguments unchanged, and ends as the program does", async () => {
      const argv = ["/bin/sh", "-c", 'printf "<%s>" "$@"; exit 7', "name", "", "a b", HOSTILE, "-x", "$A"];
      const { code, stdout } = await run(shell, argv, frameOf({ A: "1" }));
      expect(code).toBe(7);
      expect(stdout).toBe(`${STARTED_MARKER}\n<><a b><${HOSTILE}><-x><$A>`);
    });

    test.each([
      ["flags of the shell", { flags: ["-x", "-v"] }],
      ["SHELLOPTS", { env: { SHELLOPTS: "xtrace:verbose", PS4: "+ " } }],
      ["ENV", { env: { ENV: join(dir, "env"), BASH_ENV: join(dir, "env") } }],
    ])("shows no value when tracing is turned on by %s", async (_name, how) => {
      writeFileSync(join(dir, "env"), "set -xv\n");
      const frame = frameOf({ SECRET: "secret-value" });
      const { code, stdout, stderr } = await run(shell, ["/bin/true"], `junk-secret-value\n${frame}`, how);
      expect(code).toBe(0);
      expect(stdout).toBe(`${STARTED_MARKER}\n`);
      expect(stderr).not.toContain("secret-value");
    });

    test.each([
      ["nothing", ""],
      ["half a line", "berth1 10 export A=0 #end"],
      ["other lines", "a\nb\n"],
    ])("exits with 75 when standard input closes after %s", async (_name, input) => {
      expect(await run(shell, ["/bin/echo", "started"], input)).toEqual({ code: 75, stdout: "", stderr: "" });
    });

    test("starts nothing when the body fails", async () => {
      const failing = (body: string) => `berth1 ${body.length} ${body} #end\n`;
      for (const body of ["false", "export A='", "export 1A=1", "("]) {
        const { code, stdout, stderr } = await run(shell, ["/bin/echo", "started"], failing(body));
        expect({ body, stdout, stderr }).toEqual({ body, stdout: "", stderr: "" });
        expect(code, body).toBeGreaterThan(0);
      }
    });

    test("exits with 127 before it waits when the program is missing", async () => {
      const folder = newFolder();
      writeFileSync(join(folder, "no-program"), "");
      for (const program of ["no-such-program", "/no/such/program", join(folder, "no-program"), folder]) {
        const { code, stdout, stderr } = await start(shell, [program, "x"]).ended;
        expect({ program, code, stdout }).toEqual({ program, code: 127, stdout: "" });
        expect(stderr).toContain(`${program}: not found in the image, or not executable\n`);
      }
    });

    test("exits with 143 on SIGTERM while it waits", async () => {
      const { child, ended } = start(shell, ["/bin/echo", "started"]);
      await waits(() => child.pid);
      child.kill("SIGTERM");
      expect(await ended).toEqual({ code: 143, stdout: "", stderr: "" });
    });

    test.skipIf(!hasNamespaces)("exits with 143 on SIGTERM also as a container's first process", async () => {
      const { program, args } = shell;
      const { child, ended } = start({ program, args }, ["/bin/echo", "started"], { launcher: AS_FIRST_PROCESS });
      const first = () => childOf(child.pid);
      await waits(first);
      process.kill(first() ?? 0, "SIGTERM");
      expect((await ended).code).toBe(143);
    });

    test("leaves SIGTERM to the program", async () => {
      const { child, write, ended } = start(shell, ["/bin/sh", "-c", "kill -TERM $$; echo alive"]);
      await waits(() => child.pid);
      write(frameOf({ A: "1" }));
      await ended;
      expect(child.signalCode).toBe("SIGTERM");
    });

    describe("for a program that reads its frame itself", () => {
      const passing = "line";
      /** The line that the program reads; the shell reads the line break before it. */
      const lineOf = (frame: string) => frame.slice(1);

      test("starts it with the first whole frame as all of its input", async () => {
        const frame = programFrameOf({ A: HOSTILE, B: "\ud800 é\n\x7f #end" });
        const input = `berth1 10 {"A":"half${frame}${programFrameOf({ A: "again" })}`;
        const ended = await run(shell, ["/bin/cat"], input, { passing });
        expect(ended).toEqual({ code: 0, stdout: `${STARTED_MARKER}\n${lineOf(frame)}`, stderr: "" });
      });

      test("passes every frame unchanged, also the longest one", async () => {
        const variables = fc.dictionary(fc.string({ unit: "grapheme-ascii" }), fc.string({ unit: "binary" }), {
          noNullPrototype: true,
        });
        const longest = { A: "x".repeat(4_095 - programFrameOf({ A: "" }).length - 3) };
        expect(programFrameOf(longest)).toHaveLength(4_095);
        await fc.assert(
          fc.asyncProperty(variables, async (some) => {
            const frame = programFrameOf(some);
            const { stdout } = await run(shell, ["/bin/cat"], frame, { passing });
            expect(stdout).toBe(`${STARTED_MARKER}\n${lineOf(frame)}`);
          }),
          { numRuns: 20, examples: [[longest]] },
        );
      });

      test("starts it with its own environment alone, and its arguments", async () => {
        const argv = ["/bin/sh", "-c", 'env -0; printf "<%s>" "$@"; exit 7', "name", "a b", HOSTILE];
        // Every variable that the shell sets would be one of the program.
        const how = { passing, flags: ["-a"], env: { OWN: "own" } } as const;
        const { code, stdout, stderr } = await run(shell, argv, programFrameOf({ SECRET: "secret-value" }), how);
        expect({ code, stderr }).toEqual({ code: 7, stderr: "" });
        expect(stdout).toContain("OWN=own");
        expect(stdout).toContain(`<a b><${HOSTILE}>`);
        expect(stdout).not.toContain("secret-value");
      });

      test("is replaced by it, and leaves SIGTERM to it", async () => {
        const { child, write, ended } = start(shell, ["/bin/sh", "-c", "kill -TERM $$; echo alive"], { passing });
        await waits(() => child.pid);
        write(programFrameOf({ A: "1" }));
        await ended;
        expect(child.signalCode).toBe("SIGTERM");
      });

      test("shows no value when the shell traces its commands", async () => {
        const frame = programFrameOf({ SECRET: "secret-value" });
        const ended = await run(shell, ["/bin/true"], frame, { passing, flags: ["-x", "-v"] });
        expect([ended.code, ended.stdout]).toEqual([0, `${STARTED_MARKER}\n`]);
        expect(ended.stderr).not.toContain("secret-value");
      });

      test("starts nothing when standard input closes without a frame", async () => {
        const ended = await run(shell, ["/bin/echo", "started"], "berth1 2 {}\n", { passing });
        expect(ended).toEqual({ code: 75, stdout: "", stderr: "" });
      });

      test.skipIf(!shell.program.endsWith("bash"))("starts nothing if an old bash can't write to /tmp", async () => {
        // Before version 5.1, bash passes the line in a file. No file may grow here.
        const launcher = ["/bin/sh", "-c", 'trap "" XFSZ; ulimit -f 0; exec "$@"', "launcher"];
        const how = { passing, launcher, env: { BASH_COMPAT: "50" } } as const;
        const { code, stdout } = await run({ ...shell, args: ["--posix"] }, ["/bin/cat"], programFrameOf({}), how);
        expect(stdout).toBe("");
        expect(code).toBeGreaterThan(0);
      });
    });
  });
}

describe("the command of a waiting container", () => {
  test.each(["variables", "line"] as const)(
    "is a shell with a script that the kubelet does not expand, and the program's arguments: %s",
    (passing) => {
      const [shell, flag, script = "", name, ...argv] = waitingCommand(["node", "a b"], waitingScript(passing));
      expect([shell, flag, name, argv]).toEqual(["/bin/sh", "-c", "berth-shell", ["node", "a b"]]);
      expect(script).not.toMatch(/\$[($]/);
    },
  );

  test("is recognized", () => {
    expect(isWaitingCommand(waitingCommand(["node"]))).toBe(true);
    expect(isWaitingCommand(waitingCommand(["node"], waitingScript("line")))).toBe(true);
    for (const other of [undefined, [], ["/bin/sh", "-c", "echo"], ["/bin/sh", "-c", "echo", "x"]]) {
      expect(isWaitingCommand(other)).toBe(false);
    }
  });
});

describe("a shell's frame", () => {
  test("is one line after a line break, and states the length of its body", () => {
    expect(shellFrame({ A: "it's", B: "" })).toBe("\nberth1 23 export A='it'\\''s' B='' #end\n");
  });

  test.each(["\0", "\n", "\r", "\t", "\x1b", "\x7f", "é", "漢", "\ud800", "\u2028"])(
    "is null for the character %j",
    (c) => {
      expect(shellFrame({ A: `a${c}b` })).toBeNull();
    },
  );

  test("has at most 4,095 bytes", () => {
    const empty = frameOf({ A: "" }).length;
    // A length of four digits instead of two.
    const longest = 4_095 - empty - 2;
    expect(shellFrame({ A: "x".repeat(longest) })).toHaveLength(4_095);
    expect(shellFrame({ A: "x".repeat(longest + 1) })).toBeNull();
    expect(shellFrame({ A: "'".repeat(longest) })).toBeNull();
  });

  test.each(["", "1A", "A-B", "A B", "A=", "A;id", "Ä"])("refuses the variable name %j", (name) => {
    expect(() => shellFrame({ [name]: "x" })).toThrow(TypeError);
  });
});

describe("a program's frame", () => {
  /** Reads a frame as docs describe it. */
  const read = (frame: string | null): unknown => {
    const [, length = "", body = ""] = /^\nberth1 (\d+) (.*) #end\n$/.exec(frame ?? "") ?? [];
    expect(body).toHaveLength(Number(length));
    expect(body).toMatch(/^[\x20-\x7e]*$/);
    return JSON.parse(body);
  };

  test("contains all values as ASCII", () => {
    const values = fc.dictionary(
      fc.string({ unit: "binary", maxLength: 20 }),
      fc.string({ unit: "binary", maxLength: 50 }),
      {
        maxKeys: 5,
        noNullPrototype: true,
      },
    );
    fc.assert(
      fc.property(values, (variables) => {
        expect(read(programFrame(variables))).toEqual(variables);
      }),
    );
    expect(read(programFrame({ A: "\ud800 é\n\x7f #end" }))).toEqual({ A: "\ud800 é\n\x7f #end" });
  });

  test("has at most 4,095 bytes", () => {
    // A length of four digits instead of one.
    const longest = 4_095 - (programFrame({ A: "" })?.length ?? 0) - 3;
    expect(programFrame({ A: "x".repeat(longest) })).toHaveLength(4_095);
    expect(programFrame({ A: "x".repeat(longest + 1) })).toBeNull();
    expect(programFrame({ A: "é".repeat(longest / 5) })).toBeNull();
  });
});
