import { PassThrough } from "node:stream";
import { expect, test } from "vitest";
import { LiveView, PlainView, wantsColour, wantsLive } from "../../demo/view.ts";
import { START, sceneOf, trackAt } from "./tracks.ts";

const tty = { isTTY: true };
const pipe = {};

test.each<[string, object, NodeJS.ProcessEnv, boolean, boolean]>([
  ["a terminal", tty, {}, true, true],
  ["a terminal with NO_COLOR", tty, { NO_COLOR: "1" }, true, false],
  ["a terminal with an empty NO_COLOR", tty, { NO_COLOR: "" }, true, true],
  ["a dumb terminal", tty, { TERM: "dumb" }, false, false],
  ["a terminal in CI", tty, { CI: "true" }, false, true],
  ["a pipe", pipe, { FORCE_COLOR: "1", COLORTERM: "truecolor" }, false, false],
])("%s gets the output that it supports", (_name, stream, env, live, colour) => {
  expect(wantsLive(stream, env)).toBe(live);
  expect(wantsColour(stream, env)).toBe(colour);
});

test("without a terminal, there are lines and no escape codes", () => {
  const out = new PassThrough();
  const view = new PlainView(out, START);
  const track = trackAt(1, "stopped");
  view.event({ type: "step", track, step: "queued", at: START });
  view.line("a line");
  view.close();
  expect(String(out.read())).toBe("    0.0s  research 1: queued: Add up the numbers from 1 to 1000.\na line\n");
});

test("on a terminal, the last picture stays and fits the current size", () => {
  const out = Object.assign(new PassThrough(), { isTTY: true, columns: 100, rows: 24 });
  const view = new LiveView(out as never, false, () => sceneOf([trackAt(1, "stopped")]));
  out.read();
  out.columns = 40;
  view.close();
  const shown = String(out.read());
  expect(shown).toContain("Berth demo  0:42  serving sessions");
  expect(shown).not.toContain("Kubernetes");
  view.close();
  expect(String(out.read() ?? "")).toBe("");
});

test("a terminal that changes its size gets a clean picture at once", () => {
  const out = Object.assign(new PassThrough(), { isTTY: true, columns: 100, rows: 24 });
  const view = new LiveView(out as never, false, () => sceneOf([trackAt(1, "stopped")]));
  out.read();
  out.columns = 40;
  out.emit("resize");
  const [before = "", picture = ""] = String(out.read()).split("\x1b[H\x1b[J");
  expect(before).not.toContain("Berth demo");
  expect(picture).toContain("Berth demo  0:42  serving sessions");
  view.close();
  out.read();
  out.emit("resize");
  expect(out.read()).toBeNull();
});
