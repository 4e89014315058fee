import { expect, test } from "vitest";
import { bashScript } from "../../../simulator/script.ts";
import { runOperatorProcess } from "../support/operator-process.ts";
import { hasNodeControl, OPERATOR_REPLICAS } from "../support/provided.ts";
import { serveOne, untilEnded } from "../support/session-life.ts";
import { startE2eWorld } from "../support/world.ts";

test.skipIf(!hasNodeControl())(
  "an operator outside the cluster, with only the chart's rights, serves like the one inside",
  async () => {
    await using world = await startE2eWorld();
    {
      await using operator = await runOperatorProcess(world);
      const served = await serveOne(world, { script: bashScript("echo hello") });
      await untilEnded(world, served, "Completed");
      expect((await operator.log()).filter(({ level }) => level === "error")).toEqual([]);
      expect(await world.operators.pods()).toEqual([]);
    }
    expect(await world.operators.readyPods()).toHaveLength(OPERATOR_REPLICAS);
  },
);
