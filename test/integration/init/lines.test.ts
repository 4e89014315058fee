import { describe, expect, test } from "vitest";
import { FirstProcess, frame } from "./first-process.ts";

describe("a line", () => {
  test("of a greeting is answered with the state, whether the container waits, runs a program, or has run one", async () => {
    await using init = await FirstProcess.waiting({ script: "read -r line </dev/null; sleep 1000 & wait" });
    const { boot } = init;
    expect(await init.ask("hello")).toEqual({ boot, nonce: "n1", claim: "-", phase: "waiting" });
    await init.run("claim-1", 1);
    expect(await init.ask("hello")).toEqual({ boot, nonce: "n3", claim: "claim-1", phase: "running" });
    await init.ask("kill", boot, "claim-1");
    const ended = await init.next();
    expect(ended).toMatchObject({ boot, claim: "claim-1", phase: "ended", how: "signal", number: 9, asked: "kill" });
    expect(await init.ask("hello")).toEqual({ ...ended, nonce: "n5" });
  });

  test("runs the program once for each number, and for no number that is not above the last", async () => {
    await using init = await FirstProcess.waiting({ script: "echo run $CLAIM" });
    for (const [claim, number] of [["claim-1", 5] as const, ["claim-2", 6] as const]) {
      expect(await init.runToEnd(claim, number, [`CLAIM=${claim}`])).toMatchObject({
        how: "exit",
        number: 0,
        asked: "-",
      });
    }
    for (const number of [6, 5, 0]) {
      const state = await init.run("claim-3", number, { variables: ["CLAIM=claim-3"] });
      expect(state).toMatchObject({ claim: "claim-2", phase: "ended" });
    }
    await init.runToEnd("claim-1", 7, ["CLAIM=claim-1"]);
    await expect.poll(() => init.output).toBe("run claim-1\nrun claim-2\nrun claim-1\n");
  });

  test("starts nothing while a program runs, or for another start of the container", async () => {
    await using init = await FirstProcess.waiting({ script: "echo started; exec sleep 1000" });
    const other = init.boot.replaceAll(/./g, "0");
    expect(await init.ask("run", other, "claim-1", 1, 0, 0)).toMatchObject({ claim: "-", phase: "waiting" });
    await init.run("claim-1", 1);
    await init.until("it has started", () => init.output !== "");
    expect(await init.run("claim-2", 2)).toMatchObject({ claim: "claim-1", phase: "running" });
    await init.ask("kill", init.boot, "claim-1");
    expect(await init.next()).toMatchObject({ claim: "claim-1", phase: "ended" });
    await expect.poll(() => init.output).toBe("started\n");
  });

  test("that stops or kills names its claim and boot, else nothing happens", async () => {
    await using init = await FirstProcess.waiting({
      script: "trap 'echo stopped; exit 3' TERM; echo up; sleep 1000 & wait",
    });
    await init.run("claim-1", 1);
    await init.until("it has started", () => init.output !== "");
    const other = init.boot.replaceAll(/./g, "0");
    for (const verb of ["stop", "kill"]) {
      expect(await init.ask(verb, init.boot, "claim-2")).toMatchObject({ claim: "claim-1", phase: "running" });
      expect(await init.ask(verb, other, "claim-1")).toMatchObject({ claim: "claim-1", phase: "running" });
    }
    expect(await init.ask("stop", init.boot, "claim-1")).toMatchObject({ phase: "running" });
    expect(await init.next()).toMatchObject({ phase: "ended", how: "exit", number: 3, asked: "stop" });
    await expect.poll(() => init.output).toBe("up\nstopped\n");
    // The program of a later item isn't stopped by a line for the earlier one.
    await init.run("claim-2", 2);
    expect(await init.ask("stop", init.boot, "claim-1")).toMatchObject({ claim: "claim-2", phase: "running" });
    expect(await init.ask("hello")).toMatchObject({ claim: "claim-2", phase: "running" });
  });

  test("that asks for sleep ends the container after that time, unless another program runs first", async () => {
    await using init = await FirstProcess.waiting({ script: "exec sleep 1000" });
    await init.ask("sleep", init.boot, "-", 1);
    await init.run("claim-1", 1);
    // It would have ended by now, and a sleep while a program runs is refused.
    expect(await init.ask("sleep", init.boot, "claim-1", 0)).toMatchObject({ phase: "running" });
    await init.ask("kill", init.boot, "claim-1");
    expect(await init.next()).toMatchObject({ phase: "ended" });
    expect(await init.ask("sleep", init.boot, "claim-1", 0)).toMatchObject({ phase: "ended" });
    expect(await init.ended).toBe(0);
  });

  test("changes the end of a sleep, and its program begins without one", async () => {
    await using init = await FirstProcess.waiting({ script: "exit 4" });
    await init.ask("sleep", init.boot, "-", 0);
    expect(await init.ended).toBe(0);
    await using again = await FirstProcess.waiting({ script: "exit 4" });
    await again.ask("sleep", again.boot, "-", 1000);
    await again.runToEnd("claim-1", 1);
    await again.ask("sleep", again.boot, "claim-1", 1000);
    await again.ask("sleep", again.boot, "claim-1", 0);
    expect(await again.ended).toBe(0);
  });

  test.each<[string, (boot: string) => string]>([
    ["without a mark", (boot) => frame(`run n ${boot} claim-1 1 0 0`).replace("berth2", "berth1")],
    ["of another length", (boot) => frame(`run n ${boot} claim-1 1 0 0`).replace(/ \d+ /, " 7 ")],
    ["without its end", (boot) => frame(`run n ${boot} claim-1 1 0 0`).replace(" #end", "")],
    ["that is torn", (boot) => frame(`run n ${boot} claim-1 1 0 0`).replace("claim", "cl\naim")],
    ["with a byte 0", (boot) => frame(`run n ${boot} claim-1 1 0 0`).replace("claim", "cl\0aim")],
    ["that is too long", (boot) => frame(`run n ${boot} claim-1 1 0 0 A=${"a".repeat(4096)}`)],
    [
      "that has another one behind an endless one",
      (boot) => `${"a".repeat(9000)}${frame(`run n ${boot} c 1 0 0`).slice(1)}`,
    ],
  ])("%s is skipped", async (_, lineOf) => {
    await using init = await FirstProcess.waiting();
    init.write(lineOf(init.boot));
    expect(await init.ask("hello")).toMatchObject({ claim: "-", phase: "waiting" });
  });

  test.each([
    ["a negative number", "claim-1 -1 0 0"],
    ["a number that is no number", "claim-1 1x 0 0"],
    ["a number that overflows", "claim-1 99999999999999999999 0 0"],
    ["no time", "claim-1 1"],
    ["no grace", "claim-1 1 0"],
    ["a claim that is too long", `${"c".repeat(64)} 1 0 0`],
    ["a claim with another character", "claim/1 1 0 0"],
    ["a variable without a value", "claim-1 1 0 0 NAME"],
    ["a variable without a name", "claim-1 1 0 0 =value"],
    ["a wrong code", "claim-1 1 0 0 A=%4"],
    ["a code in small letters", "claim-1 1 0 0 A=%4a"],
    ["the code of a byte 0", "claim-1 1 0 0 A=%00"],
    ["two spaces", "claim-1 1 0 0 A=1  B=2"],
  ])("that runs a program with %s starts nothing", async (_, rest) => {
    await using init = await FirstProcess.waiting();
    init.write(frame(`run n ${init.boot} ${rest}`));
    init.write(frame("hello last"));
    let state = await init.next();
    if (state.nonce === "n") state = await init.next();
    expect(state).toEqual({ boot: init.boot, nonce: "last", claim: "-", phase: "waiting" });
  });

  test("that arrives byte by byte, or with others in one piece, is carried out once", async () => {
    await using init = await FirstProcess.waiting({ script: "echo $VALUE" });
    const line = frame(`run n1 ${init.boot} claim-1 1 0 30 VALUE=one`);
    for (const byte of line) init.write(byte);
    expect(await init.next()).toMatchObject({ nonce: "n1", phase: "running" });
    expect(await init.next()).toMatchObject({ nonce: "-", phase: "ended" });
    init.write(`${frame("hello n2")}${frame("hello n3")}`);
    expect((await init.next()).nonce).toBe("n2");
    expect((await init.next()).nonce).toBe("n3");
    await expect.poll(() => init.output).toBe("one\n");
  });
});
