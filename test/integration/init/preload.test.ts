import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { FirstProcess, type InitOptions } from "./first-process.ts";

/** berth-init whose program was started ahead. Each script prints `up` first. */
async function preloaded(script: string, options: InitOptions = {}): Promise<FirstProcess> {
  const flags = ["--preload", ...(options.flags ?? [])];
  const init = await FirstProcess.waiting({ ...options, flags, script: `echo up; ${script}` });
  await init.until("its program waits", () => init.output.startsWith("up\n"));
  return init;
}

describe("a program that is started ahead", () => {
  test("waits for its item, and reads it as one line of JSON with the end of the file behind it", async () => {
    await using init = await preloaded("cat; echo end");
    expect(await init.ask("hello")).toMatchObject({ claim: "-", phase: "waiting" });
    expect(await init.runToEnd("claim-1", 1, ["ID=session-1", "EMPTY="])).toMatchObject({ how: "exit", number: 0 });
    await expect.poll(() => init.output).toBe('up\n{"ID":"session-1","EMPTY":""}\nend\n');
  });

  test("gets variables of any name and value, escaped for JSON", async () => {
    const values = {
      "log.level": 'a"b\\c=d',
      LINES: "one\ntwo\t\u0001\u007f",
      TEXT: "\u00e4 \u20ac \u{1f600}",
      NONE: "",
    };
    const variables = Object.entries(values).map(([name, value]) => `${name}=${encodeURIComponent(value)}`);
    await using init = await preloaded("cat");
    await init.runToEnd("claim-1", 1, variables);
    const line = () => Buffer.from(init.output.slice("up\n".length), "latin1").toString("utf8");
    await init.until("it has printed its item", () => line().endsWith("\n"));
    expect(line().indexOf("\n")).toBe(line().length - 1);
    expect(JSON.parse(line())).toEqual(values);
  });

  test("has its item on standard input only", async () => {
    await using init = await preloaded("env -0; read -r line; echo $line; env -0", { env: { KEPT: "kept" } });
    await init.runToEnd("claim-1", 1, ["KEY=of-the-item"]);
    await init.until("it has printed all", () => init.output.split("KEPT=kept").length === 3);
    expect(init.output.match(/of-the-item/g)).toHaveLength(1);
  });

  test("is one for the first item: later items start one, which finds its item on standard input", async () => {
    await using init = await preloaded("cat; env -0 | grep -c ITEM");
    for (const number of [1, 2, 3]) {
      await init.runToEnd(`claim-${number}`, number, [`ITEM=${number}`]);
      const printed = [1, 2, 3].slice(0, number).map((item) => `up\n{"ITEM":"${item}"}\n0\n`);
      // Nothing is started between two items.
      await expect.poll(() => init.output).toBe(printed.join(""));
      expect(await init.ask("hello")).toMatchObject({ phase: "ended" });
    }
  });

  test.each([
    ["exit 3", { how: "exit", number: 3 }, 3],
    ["exit 0", { how: "exit", number: 0 }, 1],
    ["kill -KILL $$", { how: "signal", number: 9 }, 137],
  ])("ends the container with an error if it ends before its item: %s", async (end, ended, code) => {
    await using init = await preloaded(`read -r _ < "$TEST_FOLDER/pipe"; ${end}`, {
      prepare: 'mkfifo "$TEST_FOLDER/pipe"',
    });
    await writeFile(join(init.folder, "pipe"), "end\n");
    expect(await init.next()).toMatchObject({ claim: "-", phase: "ended", ...ended, asked: "-", left: "clean" });
    expect(await init.ended).toBe(code);
  });

  test("ends the container with 127 if it isn't in the image", async () => {
    await using init = await FirstProcess.waiting({ flags: ["--preload"], command: ["no-such-program"] });
    const words = "berth-init: command no-such-program: No such file or directory\n";
    expect(await init.next()).toMatchObject({ claim: "-", phase: "ended", how: "exit", number: 127, words });
    expect(await init.ended).toBe(127);
  });

  test("that never reads its item doesn't block berth-init, and can be stopped", async () => {
    await using init = await preloaded("exec sleep 1000");
    const value = "v".repeat(3900);
    expect(await init.run("claim-1", 1, { variables: [`KEY=${value}`] })).toMatchObject({ phase: "running" });
    expect(await init.ask("hello")).toMatchObject({ claim: "claim-1", phase: "running" });
    await init.ask("stop", init.boot, "claim-1");
    expect(await init.next()).toMatchObject({ phase: "ended", how: "signal", number: 15, asked: "stop" });
  });

  test("that has closed its standard input gets no item: it is ended, and the container with it", async () => {
    await using init = await preloaded("exec <&-; echo closed; sleep 1000");
    await init.until("it has closed it", () => init.output.includes("closed"));
    expect(await init.run("claim-1", 1)).toMatchObject({ claim: "-", phase: "waiting" });
    expect(await init.next()).toMatchObject({ claim: "-", phase: "ended", how: "signal", number: 9 });
    expect(await init.ended).toBe(1);
  });

  test("gets no item that is too long as JSON for a pipe, and still waits", async () => {
    await using init = await preloaded("cat");
    const text = (count: number) => `KEY=${"%01".repeat(count)}`;
    expect(await init.run("claim-1", 1, { variables: [text(700)] })).toMatchObject({ claim: "-", phase: "waiting" });
    await init.runToEnd("claim-2", 1, [text(600)]);
    await init.until("it has printed its item", () => init.output.endsWith("}\n"));
    expect(init.output).toBe(`up\n{"KEY":"${"\\u0001".repeat(600)}"}\n`);
  });

  test("is neither stopped nor killed by a line for the claim `-` while it waits", async () => {
    await using init = await preloaded("cat");
    for (const verb of ["stop", "kill"]) {
      expect(await init.ask(verb, init.boot, "-")).toMatchObject({ claim: "-", phase: "waiting" });
    }
    await init.runToEnd("claim-1", 1, ["A=1"]);
    await expect.poll(() => init.output).toBe('up\n{"A":"1"}\n');
  });

  test("has the time of its item from the start of the item", async () => {
    await using init = await preloaded("trap 'echo asked' TERM; read -r _; while :; do sleep 1000 & wait; done");
    await init.ask("sleep", init.boot, "-", 1000);
    await init.run("claim-1", 1, { seconds: 1, grace: 1 });
    expect(await init.next()).toMatchObject({ phase: "ended", how: "signal", number: 9, asked: "time", left: "clean" });
    await expect.poll(() => init.output).toBe("up\nasked\n");
    expect(await init.ask("hello")).toMatchObject({ claim: "claim-1", phase: "ended" });
  });

  test.each<[string, (init: FirstProcess) => unknown, number]>([
    ["it is terminated", (init) => init.signal("SIGTERM"), 143],
    ["its sleep has ended", (init) => init.ask("sleep", init.boot, "-", 0), 0],
    ["no line can come", (init) => init.endInput(), 75],
  ])("is ended at once with its container when %s", async (_, end, code) => {
    await using init = await preloaded("trap '' TERM; while :; do sleep 1000; done");
    await end(init);
    expect(await init.next()).toMatchObject({ claim: "-", phase: "ended", how: "signal", number: 9, left: "clean" });
    expect(await init.ended).toBe(code);
  });

  test("gives its code to a container that serves one item", async () => {
    await using init = await preloaded("read -r line; exit 42", { flags: ["--once"] });
    await init.runToEnd("claim-1", 1);
    expect(await init.ended).toBe(42);
  });
});
