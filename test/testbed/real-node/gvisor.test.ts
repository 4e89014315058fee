import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { containerdConfig } from "../../../testbed/real-node/containerd.ts";
import { findGvisor, GVISOR_BINARIES, gvisorModule } from "../../../testbed/real-node/gvisor.ts";
import { nodeLayout } from "../../../testbed/real-node/layout.ts";
import { machine } from "../cluster/machine.ts";

const FAKE_SOURCE = "vendor/gvisor.dev/gvisor/pkg/shim/v1/manager.go";

describe("gVisor's programs", () => {
  test("are built once from changed sources, under the names that containerd knows", async () => {
    const { env, calls } = await machine({ FAKE_SOURCE, FAKE_TEXT: "const oomScoreMax = -999 // lowest" });
    const dir = await findGvisor({ env });
    expect((await readdir(dir)).sort()).toEqual([...GVISOR_BINARIES].sort());
    expect(await readFile(join(dir, "containerd-shim-runsc-v1"), "utf8")).toContain("oomScoreMax = 0 // lowest\n");
    const before = (await calls()).length;
    expect(await findGvisor({ env })).toBe(dir);
    expect((await calls()).length).toBe(before);
    const { version } = await gvisorModule();
    const built = (await calls()).find((call) => call.startsWith("build"));
    expect(built).toContain(`-X gvisor.dev/gvisor/runsc/version.version=${version}`);
  });

  test.each([
    ["is gone", "const oomScore = -999", 0],
    ["occurs twice", "oomScoreMax = -999, oomScoreMax = -999", 2],
  ])("are not built if the text to change %s", async (_, FAKE_TEXT, count) => {
    const { env } = await machine({ FAKE_SOURCE, FAKE_TEXT });
    await expect(findGvisor({ env })).rejects.toThrow(`manager.go has \`oomScoreMax = -999\` ${count} times, not once`);
  });

  test("are in containerd's configuration only on a node that has them", () => {
    const layout = nodeLayout("/node");
    expect(containerdConfig(layout, true)).toContain("runtimes.runsc]");
    expect(containerdConfig(layout, false)).not.toContain("runsc");
  });
});
