import { isNotFound } from "../../../../src/kube/errors.ts";
import { SECRETS } from "../../../../src/kube/resource.ts";
import { type Act, pick } from "./act.ts";

/** Changes of the Environment and of its key that do not depend on its mode. */
export const ENVIRONMENT = {
  "spec:paused": async (stage) => {
    await stage.patchSpec({ paused: true });
    return true;
  },
  "spec:resumed": async (stage) => {
    await stage.patchSpec({ paused: false });
    return true;
  },
  "environment:made-again": async (stage) => {
    stage.witness.excuseAll();
    await stage.remake();
    return true;
  },

  "key:rotated": (stage, choice) => {
    const key = stage.world.simulator.rotateKey(stage.world.environmentId);
    stage.later(pick([0, 400, 1_500], choice), () => stage.writeKey(key));
    return true;
  },
  "key:rejected": ({ world }) => {
    world.simulator.rotateKey(world.environmentId);
    return true;
  },
  "key:wrong": async (stage) => {
    await stage.writeKey("sk-ant-oat01-of-another-environment");
    return true;
  },
  "key:deleted": async ({ world }) => {
    const { kube, namespace } = world;
    try {
      await kube.delete(SECRETS, { namespace, name: "key" });
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
    return true;
  },
  "key:restored": async (stage) => {
    await stage.writeKey(stage.world.simulator.environmentKey(stage.world.environmentId));
    return true;
  },
} as const satisfies Record<string, Act>;
