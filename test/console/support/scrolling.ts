import type { Page } from "playwright-core";

/** What it took the page to be scrolled from the first session to the last. */
export interface Scrolling {
  /** Pictures that the browser made meanwhile. */
  readonly frames: number;
  /** How often the rows were filled. */
  readonly draws: number;
  /** Elements within the grid, at most. */
  readonly elements: number;
  /** Elements that were made for it. */
  readonly made: number;
  /** Processor time of the page's thread, in milliseconds: that of the machine's other work is not in it. */
  readonly busyMs: number;
}

/** Scrolls through the grid, by twice what is in sight with each picture, and in steps: a wheel turns more often than that. */
export async function scrollThrough(page: Page): Promise<Scrolling> {
  const tools = await page.context().newCDPSession(page);
  await tools.send("Performance.enable", { timeDomain: "threadTicks" });
  const busyMs = async () => {
    const { metrics } = await tools.send("Performance.getMetrics");
    return (metrics.find(({ name }) => name === "TaskDuration")?.value ?? Number.NaN) * SECOND_MS;
  };
  const before = await busyMs();
  const seen = await page.evaluate<Omit<Scrolling, "busyMs">>(SCROLL);
  const after = await busyMs();
  await tools.detach();
  return { ...seen, busyMs: Math.round(after - before) };
}

const SECOND_MS = 1_000;

// A text, since no code here knows the types of a browser. Filling a row changes its texts; drawing moves `.rows`.
const SCROLL = `(async () => {
  const grid = document.getElementById("grid");
  const nextFrame = () => new Promise((resolve) => requestAnimationFrame(resolve));
  const seen = { frames: 0, draws: 0, elements: 0, made: 0 };
  const rows = grid.querySelector(".rows");
  const takeChanges = (changes) => {
    for (const { type, target, addedNodes } of changes) {
      if (type === "attributes" && target === rows) seen.draws += 1;
      seen.made += [...addedNodes].filter(({ nodeType }) => nodeType === Node.ELEMENT_NODE).length;
    }
  };
  const changes = new MutationObserver(takeChanges);
  await nextFrame();
  changes.observe(grid, { subtree: true, childList: true, attributes: true, attributeFilter: ["style"] });
  while (grid.scrollTop + grid.clientHeight < grid.scrollHeight - 1) {
    for (let step = 0; step < 4; step += 1) {
      grid.scrollTop += grid.clientHeight / 2;
      grid.dispatchEvent(new Event("scroll"));
    }
    await nextFrame();
    seen.frames += 1;
    seen.elements = Math.max(seen.elements, grid.querySelectorAll("*").length);
  }
  await nextFrame();
  seen.frames += 1;
  takeChanges(changes.takeRecords());
  changes.disconnect();
  return seen;
})()`;
