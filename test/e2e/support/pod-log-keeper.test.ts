import { appendFile, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { filesBelow, POD_LOGS, PodLogKeeper } from "./pod-log-keeper.ts";

test("keeps the output of a deleted Pod's container, including what it writes later", async () => {
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

test("keeps nothing if the kubelet has no folder yet", async () => {
  expect(await filesBelow(join(tmpdir(), "berth-there-is-no-such-folder"))).toEqual([]);
});
