import { Writable } from "node:stream";
import { describe, expect, it } from "vitest";
import { duration, showProgress } from "../../../testbed/cluster/progress.ts";

function screen(terminal: boolean) {
  let text = "";
  const stream = new Writable({
    write(chunk, _encoding, done) {
      text += chunk;
      done();
    },
  });
  const at = { ms: 0 };
  const progress = showProgress(Object.assign(stream, { isTTY: terminal, columns: 20 }), () => at.ms);
  return { progress, at, text: () => text };
}

describe("progress", () => {
  it("is a plain line every 15 s without a terminal", () => {
    const { progress, at, text } = screen(false);
    for (at.ms = 0; at.ms <= 40_000; at.ms += 1_000) progress.update(`at ${at.ms}`);
    expect(text()).toBe("at 15000\nat 30000\n");
  });

  it("is one live line on a terminal, never wider than the terminal", () => {
    const { progress, at, text } = screen(true);
    progress.update("a line that is too long for it");
    at.ms += 10;
    progress.update("too soon");
    at.ms += 200;
    progress.update("next");
    progress.line("done");
    expect(text()).toBe("\r\x1b[2Ka line that is too \r\x1b[2Knext\r\x1b[2Kdone\n");
  });

  it("doesn't clear a terminal on which it showed nothing", () => {
    const { progress, text } = screen(true);
    progress.clear();
    expect(text()).toBe("");
  });

  it.each([
    [0, "0s"],
    [59_999, "59s"],
    [60_000, "1m00s"],
    [365_000, "6m05s"],
  ])("shows %d ms as %s", (ms, text) => {
    expect(duration(ms)).toBe(text);
  });
});
