/** Measures the cost of scrolling the console in a browser. */

import type { Page } from "playwright-core";

/** The cost of scrolling the page from the first session to the last. */
export interface Scrolling {
  /** Frames that the browser rendered. */
  readonly frames: number;
  /** How often the rows were filled. */
  readonly draws: number;
  /** The largest number of elements within the grid. */
  readonly elements: number;
  /** Elements that were created. */
  readonly made: number;
  /** CPU time of the page's thread in milliseconds, without other work of the machine. */
  readonly busyMs: number;
}

/**
 * Scrolls through the grid by two screens per frame, in several steps, because a mouse wheel sends several events per
 * frame.
 */
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

// A string, because the types here do not include a browser's. Filling a row changes its texts; drawing moves `.rows`.
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
