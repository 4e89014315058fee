import { appendFile, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { filesBelow, POD_LOGS, PodLogKeeper } from "./pod-log-keeper.ts";

test("keeps what a container wrote, and writes later, when its Pod is gone", async () => {
  const dir = await mkdtemp(join(tmpdir(), "berth-pod-logs-"));
  try {
    const from = join(dir, "kubelet");
    const log = join(from, "agents_one_uid/worker/0.log");
    {
      await using _keeper = new PodLogKeeper(from, dir);
      await mkdir(join(log, ".."), { recursive: true });
      await writeFile(log, "first\n");
      await vi.waitFor(async () => expect(await filesBelow(join(dir, POD_LOGS))).toHaveLength(1), { timeout: 10_000 });
      await appendFile(log, "second\n");
      await rm(from, { recursive: true });
    }
    expect(await readFile(join(dir, POD_LOGS, "agents_one_uid/worker/0.log"), "utf8")).toBe("first\nsecond\n");
  } finally {
    await rm(dir, { recursive: true });
  }
});

test("has nothing to keep where kubelet has no folder yet", async () => {
  expect(await filesBelow(join(tmpdir(), "berth-there-is-no-such-folder"))).toEqual([]);
});
