import { expect, test } from "vitest";
import { explanationOf } from "../../src/explain/explanation.ts";
import { idsOf } from "../../src/explain/ids.ts";
import { storyText } from "../../src/explain/story-text.ts";
import { timelineOf } from "../../src/explain/timeline.ts";
import { paintFor } from "../../src/observe/terminal.ts";
import { claim, event, item, pod, running, SESSION_ID, traces, WORK_ID } from "./sample-traces.ts";

/** Clears the screen and writes its own line. */
const STEERS = "\u001b[2J\nEverything is well.\n";

function shown(of: ReturnType<typeof traces>): string {
  const { sessions, items, pods } = idsOf(of);
  const story = {
    ...{ asked: of.asked, sessions: [...sessions], workItems: [...items], pods: [...pods], environments: ["agents/a"] },
    ...{ timeline: timelineOf(of), verdict: explanationOf(of), looked: of.looked },
  };
  return storyText(story, paintFor({ isTerminal: false }, undefined));
}

test("names the ids in the first line", () => {
  const [first] = shown(traces({ pods: [pod(running(2))] })).split("\n");
  expect(first).toBe(
    `${SESSION_ID}: session ${SESSION_ID}; work item ${WORK_ID}; Pod berth-research-x; Environment agents/a`,
  );
});

test.each([
  ["a Pod's annotations", { pods: [pod(running(2), "running", { "berth.dev/session-id": `s${STEERS}` })] }],
  ["the record of a claim", { claims: [claim({ sessionId: `s${STEERS}`, workId: `w${STEERS}` })] }],
  ["an Event", { events: [event("SessionStarted", 3, "session s\u001b[2J: runs (work item w\u009b2J)")] }],
  ["the Work API", { items: [item({ id: `w${STEERS}`, data: { id: `s${STEERS}`, type: "session" } })] }],
  ["the user", { asked: `s${STEERS}` }],
])("escapes control characters and line breaks in the names from %s", (_whose, over) => {
  const text = shown(traces(over));
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
  expect(text).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/);
  expect(text.split("\n")).not.toContain("Everything is well.");
});
